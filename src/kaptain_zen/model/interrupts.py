"""Ctrl-C and SIGTERM while something of ours runs elsewhere.

Python turns Ctrl-C into KeyboardInterrupt, but ends at once on SIGTERM, leaving behind what a call
has created. Inside `terminable`, SIGTERM unwinds the stack as Ctrl-C does; inside `undisturbed`,
neither reaches the code that cleans up.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGTERM_STATUS = 128 + signal.SIGTERM


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143) for the length of a block.

    Does nothing outside the main thread, or where somebody else handles SIGTERM already.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def unwind(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(_SIGTERM_STATUS)

    signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for the length of a block, and deliver them afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, lambda arrived, _frame: received.append(arrived))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # None stands for a handler that is not Python's and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for arrived in received:
        signal.raise_signal(arrived)
