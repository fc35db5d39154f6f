"""What is seen and written of the training of a value model while it goes on."""

import dataclasses
import functools
import time
from pathlib import Path

import jax
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sia_jax.costs.roofline import measure_device, peak_flops, training_flops
from sia_jax.reports.training import MetricsLog, describe_fit, draw_curves
from sia_jax.runs.console import Terminal
from sia_jax.training.config import TrainConfig
from sia_jax.training.loop import StepReport
from sia_jax.training.optimizer import learning_rate
from sia_jax.training.regression import Fit


@functools.cache
def _measured_flops() -> float:
    """Of a device that no table knows."""
    return measure_device(64, 1024).flops_per_second


class RunView:
    """What is seen and written of a run while it goes on.

    Args:
      out: the run's folder.
      base: what the backbone is called.
      config: of the step.
      steps: of the whole run.
      console: where it is seen.
      chief: whether this process is the one of several that shows and writes.
    """

    def __init__(
        self, out: Path, base: str, config: TrainConfig, steps: int, console: Terminal, *, chief: bool
    ):
        self.log = MetricsLog(out / "metrics.jsonl")
        self._out, self._base, self._config = out, base, config
        self._chief, self._console = chief, console
        self._rate = learning_rate(config.optimizer)
        self._peak: float | None = None
        self._drawn, self._drawing = time.perf_counter(), 1.0
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}", style="dim", markup=False),
        )
        self._bar = Progress(*columns, console=console, disable=not (chief and console.is_terminal))
        self._task = self._bar.add_task("steps", total=steps, numbers="compiling")

    def __enter__(self) -> "RunView":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, step: int) -> None:
        """The run goes on from `step`."""
        devices = jax.devices()
        self._peak = (peak_flops(devices[0]) or _measured_flops()) * len(devices)
        if devices[0].platform == "cpu":
            self._peak /= len(devices)  # several CPU devices are one CPU
        if self._chief:
            self.log.begin(step)
            if step:
                self._console.print(f"{self._out}: going on after step {step:,}", highlight=False)
        self._bar.update(self._task, completed=step)

    def step(self, report: StepReport) -> None:
        """A step is done."""
        if not self._chief:
            return
        assert self._peak is not None
        config = self._config
        columns = report.tokens / config.batch_size / 2
        flops = training_flops(
            config.value.backbone,
            report.tokens,
            columns,
            weights=config.trained == "full",
            activations=config.trained != "head",
            remat=config.remat,
        )
        numbers = dataclasses.asdict(report) | {
            "kind": "step",
            "learning_rate": float(self._rate(report.step - 1)),
            "tokens_per_second": report.tokens / report.seconds,
            "mfu": flops / report.seconds / self._peak,
        }
        self.log.write(numbers)
        text = (
            f"loss {report.loss:.4f}, {numbers['tokens_per_second']:,.0f} tokens/s, MFU {numbers['mfu']:.0%}"
        )
        self._bar.update(self._task, completed=report.step, numbers=text)

    def draw(self) -> None:
        """Draw the curves so far."""
        if not self._chief:
            return
        begin = time.perf_counter()
        draw_curves(self.log.read(), self._out / "curves.png", f"{self._out.name}: {self._base}")
        self._drawn = time.perf_counter()
        self._drawing = self._drawn - begin

    def evaluation(self, step: int, loss: float, found: Fit) -> None:
        """The held-out prompts were evaluated."""
        if not self._chief:
            return
        line = {"kind": "evaluation", "step": step, "loss": loss, "rmse": found.rmse} | dataclasses.asdict(
            found
        )
        self.log.write(line)
        # Drawing takes a second or two: while it is young, a picture is not drawn again.
        if time.perf_counter() - self._drawn >= 20 * self._drawing:
            self.draw()
        self._console.print(f"step {step:,}: held out {describe_fit(loss, found)}", highlight=False)
