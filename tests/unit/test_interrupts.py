"""Ctrl-C and SIGTERM unwind the stack, but not in the middle of a clean-up."""

from __future__ import annotations

import signal
import threading

import pytest

from kaptain_zen.model.interrupts import terminable, undisturbed


def test_sigterm_unwinds_like_an_exception_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, terminable():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_somebody_elses_sigterm_handler_is_left_alone():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: seen.append(number))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_clean_up_ends_before_ctrl_c_arrives():
    steps = []
    with pytest.raises(KeyboardInterrupt), undisturbed():
        signal.raise_signal(signal.SIGINT)
        steps.append("cleaned")
    assert steps == ["cleaned"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_are_not_touched():
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with terminable(), undisturbed():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
