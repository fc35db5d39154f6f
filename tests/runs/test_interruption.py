"""Ctrl-C is heard wherever it comes."""

import gc
import signal
import threading
import time

import pytest

from sia_jax.runs.interruption import interruptions_heard


class Interrupted:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def in_a_collection() -> None:
    def interrupt(phase: str, _: object) -> None:
        if phase == "start":
            signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(interrupt)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(interrupt)


def at_the_end_of_an_object() -> None:
    Interrupted()


@pytest.mark.parametrize("lose", [in_a_collection, at_the_end_of_an_object])
def test_ctrl_c_is_heard_where_python_drops_what_is_raised(lose) -> None:
    begin = time.monotonic()
    with interruptions_heard():
        lose()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(5)
    assert time.monotonic() - begin < 4


def test_a_handler_of_somebody_else_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with interruptions_heard():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_the_handler_of_before_is_there_again() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptions_heard():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_than_the_main_one_leaves_signals_alone() -> None:
    seen: list[object] = []

    def run() -> None:
        with interruptions_heard():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
