"""What the models of a world score, and their MODEL_CARD.md."""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import sia_jax
from sia_jax.costs.roofline import usable_cores
from sia_jax.data.records import read_records
from sia_jax.data.trajectories import Trajectory
from sia_jax.evaluation.statistics import mean_interval
from sia_jax.files.reading import read_object
from sia_jax.files.writing import write_text
from sia_jax.models.config import ModelConfig
from sia_jax.pretrained import Policy, RewardModel
from sia_jax.reports.training import best_evaluation
from sia_jax.rewards.labelling import label
from sia_jax.training.batch import PackedRows, micro_batch
from sia_jax.training.language import reply_logprobs
from sia_jax.training.packing import pack
from sia_jax.training.regression import fit
from sia_jax.types import Params
from sia_jax.world.data import conversation, held_out_language_data
from sia_jax.world.fidelity import fidelity
from sia_jax.world.gold import gold_reward
from sia_jax.world.grammar import corpus, replies, sample_reply
from sia_jax.world.junctions import Junction, write
from sia_jax.world.prompts import Prompt, find_prompt, prompts
from sia_jax.world.stages import REPLY_TOKENS, ROW_LENGTH, World
from sia_jax.world.streams import draw, stream

CARD = "MODEL_CARD.md"
VALUE_MODELS = (
    "value",
    "value-token",
    "value-vocab",
    "value-small",
    "value-states",
    "value-states-token",
    "value-states-distil",
)


def scores(world: World) -> dict[str, Any]:
    """What can be said of the models without steering, as numbers."""
    policy = sia_jax.load_policy(world.models / "policy")
    reward = sia_jax.load_reward_model(world.models / "reward")
    dialogues = held_out_language_data(world.tokenizer, world.seed, "test")
    sampled = read_records(world.runs / "labelled")
    gold = [gold_reward(find_prompt(r.id.rpartition(":")[0]), r.messages[-1]["content"]) for r in sampled]
    proxy = [float(r.reward) for r in sampled if r.reward is not None]
    return {
        "policy": {
            "parameters": policy.config.num_parameters,
            "nats": nats_a_token(policy, dialogues),
            "grammar_nats": grammar_nats(world.seed, prompts("test"), dialogues),
            "gold": float(np.mean(gold)),
            "grammar_gold": float(np.mean([gold_reward(*pair) for pair in corpus(world.seed, 1000)])),
        },
        "reward": {
            "in_order": agreement(reward, world.seed, prompts("test")),
            "correlation": float(np.corrcoef(gold, proxy)[0, 1]),
        },
        "fidelity": faithfulness(policy, world.seed, prompts("test")),
    } | {name: best_evaluation(world.runs / name / "metrics.jsonl") for name in VALUE_MODELS}


def faithfulness(policy: Policy, seed: int, asked: Sequence[Prompt], rounds: int = 4) -> dict[str, Any]:
    """How many unsteered replies are about another request, and how many words are none: `fidelity`.

    Args:
      policy: whose replies are judged, sampled at a temperature of 1.
      seed: of the world.
      asked: prompts, each of which counts as one in the intervals.
      rounds: replies to each.

    Returns:
      {"replies", "words", "about_another" in percent, "strange_words" in a thousand}, the last two as text
      with their intervals.
    """
    tokenizer = policy.tokenizer
    assert tokenizer is not None
    config = sia_jax.SamplerConfig(policy=policy.config, value=None, max_new_tokens=REPLY_TOKENS)
    params = sia_jax.SteeringParams(policy.params, None)
    prompt = sia_jax.Prompt.pack([policy.prompt_ids(p.messages) for p in asked])
    base, counts = int(stream(seed, "faithfulness").integers(2**31)), []
    for number in range(rounds):
        key = jax.random.key(base + number, impl="threefry2x32")
        sampled = sia_jax.sample(params, prompt, math.inf, rng_key=key, config=config)
        tokens, lengths = np.asarray(sampled.tokens), np.asarray(sampled.lengths)
        rows = (row[:length].tolist() for row, length in zip(tokens, lengths, strict=True))
        written = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        counts += [fidelity([pair]) for pair in zip(asked, written, strict=True)]
    ids = [p.id for p in asked] * rounds
    about = mean_interval([100.0 * c.about_another for c in counts], ids)
    words = [1000.0 * (i < c.strange_words) for c in counts for i in range(c.words)]
    strange = mean_interval(words, [id for id, c in zip(ids, counts, strict=True) for _ in range(c.words)])
    return {
        "replies": len(counts),
        "words": len(words),
        "about_another": about.text(),
        "strange_words": strange.text(),
    }


def nats_a_token(policy: Policy, data: Sequence[Trajectory]) -> float:
    """-mean log pi over the reply tokens of dialogues, the stop token included."""
    total, count = 0.0, 0
    for start in range(0, len(data), 32):
        batch = pack(data[start : start + 32], length=ROW_LENGTH, rows=32, batch_size=32)
        rows = micro_batch(jax.tree.map(jnp.asarray, batch), jnp.int32(0))
        total -= float(_sum_logprobs(policy.params, rows, policy.config))
        count += int(batch.is_reply.sum())
    return total / count


def grammar_nats(seed: int, asked: Sequence[Prompt], data: Sequence[Trajectory]) -> float:
    """What the choices of the grammar come to, a token: no policy can need less on average."""
    total = 0.0
    for prompt in asked:
        rng = stream(seed, "held out", prompt.id)

        def choose(junction: Junction, rng: np.random.Generator = rng) -> int:
            nonlocal total
            branch = draw(rng, junction.weights)
            total -= math.log(junction.weights[branch] / sum(junction.weights))
            return branch

        write(replies(prompt), choose)
    return total / sum(len(t.reply_ids) for t in data)


def agreement(reward: RewardModel, seed: int, asked: Sequence[Prompt]) -> float:
    """Share of pairs of the grammar's replies, unequal in gold, that a reward model orders as gold does."""
    pairs = [
        (prompt, sample_reply(prompt, stream(seed, "judged", prompt.id, side)))
        for prompt in asked
        for side in range(4)
    ]
    outcomes = label(reward, [conversation(prompt, text) for prompt, text in pairs])
    found = [outcome.reward for outcome in outcomes]
    assert None not in found
    gold = [gold_reward(prompt, text) for prompt, text in pairs]
    return fit([float(x or 0) for x in found], gold, [prompt.id for prompt, _ in pairs]).rank_agreement


def write_card(world: World, seconds: Mapping[str, float], made_by: Mapping[str, str]) -> None:
    """Measure the models, and write their card; nothing is measured twice.

    Args:
      world: of which all stages are done.
      seconds: that each took.
      made_by: each one's `sia_jax.runs.provenance.software`.

    Raises:
      ValueError: what was measured is not in its file any more.
    """
    path = world.runs / "scores.json"
    if not path.exists():
        write_text(path, json.dumps(scores(world), indent=2) + "\n")
    remedy = "delete the file, and the same command measures them again"
    found = read_object(path, "file of scores", remedy)
    try:
        card = _card(world, found, seconds, made_by)
    except (KeyError, TypeError, ValueError) as error:  # it was changed since
        raise ValueError(
            f"{path}: these are no scores of the world's models ({error!r}); {remedy}"
        ) from error
    write_text(world.models / CARD, card)


def _card(
    world: World,
    found: Mapping[str, Mapping[str, float]],
    seconds: Mapping[str, float],
    made_by: Mapping[str, str],
) -> str:
    option = "" if world.size_name == "full" else f" --size {world.size_name}"
    values = "\n".join(
        f"| `{name}` | {found[name]['r2']:.3f} | {found[name]['in_order']:.1%} |" for name in VALUE_MODELS
    )
    files = "\n".join(
        f"| `{folder.name}/` | {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()):,} |"
        for folder in sorted(world.models.iterdir())
        if folder.is_dir()
    )
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    return template.format(
        options=f"{world.seed}{option}",
        minutes=sum(seconds.values()) / 60,
        cores=usable_cores(),
        made_by=_made_by(made_by),
        size=world.size,
        values=values,
        files=files,
        **found,
    )


def _made_by(made_by: Mapping[str, str]) -> str:
    """The software of all stages, or of each, where a run was interrupted and went on with another."""
    stages: dict[str, list[str]] = {}
    for stage, by in made_by.items():
        stages.setdefault(by, []).append(stage)
    if len(stages) == 1:
        return next(iter(stages))
    return "; ".join(f"{by} ({', '.join(names)})" for by, names in stages.items())


@functools.partial(jax.jit, static_argnames="config")
def _sum_logprobs(params: Params, rows: PackedRows, config: ModelConfig) -> Array:
    return jnp.sum(reply_logprobs(params, rows, config))
