"""Progress through data of unknown length: a bar in a terminal, a line now and then in a log."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from sia_jax.reports.terminal import rate

LOG_SECONDS = 30
"""Between two lines of a log."""


class ReadProgress:
    """Counts what was read, and says how fast it goes and when the end is due.

    Args:
      console: where to.
      what: what is counted: "replies".
    """

    def __init__(self, console: Console, what: str):
        self._console, self._what = console, what
        self._begin = self._logged = time.perf_counter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[rates]}", style="dim"),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=1.0, rates="")

    def update(self, count: int, fraction: float) -> None:
        """So many were read, which is `fraction` of the data."""
        self._bar.update(self._task, completed=fraction, rates=self._rates(count, fraction))
        now = time.perf_counter()
        if not self._console.is_terminal and now - self._logged > LOG_SECONDS:
            self._logged = now
            line = f"{fraction:.0%}, {self._rates(count, fraction)}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def _rates(self, count: int, fraction: float) -> str:
        """'12,000 replies, 830 replies/s, 3:20 left'."""
        seconds = max(time.perf_counter() - self._begin, 1e-9)
        parts = [f"{count:,} {self._what}", f"{rate(count / seconds)} {self._what}/s"]
        if 0 < fraction < 1:
            left = round(seconds / fraction - seconds)
            hours, minutes = divmod(left // 60, 60)
            clock = f"{minutes:02}:{left % 60:02}"
            parts.append(f"{hours}:{clock} left" if hours else f"{clock} left")
        return ", ".join(parts)

    def __enter__(self) -> "ReadProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
