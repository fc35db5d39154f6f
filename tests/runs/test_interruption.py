"""Ctrl-C is heard wherever it comes."""

import gc
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from sia_jax.runs.interruption import Interruption, interruptions_heard


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """Python's own answer to Ctrl-C: a shell's background jobs are started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupted:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


class Broken:
    def __del__(self) -> None:
        raise ZeroDivisionError


class Referred:
    pass


def in_a_collection() -> None:
    sent: list[str] = []

    def interrupt(phase: str, _: object) -> None:
        if not sent:
            sent.append(phase)
            signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(interrupt)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(interrupt)


def at_the_end_of_an_object() -> None:
    Interrupted()


def in_the_callback_of_a_weak_reference() -> None:
    it = Referred()
    reference = weakref.ref(it, lambda _: signal.raise_signal(signal.SIGINT))
    del it
    assert reference() is None


@pytest.mark.parametrize(
    "lose", [in_a_collection, at_the_end_of_an_object, in_the_callback_of_a_weak_reference]
)
def test_ctrl_c_is_heard_where_python_drops_what_is_raised(lose) -> None:
    def work() -> None:
        lose()
        time.sleep(5)

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interruptions_heard():
        work()
    assert time.monotonic() - begin < 4


def test_what_else_is_dropped_is_told_as_before() -> None:
    told: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, told.append
    try:
        with interruptions_heard():
            Broken()
    finally:
        sys.unraisablehook = before
    assert [type(what.exc_value) for what in told] == [ZeroDivisionError]


def test_the_hook_of_before_is_there_again() -> None:
    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), interruptions_heard():
        signal.raise_signal(signal.SIGINT)
    assert sys.unraisablehook is before


def test_another_thread_than_the_main_one_changes_nothing() -> None:
    seen: list[object] = []

    def run() -> None:
        with interruptions_heard():
            seen.append(sys.unraisablehook)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [sys.unraisablehook]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_is_to_be_ended_by_it_and_nothing_behind_it(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interruption(ends=True) as interruption:
        signal.raise_signal(number)
        raise AssertionError("it went on")
    assert interruption.exit_status == 128 + number
    assert signal.getsignal(number) == before
    with pytest.raises(KeyboardInterrupt), Interruption(ends=True):
        raise KeyboardInterrupt  # of somebody else
    with Interruption() as interruption:
        signal.raise_signal(number)
        assert interruption.wanted
