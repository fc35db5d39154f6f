"""Progress of a long run: a bar in a terminal, a line now and then in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from sia_jax.reports.terminal import rate

LOG_SECONDS = 30
"""Between two lines of a log."""


class RunProgress:
    """Counts replies and tokens, and says how fast they come and when the last is due.

    Args:
      console: where to.
      total: replies of the whole run.
      done: those that were there before.
      noun: what is counted, if not replies.
    """

    def __init__(self, console: Console, total: int, done: int = 0, noun: str = "replies"):
        self._console, self._total, self._done, self._noun = console, total, done, noun
        self._new = self._tokens = 0
        self._seconds = 0.0  # in which replies were made: compiling does not count
        self._since = self._logged = time.perf_counter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}", style="dim"),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(noun, total=total, completed=done, rates="")

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Say what goes on that is not the work itself, and leave it out of the rates."""
        begin = time.perf_counter()
        self._bar.update(self._task, rates=what)
        yield
        self._since += time.perf_counter() - begin

    def advance(self, replies: int, tokens: int) -> None:
        """So many replies, of so many tokens, were made since the last call."""
        now = time.perf_counter()
        self._new, self._tokens = self._new + replies, self._tokens + tokens
        self._seconds, self._since = self._seconds + now - self._since, now
        self._bar.update(self._task, completed=self._done + self._new, rates=self.rates())
        if not self._console.is_terminal and now - self._logged > LOG_SECONDS:
            self._logged = now
            line = f"{self._done + self._new:,} of {self._total:,} {self._noun}, {self.rates()}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def rates(self) -> str:
        """'2.1 replies/s, 270 tok/s, 03:20 left'."""
        seconds = max(self._seconds, 1e-9)
        parts = [
            f"{rate(self._new / seconds)} {self._noun}/s",
            f"{rate(self._tokens / seconds)} tok/s",
        ]
        missing = self._total - self._done - self._new
        if self._new and missing:
            left = round(missing * seconds / self._new)
            hours, minutes = divmod(left // 60, 60)
            clock = f"{minutes:02}:{left % 60:02}"
            parts.append(f"{hours}:{clock} left" if hours else f"{clock} left")
        return ", ".join(parts)

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        self._since = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
