r"""Learn from densely steered replies where to steer: a gate of the features that cost nothing.

    python -m decode.generate --policy DIR --value DIR --threshold=-inf --record --prompts validation.jsonl \
        --out dense.jsonl
    python -m decode.learn_gate --replies dense.jsonl --ratios 0.1 0.2 0.4 --out gate.json

    # Measured on a file of other prompts, and of the gain of each token in place of whether it was shifted:
    python -m decode.learn_gate --replies dense.jsonl --check dense-of-others.jsonl --label gain

A logistic regression predicts from entropy, the entropy before, top probability, logit gap and position
whether dense steering shifts a token, or whether the value that it expects to gain is large. Its score steers
as --gate "linear(...)", which is printed for each of --ratios. On prompts that it was not learned from the
score is compared with the entropy alone: the area under the ROC curve, and the share of such tokens that are
caught when the best 10, 20 or 40% are steered; intervals of 95% are of resamples of the prompts.

A ratio is a share of the tokens of densely steered replies: a gate writes other prefixes, and may steer
another share of them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from sia_jax.data.prompts import check_seed
from sia_jax.evaluation.gate_examples import Label, read_examples
from sia_jax.evaluation.gate_learning import Comparison, Learned, hold_out, learn
from sia_jax.evaluation.logistic import PENALTY
from sia_jax.files.lock import locked
from sia_jax.files.outputs import check_outputs, check_suffix
from sia_jax.files.writing import write_text
from sia_jax.reports.markdown import table
from sia_jax.runs.cli import Count, File, check_used, named_as_options, program, read_options
from sia_jax.runs.console import Terminal
from sia_jax.steering.expressions import text_of


@dataclass(frozen=True, kw_only=True)
class Args:
    """Learn a gate."""

    replies: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """Replies of decode.generate --threshold=-inf --record; not to the prompts that will be evaluated on."""
    label: Label = "shifted"
    """What is predicted. shifted: the policy alone would have said another token; gain: steering expects more
    value than the policy, by more than --gain-quantile of the tokens learned from."""
    gain_quantile: float = 0.5
    """See --label."""
    ratios: tuple[float, ...] = (0.1, 0.2, 0.4)
    """Shares of tokens to steer, each with a bias of its own."""
    held_out: float = 0.3
    """Share of the prompts on which it is measured, and not learned."""
    check: File = None
    """Such replies to other prompts, on which it is measured instead."""
    penalty: float = PENALTY
    """lambda of lambda / 2 |w|^2, beside the mean log loss; w of the features over their deviations."""
    seed: Count = 0
    """Of which prompts are held out."""
    out: File = None
    """A .json file for the weights."""


def main(args: Args) -> None:
    """Print the tables; exits with 1 if something is wrong with options or files."""
    with program("decode.learn_gate"):
        check_seed(args.seed, "--seed")
        check_suffix("--out", args.out, ".json")
        check_outputs(inputs={"--replies": args.replies, "--check": args.check}, files={"--out": args.out})
        if args.label != "gain":
            check_used(args, ("gain_quantile",), "--label gain")
        if args.check is not None:
            check_used(args, ("held_out", "seed"), "a run without --check")
        with locked(files=(None if args.out is None else Path(args.out),)):
            found = _learn(args)
            if args.out is not None:
                content = json.dumps(found.to_json() | _source(args), indent=1, allow_nan=False)
                write_text(Path(args.out), content + "\n")
        Terminal().say(_told(found))


def _learn(args: Args) -> Learned:
    """The gate, from some prompts, and how it does on others."""
    examples, settings = read_examples(Path(args.replies), args.label)
    if args.check is not None:
        elsewhere, theirs = read_examples(Path(args.check), args.label)
        _check_same(args.check, theirs, settings)
    with named_as_options(args):
        if args.check is None:
            own, held = hold_out(len(examples), args.held_out, args.seed)
            examples, elsewhere = [examples[i] for i in own], [examples[i] for i in held]
        found = learn(
            examples,
            elsewhere,
            settings,
            label=args.label,
            gain_quantile=args.gain_quantile,
            ratios=args.ratios,
            penalty=args.penalty,
        )
    return found


def _source(args: Args) -> dict[str, Any]:
    """Where a gate comes from, in JSON."""
    source: dict[str, Any] = {"replies": Path(args.replies).name, "penalty": args.penalty}
    if args.check is not None:
        return source | {"check": Path(args.check).name}
    return source | {"check": None, "seed": args.seed, "share_held_out": args.held_out}


def _told(found: Learned) -> str:
    """The table, what it is of, and the gates."""
    rows = [["area under the ROC curve", *_cells(found.area)]]
    for ratio, comparison in found.caught.items():
        rows.append([f"caught by the best {ratio:.4g}", *_cells(comparison)])
    label = "shifted" if found.above is None else f"of a gain above {found.above:.4g}"
    lines = [
        table(["", "learned", "entropy", "difference"], rows),
        f"Learned from {found.tokens[0]:,} tokens of {found.prompts[0]:,} prompts, measured on "
        f"{found.tokens[1]:,} of {found.prompts[1]:,} others, {found.labelled[1]:.1%} of them {label}.",
    ]
    if found.area.learned.why:
        lines.append(f"There are no intervals: {found.area.learned.why}.")
    for ratio, share in found.steered.items():
        lines.append(f'{share:.1%}: --gate "{text_of(found.gate.gate(ratio))}"')
    return "\n".join(lines)


def _cells(comparison: Comparison) -> list[str]:
    return [
        comparison.learned.text(digits=3),
        comparison.entropy.text(digits=3),
        comparison.difference.text(signed=True, digits=3),
    ]


def _check_same(name: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Replies of the same run, but for its seed.

    Raises:
      ValueError: they are not, and what differs.
    """
    differing = sorted(n for n in {*theirs, *ours} - {"seed"} if theirs.get(n) != ours.get(n))
    if differing:
        raise ValueError(
            f"{name}: its replies were made with other {', '.join(differing)[:200]} than those of --replies"
        )


if __name__ == "__main__":
    main(read_options(Args, description=__doc__))
