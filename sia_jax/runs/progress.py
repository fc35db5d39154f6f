"""Progress of a long run: a bar in a terminal, a line now and then in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from sia_jax.runs.console import Terminal

LOG_SECONDS = 30
"""Between two lines of a log."""


@contextmanager
def waiting(console: Terminal, what: str) -> Iterator[None]:
    """Say in a terminal what is waited for and since when, while it lasts: 'compiling 0:00:12'.

    Args:
      console: where to.
      what: is waited for.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        shown.add_task(what, total=None)
        yield


class _Rates(ProgressColumn):
    """How fast it goes; or what goes on besides, and since when: 'compiling base, since 12 s'."""

    def render(self, task: Task) -> Text:
        since = task.fields["since"]
        more = "" if since is None else f", since {time.perf_counter() - since:.0f} s"
        return Text(f"{task.fields['rates']}{more}", "dim")


class _Shown:
    """The bar, or the lines; who uses it says what is counted."""

    def __init__(self, console: Terminal, noun: str, count: ProgressColumn, total: float, completed: int = 0):
        self._console, self._noun = console, noun
        self._logged = time.perf_counter()
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            count,
            _Rates(),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(noun, total=total, completed=completed, rates="", since=None)

    def _show(self, completed: float, done: str, rates: str) -> None:
        """Move the bar; a log gets a line of `done` and `rates` if the last one is long ago."""
        self._bar.update(self._task, completed=completed, rates=rates)
        now = time.perf_counter()
        if not self._console.is_terminal and now - self._logged > LOG_SECONDS:
            self._logged = now
            self._console.say(f"{done}, {rates}")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class RunProgress(_Shown):
    """Counts replies and tokens, and says how fast they come and when the last is due.

    Args:
      console: where to.
      total: replies of the whole run.
      done: those that were there before.
      noun: what is counted, if not replies.
      work: what is missing, where one reply costs more than another; None: they cost the same.
    """

    def __init__(
        self,
        console: Terminal,
        total: int,
        done: int = 0,
        noun: str = "replies",
        *,
        work: float | None = None,
    ):
        super().__init__(console, noun, MofNCompleteColumn(), total, done)
        self._work, self._worked = work, 0.0
        self._total, self._done = total, done
        self._new = self._tokens = 0
        self._seconds = 0.0  # in which replies were made: compiling does not count
        self._since = time.perf_counter()

    def resume(self, done: int) -> None:
        """So many were there before, as is known only now; the clock starts here."""
        self._done, self._since = done, time.perf_counter()
        self._bar.update(self._task, completed=done)

    @contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Say what goes on that is not the work itself, and leave it out of the rates."""
        begin = time.perf_counter()
        self._bar.update(self._task, rates=what, since=begin)
        try:
            yield
        finally:
            self._bar.update(self._task, rates="", since=None)
        self._since += time.perf_counter() - begin

    @property
    def is_new(self) -> bool:
        """Whether nothing was made yet."""
        return not self._new

    def left(self) -> float | None:
        """Seconds until the last is due; None where nobody knows, or nothing is left."""
        missing = self._total - self._done - self._new
        if not self._new or not missing:
            return None
        seconds = max(self._seconds, 1e-9)
        if self._work is not None and self._worked:
            return (self._work - self._worked) * seconds / self._worked
        return missing * seconds / self._new

    def advance(self, replies: int, tokens: int, work: float = 0.0) -> None:
        """So many replies, of so many tokens, were made since the last call; `work` is their share of it."""
        now = time.perf_counter()
        self._worked += work
        self._new, self._tokens = self._new + replies, self._tokens + tokens
        self._seconds, self._since = self._seconds + now - self._since, now
        done = self._done + self._new
        self._show(done, f"{done:,} of {self._total:,} {self._noun}", self.rates())

    def rates(self) -> str:
        """'2.1 replies/s, 270 tok/s, 03:20 left'."""
        seconds = max(self._seconds, 1e-9)
        replies, tokens = rate(self._new / seconds), rate(self._tokens / seconds)
        return _joined(f"{replies} {self._noun}/s, {tokens} tok/s", self.left())

    def __enter__(self) -> Self:
        self._since = time.perf_counter()
        return super().__enter__()


class ReadProgress(_Shown):
    """Counts what was read of data of unknown length, and says how fast it goes and when the end is due.

    Args:
      console: where to.
      noun: what is counted: "replies".
    """

    def __init__(self, console: Terminal, noun: str):
        super().__init__(console, noun, TaskProgressColumn(), 1.0)
        self._begin = time.perf_counter()

    def update(self, count: int, fraction: float) -> None:
        """So many were read, which is `fraction` of the data."""
        seconds = max(time.perf_counter() - self._begin, 1e-9)
        left = seconds / fraction - seconds if 0 < fraction < 1 else None
        rates = f"{count:,} {self._noun}, {rate(count / seconds)} {self._noun}/s"
        self._show(fraction, f"{fraction:.0%}", _joined(rates, left))


def _joined(rates: str, seconds_left: float | None) -> str:
    """'12 replies/s, 03:20 left'; the rates alone where nobody knows, or nothing is left."""
    if seconds_left is None:
        return rates
    return f"{rates}, {clock(seconds_left)} left"


def rate(number: float) -> str:
    """Three digits, as far as they count: 0.42, 8.3, 830."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def clock(seconds: float) -> str:
    """'03:20', or '1:03:20' from an hour on."""
    left = round(seconds)
    hours, minutes = divmod(left // 60, 60)
    text = f"{minutes:02}:{left % 60:02}"
    return f"{hours}:{text}" if hours else text
