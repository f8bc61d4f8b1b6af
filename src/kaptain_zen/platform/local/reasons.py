"""Why a run failed, in words that say what to do."""

from __future__ import annotations

import re
import signal

_OUT_OF_MEMORY = re.compile(
    r"MemoryError|std::bad_alloc|[Cc]annot allocate memory|[Uu]nable to allocate|out of memory|"
    r"[Mm]emory allocation"
)
_ADVICE = {
    signal.SIGKILL: "the machine may have run out of memory",
    signal.SIGSEGV: "native code crashed",
    signal.SIGABRT: "native code gave up",
    signal.SIGBUS: "native code crashed, or a disk is full",
    signal.SIGILL: "a library was built for another processor",
}
NOT_STARTED = 127
"""Exit code of a worker that could not be made, as in shells."""


def worker_failed(worker: str, exit_code: int, tail: str, memory: int | None) -> str:
    """A worker did not end well.

    Args:
        worker: Its name.
        exit_code: What it ended with; negative for a signal.
        tail: The last lines that it printed.
        memory: Its limit in bytes.

    Returns:
        A sentence or two, then the lines.
    """
    if exit_code < 0:
        what = f"was killed by {_signal_name(-exit_code)}"
        advice = next((text for number, text in _ADVICE.items() if number == -exit_code), "")
        if advice:
            what += f" ({advice})"
    else:
        what = f"ended with exit code {exit_code}"
    sentences = [f"{worker} {what}."]
    # With a limit, native code that cannot allocate ends in almost any way.
    if memory is not None and (_OUT_OF_MEMORY.search(tail) or exit_code < 0):
        sentences.append(
            f"Its memory limit is {memory} bytes; give it more with `memory` or `memory_limit`."
        )
    elif _OUT_OF_MEMORY.search(tail):
        sentences.append("It ran out of memory.")
    if not tail:
        return " ".join([*sentences, "It printed nothing."])
    return " ".join([*sentences, "Its last lines:"]) + "\n" + tail


def timed_out(timeout: float, running: list[str]) -> str:
    """The run took too long."""
    return (
        f"The run did not end within its {timeout:g} s and was stopped; {', '.join(running)} still "
        f"ran. Give it a longer `timeout`, or less to do."
    )


def supervisor_gone(started: bool) -> str:
    """Nobody looks after the run any more, and nobody said how it ended."""
    if not started:
        return (
            "The run never started: the process that was to start it ended first. Submit it again "
            "under another name."
        )
    return (
        "The run's supervisor ended without a word: it was killed, or the machine was restarted. "
        "What was left of the workers was stopped. Submit it again under another name."
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
