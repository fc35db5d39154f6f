r"""Train a value model: V(x, y_<=t), which predicts from any prefix the reward of the whole reply.

    # The paper's recipe: LoRA on a frozen backbone, 3 epochs, batches of 16 trajectories.
    python -m train.value_model --data data/ultrafeedback --base Qwen/Qwen3-1.7B-Base --out out/vm-1.7b

    # On 8 devices, weights split over 4 of them; layers recomputed to save memory:
    python -m train.value_model --data data/ultrafeedback --base Qwen/Qwen3-4B-Base --out out/vm-4b \
        --mesh 2 4 1 --rows 8 --remat

    # Every weight of the backbone; out/vm-full/best/backbone is then a checkpoint of its own:
    python -m train.value_model --data data/ultrafeedback --base Qwen/Qwen3-0.6B-Base --out out/vm-full \
        --trained full --learning-rate 1e-5

    # A vocab head, distilled from a scalar one:
    python -m train.value_model --data data/ultrafeedback --base Qwen/Qwen3-1.7B-Base --out out/vm-vocab \
        --head vocab --head-rank 64 --objective distil --teacher out/vm-1.7b/best

    # A vocab head on the hidden states that the policy has anyway, so that steering takes no further pass:
    python -m train.value_model --data data/sampled --base Qwen/Qwen3-1.7B --out out/vm-states \
        --head vocab --head-rank 64 --states policy --objective token

    # One that is trained further, on replies that were steered with it:
    python -m train.value_model --data data/steered --base Qwen/Qwen3-1.7B-Base --out out/vm-further \
        --init out/vm-1.7b/best

--data is what train.prepare and train.label made. --out holds metrics.jsonl, curves.png, checkpoints/, and at
the end last/ and best/, value models in the official layout or in ours. After --trained full each has its
backbone/, which decode.generate and sia_jax.load_value_model find by themselves; after --states policy each
is a head alone, which steers --base and no other policy. Stop it at any moment and start the same command
again: it goes on to the same numbers.
"""

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import jax
import numpy as np

import sia_jax
from sia_jax.checkpoints.fingerprint import fingerprint_of_folder
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.huggingface import load_backbone
from sia_jax.checkpoints.value_model import fingerprint_with_backbone, own_backbone
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.records import RecordSource, read_records, trajectories
from sia_jax.data.rejections import Rejections
from sia_jax.data.set_folder import set_folder
from sia_jax.data.trajectories import Trajectory
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs
from sia_jax.files.reading import read_object
from sia_jax.files.shown import shown_value
from sia_jax.files.writing import write_text
from sia_jax.models.config import ModelConfig
from sia_jax.parallel.lock_step import agreed
from sia_jax.parallel.mesh import mesh_of
from sia_jax.pretrained import ValueModel
from sia_jax.reports.training import few_to_tell
from sia_jax.reports.training_view import RunView
from sia_jax.runs.cli import check_texts, memory_explained, named_as_options, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.runs.interruption import Interruption
from sia_jax.runs.processes import joined, mesh_of_all
from sia_jax.runs.progress import waiting
from sia_jax.runs.value_training import begin, check_start, export
from sia_jax.text.markup import markup_of_set
from sia_jax.training.checkpoint import Checkpoints
from sia_jax.training.config import TrainConfig
from sia_jax.training.loop import held_out_share, run, split, total_steps
from sia_jax.training.regression import comparable_pairs
from sia_jax.types import Params
from train.value_model_options import Args, backbone_dtype, check_options, loop_config, train_config

SETTINGS = "settings.json"
FILES, FOLDERS = ("metrics.jsonl", "curves.png"), ("checkpoints", "last", "best")
"""What else a run writes, after its settings."""


def main(args: Args) -> None:
    """Train; exits with 1 if something is wrong with options or files, and with 130 after Ctrl-C."""
    kept = "interrupted; the same command goes on from the last checkpoint"
    with program("train.value_model", FloatingPointError, interrupted=lambda: kept) as console:
        check_texts(args)
        _check_places(args)
        with joined(args.distributed, locked(folders=(args.out,))) as chief:
            _train(args, console, chief)


def _check_places(args: Args) -> None:
    """What is written is nothing that is read, and nobody else's.

    Raises:
      ValueError: it is, and what; or the folder holds what a run would replace, and is of none.
    """
    check_outputs(
        inputs={
            "--data": set_folder(args.data),
            "--base": args.base,
            "--teacher": args.teacher,
            "--init": args.init,
        },
        files={f"--out's {name}": args.out / name for name in (*FILES, SETTINGS)},
        folders={f"--out's {name}": args.out / name for name in FOLDERS},
    )
    foreign = [name for name in (*FILES, *FOLDERS) if (args.out / name).exists()]
    if foreign and not (args.out / SETTINGS).exists():
        raise ValueError(
            f"{args.out} holds {', '.join(foreign)} and no {SETTINGS}: they are of no run that could go on "
            "there, and a new one would replace them; name another --out, or move them away"
        )


def _train(args: Args, console: Terminal, chief: bool) -> None:
    check_options(args)
    base_folder = resolve_checkpoint(args.base)
    with named_as_options(args):
        mesh = mesh_of_all(args.mesh, distributed=args.distributed)
    source = read_records(args.data)
    dtype = backbone_dtype(args)
    with waiting(console, "loading the backbone"):
        model_config, model = load_backbone(base_folder, dtype=dtype, mesh=mesh)
    found, rejected = trajectories(source, model_config.vocab_size, args.row_length)
    data, held_out = split(found, args.held_out, args.seed)
    if not data:
        raise ValueError(_nothing_to_train_on(args, held_out, rejected))
    steps = total_steps(len(data), args.batch_size, args.epochs)
    loop = loop_config(args, steps)
    teacher = _teacher(args, model_config, model)
    config = train_config(args, model_config, teacher, steps)
    tokenizer = load_tokenizer(base_folder)
    markup = markup_of_set(source.meta, str(args.data), tokenizer)
    policy = sia_jax.Policy(model_config, {}, tokenizer, checkpoint_name(args.base))
    if args.states == "policy" and _is_prompted_otherwise(source, policy):
        text = (
            f"the prompts in {args.data} are not as {policy.name} is given them, behind which the head is to "
            "steer; train.prepare --generate N --record-prompt policy makes a set of them"
        )
        console.print(text, style="yellow", highlight=False, soft_wrap=True)
    start = _start(args, config, model, base_folder)
    frozen, state = begin(config, model, args.seed, start=start, teacher=teacher, mesh=mesh)
    del model, start  # of a full run they would stay as further copies of every weight

    def write() -> None:
        if chief:
            _write_settings(args, base_folder, found)

    agreed("training in --out", write, lambda _: {}, mesh=mesh)
    if chief:
        if rejected.total:
            console.print(f"kept out: {rejected.describe()}", highlight=False, soft_wrap=True)
        console.print(
            f"{len(data):,} trajectories to train on, {len(held_out):,} held out; {steps:,} steps",
            highlight=False,
        )
        pairs = comparable_pairs([t.reward for t in held_out], [t.group for t in held_out])
        if warning := few_to_tell(len(held_out), pairs):
            text = f"{warning}; {_how_many_held_out(args, data, held_out)}"
            console.print(text, style="yellow", highlight=False, soft_wrap=True)
    view = RunView(args.out, args.base, config, steps, console, chief=chief)
    checkpoints = Checkpoints(args.out / "checkpoints", args.keep)
    # Of several processes each would stop at a step of its own; there a signal does what it always does.
    interruption = Interruption()
    alone = jax.process_count() == 1
    smaller = f"lower --rows, now {args.rows}, pass --remat, or split the weights with --mesh"
    signals = interruption if alone else nullcontext()
    with view, checkpoints.settling(), signals, memory_explained(smaller), named_as_options(args):
        finished = run(
            frozen,
            state,
            data,
            held_out,
            config,
            loop,
            mesh=mesh,
            checkpoints=checkpoints,
            should_stop=lambda: interruption.wanted,
            on_start=view.start,
            on_step=view.step,
            on_evaluation=view.evaluation,
        )
    view.draw()
    if interruption.wanted and not finished.complete:
        checkpoints.close()
        done = int(finished.state.step)
        console.print(f"interrupted; the same command goes on after step {done:,}", highlight=False)
        sys.exit(interruption.exit_status)
    best, best_step = checkpoints.restore(finished.state, best=True), finished.progress.best_step
    checkpoints.close()
    kept = functools.partial(
        export,
        config=config,
        frozen=frozen,
        progress=finished.progress,
        base=args.base,
        markup=markup,
        layout=args.layout,
    )
    kept(args.out / "last", state=finished.state)
    if best_step is not None and (best is None or best[1]["best_step"] != best_step):
        raise ValueError(
            f"the best weights, of step {best_step}, are not in {checkpoints.folder / 'best'} as they were "
            f"written; {args.out / 'last'} holds those of the end; for the best, train in a new --out"
        )
    if best is not None:
        kept(args.out / "best", state=best[0])
    if chief:
        console.print(
            f"wrote {args.out}: last, {'best, ' if best else ''}metrics.jsonl, curves.png", highlight=False
        )
    if interruption.wanted:  # in the last step, or while its weights were written
        sys.exit(interruption.exit_status)


def _nothing_to_train_on(args: Args, held_out: Sequence[Trajectory], rejected: Rejections) -> str:
    """Why nothing is left, and what to do."""
    if held_out:
        return (
            f"--held-out {args.held_out:g} holds out all {len({t.group for t in held_out}):,} prompts of "
            f"{args.data}, and none is left to train on; lower it, or prepare more prompts"
        )
    why = f": {rejected.describe()}" if rejected.total else ""
    return f"{args.data} holds nothing to train on{why}"


def _how_many_held_out(args: Args, data: Sequence[Trajectory], held_out: Sequence[Trajectory]) -> str:
    """'4 of 20 prompts are held out: raise --held-out, now 0.2, or train on more data'."""
    out, prompts = len({t.group for t in held_out}), len({t.group for t in (*data, *held_out)})
    share = held_out_share(prompts) if args.held_out is None else args.held_out
    now = f"{out:,} of {prompts:,} prompts are held out"
    return f"{now}: raise --held-out, now {share:.2g}, or train on more data"


def _is_prompted_otherwise(source: RecordSource, policy: sia_jax.Policy) -> bool:
    """Whether the policy is given the first conversation, where there is one, in other ids than the set's."""
    first, other = source[0], False
    with suppress(
        ValueError
    ):  # no conversation, no tokenizer, or a template that refuses: nothing to compare
        other = policy.prompt_ids(first.messages[:-1]) != first.prompt_ids.tolist()
    return other


def _teacher(args: Args, model: ModelConfig, base: Params) -> ValueModel | None:
    if args.teacher is None:
        return None
    if own_backbone(args.teacher) is None:
        policy = sia_jax.Policy(model, {"model": base}, None, checkpoint_name(args.base))
        teacher = sia_jax.load_value_model(args.teacher, policy)
    else:
        teacher = sia_jax.load_value_model(args.teacher, dtype=backbone_dtype(args), mesh=mesh_of(base))
    if teacher.config.head != "scalar":
        raise ValueError(f"--teacher must have a scalar head, got {teacher.config.head!r}")
    return teacher


def check_init(args: Args) -> None:
    """The value model of --init can be trained further as the other options say; its weights are loaded.

    Args:
      args: of a run, whose data are not looked at.

    Raises:
      FileNotFoundError, ValueError: it cannot, and why.
    """
    base_folder = resolve_checkpoint(args.base)
    model_config, model = load_backbone(base_folder, dtype=backbone_dtype(args), mesh=None)
    _start(args, train_config(args, model_config, None, sys.maxsize), model, base_folder)


def _start(args: Args, config: TrainConfig, base: Params, base_folder: Path) -> ValueModel | None:
    """The value model that is trained further; of a full run with its adapter merged.

    Raises:
      FileNotFoundError, ValueError: it cannot be loaded, or is not of the kind of the run.
    """
    if args.init is None:
        return None
    if config.trained == "full":
        backbone = None if own_backbone(args.init) is not None else base_folder
        start = sia_jax.load_value_model(args.init, backbone, dtype=backbone_dtype(args), mesh=mesh_of(base))
    else:
        policy = sia_jax.Policy(config.value.backbone, {"model": base}, None, checkpoint_name(args.base))
        own = own_backbone(args.init) is not None
        start = sia_jax.load_value_model(args.init, None if own else policy)
    check_start(config, start)
    return start


def _write_settings(args: Args, base_folder: Path, data: Sequence[Trajectory]) -> None:
    """settings.json; a run with other settings must not go on in its folder.

    Raises:
      OSError, ValueError: the folder is of a run with other settings, and which, or of one whose settings
        cannot be read.
    """
    now = json.loads(json.dumps(dataclasses.asdict(args), default=str))
    now["base_fingerprint"] = fingerprint_of_folder(base_folder)
    digest = hashlib.sha256()
    for trajectory in data:
        digest.update(np.float64(trajectory.reward).tobytes())
        digest.update(trajectory.prompt_ids.tobytes() + b"|" + trajectory.reply_ids.tobytes())
        digest.update(trajectory.group.encode() + b"|")  # which decides what is held out
    now["data_sha256"] = digest.hexdigest()[:16]
    now["teacher_fingerprint"] = None if args.teacher is None else fingerprint_with_backbone(args.teacher)
    now["init_fingerprint"] = None if args.init is None else fingerprint_with_backbone(args.init)
    free = {"out", "data", "base", "teacher", "init", "mesh", "distributed", "rows", "remat"}
    free |= {"max_steps", "keep", "layout", "patience"}
    path = args.out / SETTINGS
    if path.exists():
        before = read_object(path, "file of settings", "name another --out")
        differing = [n for n in now if n not in free and before.get(n) != now[n]]
        if differing:
            changes = ", ".join(f"{n} {shown_value(before.get(n))} (now {now[n]!r})" for n in differing)
            raise ValueError(f"{args.out} holds a run with other settings: {changes}; name another --out")
    write_text(path, json.dumps(now, indent=2) + "\n")


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
