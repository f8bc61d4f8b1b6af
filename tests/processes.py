"""Looking at processes from outside: what is left behind, and who may be blamed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil


def mentioning(path: Path, *, also_warm: bool = False) -> list[psutil.Process]:
    """Live processes that have a path in their arguments, environment, or as working folder.

    Args:
        path: The path.
        also_warm: Whether warm servers count too. They live as long as their client, so they count
            when it has ended; workers that were forked from them always count.
    """
    found = []
    for process in psutil.process_iter():
        try:
            command, folder = process.cmdline(), process.cwd()
            warm = any("warm_server" in word for word in command) and not also_warm
            seen = [folder] if warm else [folder, *command, *process.environ().values()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(path) in s for s in seen):
                found.append(process)
        except psutil.Error:
            continue
    return [p for p in found if p.pid != psutil.Process().pid]


def eventually(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Wait for a condition, and fail with its last value when it does not come true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        time.sleep(0.02)


def files_below(folder: Path) -> list[str]:
    """Relative paths of all files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def eventually_none(look: Callable[[], list[psutil.Process]], *, seconds: float = 20.0) -> None:
    """Wait until no process is found, and name those that are left when some stay."""
    deadline = time.monotonic() + seconds
    while left := look():
        commands = [f"{p.pid} (child of {p.ppid()}): {' '.join(p.cmdline())}" for p in left]
        assert time.monotonic() < deadline, "still running:\n" + "\n".join(commands)
        time.sleep(0.02)
