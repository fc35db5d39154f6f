"""Progress: a bar in a terminal, lines in a log, both with rate and time left."""

import io

import pytest

from sia_jax.runs import progress
from sia_jax.runs.console import Terminal
from sia_jax.runs.progress import ReadProgress, RunProgress


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_now_and_then(clock: Clock) -> None:
    log = io.StringIO()
    with ReadProgress(Terminal(file=log, width=60), "replies") as bar:
        for count in range(1, 1001):
            clock.now += 0.1
            bar.update(count, count / 4000)
    assert log.getvalue().splitlines() == [
        "8%, 301 replies, 10 replies/s, 06:10 left",
        "15%, 602 replies, 10 replies/s, 05:40 left",
        "23%, 903 replies, 10 replies/s, 05:10 left",
    ]


def test_hours_are_hours_and_the_end_is_no_time_away(clock: Clock) -> None:
    log = io.StringIO()
    with ReadProgress(Terminal(file=log), "replies") as bar:
        clock.now += 100
        bar.update(50, 0.01)
        clock.now += 100
        bar.update(5000, 1.0)
    assert log.getvalue().splitlines() == [
        "1%, 50 replies, 0.5 replies/s, 2:45:00 left",
        "100%, 5,000 replies, 25 replies/s",
    ]


def test_a_terminal_gets_a_bar(clock: Clock) -> None:
    screen = io.StringIO()
    with ReadProgress(Terminal(file=screen, width=100, force_terminal=True), "replies") as bar:
        clock.now += 1
        bar.update(12, 0.5)
        bar._bar.refresh()
    assert "12 replies, 12 replies/s, 00:01 left" in screen.getvalue()


def test_replies_are_counted_from_where_the_run_goes_on_and_compiling_is_no_work(clock: Clock) -> None:
    log = io.StringIO()
    with RunProgress(Terminal(file=log), 100, done=40) as bar:
        with bar.aside("compiling"):
            clock.now += 1000
        clock.now += 40
        bar.advance(20, 800)
        clock.now += 10
        bar.advance(5, 200)
        clock.now += 40
        bar.advance(35, 800)
    assert log.getvalue().splitlines() == [
        "60 of 100 replies, 0.5 replies/s, 20 tok/s, 01:20 left",
        "100 of 100 replies, 0.67 replies/s, 20 tok/s",
    ]


def test_other_things_than_replies_have_their_noun(clock: Clock) -> None:
    screen = io.StringIO()
    with RunProgress(Terminal(file=screen, width=100, force_terminal=True), 9, 3, "conversations") as bar:
        clock.now += 2
        bar.advance(2, 60)
        bar._bar.refresh()
    assert "5/9" in screen.getvalue()
    assert "1.0 conversations/s, 30 tok/s, 00:04 left" in screen.getvalue()


def test_a_run_that_goes_on_counts_what_was_there_but_times_only_what_is_new(clock: Clock) -> None:
    log = io.StringIO()
    with RunProgress(Terminal(file=log), 1000, noun="steps") as bar:
        clock.now += 500  # loading what was there
        bar.resume(800)
        clock.now += 50
        bar.advance(100, 3000)
    assert log.getvalue().splitlines() == ["900 of 1,000 steps, 2.0 steps/s, 60 tok/s, 00:50 left"]


def test_a_terminal_says_what_is_waited_for_and_since_when(clock: Clock) -> None:
    screen = io.StringIO()
    with RunProgress(Terminal(file=screen, width=100, force_terminal=True), 100) as bar:
        with bar.aside("compiling base"):
            clock.now += 12
            bar._bar.refresh()
        clock.now += 1
        bar.advance(50, 100)
        bar._bar.refresh()
    assert "compiling base, since 12 s" in screen.getvalue()
    assert "since" not in screen.getvalue().rpartition("50/100")[2]


def test_the_time_left_is_that_of_the_work_where_one_reply_costs_more_than_another(clock: Clock) -> None:
    bar = RunProgress(Terminal(file=io.StringIO()), 30, work=100.0)
    assert (bar.is_new, bar.left()) == (True, None)
    clock.now += 10
    bar.advance(10, 100, 10.0)
    assert (bar.is_new, bar.left()) == (False, pytest.approx(90))
    clock.now += 45
    bar.advance(10, 100, 45.0)
    assert bar.left() == pytest.approx(45)
    clock.now += 45
    bar.advance(10, 100, 45.0)
    assert bar.left() is None


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "00:00"), (200, "03:20"), (3800, "1:03:20")])
def test_times_are_told_as_a_clock_does(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text
