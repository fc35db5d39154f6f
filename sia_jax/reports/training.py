"""A training run on disk: its metrics line by line, and the picture of its curves."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sia_jax.files.strict_json import parse_object
from sia_jax.files.writing import replacing, write_text, writing
from sia_jax.runs.journal import number_in, place_in
from sia_jax.training.regression import Fit

_REMEDY = "remove the line, or name another --out"
FEW = 30
"""Replies, or pairs of them, from which a number about them says something."""


def describe_fit(loss: float, found: Fit) -> str:
    """'loss 0.0312, MAE 0.141, R2 0.83 (of 120 replies), pairs in order 91% (of 340)'."""
    order = f"{found.rank_agreement:.0%}" if found.pairs else "unknown"
    return (
        f"loss {loss:.4f}, MAE {found.mae:.3f}, R2 {found.r2:.3f} (of {found.count:,} "
        f"repl{'y' if found.count == 1 else 'ies'}), pairs in order {order} (of {found.pairs:,})"
    )


def few_to_tell(replies: int, pairs: int) -> str | None:
    """What the held-out part is too small for; None: it is large enough, or nothing is held out.

    Args:
      replies: held out.
      pairs: of them, to one prompt each, with different rewards.
    """
    if not replies or (replies >= FEW and pairs >= FEW):
        return None
    if replies < FEW:
        return f"{replies} held-out replies are too few to tell how good a value model is (under {FEW})"
    return (
        f"only {pairs} pairs of held-out replies to one prompt have different rewards: how many are in order "
        f"says nothing (under {FEW})"
    )


class MetricsLog:
    """`metrics.jsonl`: a line for each step and each evaluation, each with its "step".

    A run that goes on from a checkpoint first drops the lines of later steps, which it will write again, and
    a line that was cut short.

    Args:
      path: the file; made if need be.
    """

    def __init__(self, path: Path):
        self.path = path

    def begin(self, step: int) -> None:
        """Keep what belongs to steps up to `step`."""
        kept = [json.dumps(line) + "\n" for line in self.read() if line["step"] <= step]
        write_text(self.path, "".join(kept))

    def write(self, line: dict[str, Any]) -> None:
        """Add a line; what is not finite becomes null."""
        finite = {k: None if isinstance(x, float) and not np.isfinite(x) else x for k, x in line.items()}
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(finite, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole lines.

        Raises:
          ValueError: a line without a step, or with something else than numbers, and which.
        """
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            lines = [(f"{self.path}, line {number}", line) for number, line in enumerate(file, start=1)]
        return [_metrics(line, place) for place, line in lines if line.endswith(b"\n")]


def best_evaluation(path: Path) -> dict[str, Any]:
    """What the held-out prompts said of the checkpoint that a run calls its best.

    Args:
      path: of a `MetricsLog` with an evaluation.

    Returns:
      "step", "loss", "r2" and "in_order", the share of pairs of a prompt that are.
    """
    evaluations = [line for line in MetricsLog(path).read() if line["kind"] == "evaluation"]
    best = min(evaluations, key=lambda line: line["loss"])
    return {name: best[name] for name in ("step", "loss", "r2")} | {"in_order": best["rank_agreement"]}


def _metrics(line: bytes, place: str) -> dict[str, Any]:
    """What a line says.

    Raises:
      ValueError: it is damaged.
    """
    try:
        record = parse_object(line.rstrip(b"\n"), place, is_line=True)
    except ValueError as error:
        raise ValueError(f"{error}; {_REMEDY}") from None
    try:
        place_in(record, "step")
        for name, value in record.items():
            if name == "trajectories":
                _check_numbers_of_data(value)
            elif name != "kind" and value is not None:
                number_in(record, name)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{place}: expected a step and its numbers ({error}); {_REMEDY}") from None
    return record


def _check_numbers_of_data(value: Any) -> None:
    """They are whole numbers from 0 on, in a list.

    Raises:
      ValueError: they are something else.
    """
    if not isinstance(value, list) or not all(type(number) is int and number >= 0 for number in value):
        raise ValueError(f"trajectories must be a list of whole numbers from 0 on, got {str(value)[:60]}")


def draw_curves(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Loss, fit on held-out prompts, norms and speed over steps, as a PNG.

    Args:
      lines: of a `MetricsLog`.
      path: of the picture.
      title: above it.
    """
    # Not at the top: programs that draw nothing should not wait for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [line for line in lines if line.get("kind") == "step"]
    evaluations = [line for line in lines if line.get("kind") == "evaluation"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    (loss, fit), (norms, speed) = figure.subplots(2, 2)

    def curve(axes: Any, rows: list[dict[str, Any]], name: str, label: str, **style: Any) -> None:
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)

    def smooth(rows: list[dict[str, Any]], name: str, width: int = 25) -> list[dict[str, Any]]:
        rows = [row for row in rows if row.get(name) is not None]
        values = [row[name] for row in rows]
        means = [float(np.mean(values[max(0, i - width + 1) : i + 1])) for i in range(len(values))]
        return [{"step": row["step"], name: mean} for row, mean in zip(rows, means, strict=True)]

    curve(loss, steps, "loss", "each batch", color="0.8", linewidth=0.8)
    curve(loss, smooth(steps, "loss"), "loss", "mean of 25 batches", color="C0")
    curve(loss, evaluations, "loss", "held out", color="C1", marker="o")
    loss.set(title="loss", ylabel="squared units of the reward", yscale="log")
    curve(fit, evaluations, "r2", "$R^2$", color="C1", marker="o")
    curve(fit, evaluations, "rank_agreement", "pairs of a prompt in order", color="C2", marker="s")
    fit.set(title="fit on held-out prompts", ylim=(min(0.0, *fit.get_ylim()), 1.02))
    curve(norms, steps, "gradient_norm", "gradient, before clipping", color="C3", linewidth=0.8)
    curve(norms, steps, "update_norm", "update", color="C4", linewidth=0.8)
    norms.set(title="norms", yscale="log", xlabel="step")
    curve(speed, steps, "tokens_per_second", "tokens/s", color="C5", linewidth=0.8)
    speed.set(title="speed, without padding", ylabel="tokens/s", xlabel="step")
    speed.set_ylim(bottom=0)
    for axes in (loss, fit, norms, speed):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    with replacing(path) as new:
        figure.savefig(new, dpi=110, format="png")
