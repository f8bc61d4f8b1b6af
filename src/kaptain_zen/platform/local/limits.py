"""Limits of a worker: memory, CPUs, threads, and a life no longer than its supervisor's.

What is enforced on this machine, and what is not:

- memory limit: the worker's private writable memory (`RLIMIT_DATA`, Linux). An allocation above it
  fails, which Python reports as MemoryError. Each process that the worker starts has the limit for
  itself. Shared memory and mapped files do not count.
- cpu limit: as many CPUs as it says, rounded up (affinity, Linux), and as many threads in OpenMP
  and BLAS. Half a core is one core here.
- gpus: they must exist; nothing keeps a worker off the others.
- requests reserve nothing.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

LINUX = sys.platform.startswith("linux")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def cpus_of(cores: float | None) -> int | None:
    """How many CPUs a limit in cores comes to; None for no limit."""
    return None if cores is None else max(1, math.ceil(cores))


def thread_variables(cpus: int | None) -> dict[str, str]:
    """Environment variables that keep OpenMP and BLAS to as many threads; none for no limit."""
    return {} if cpus is None else dict.fromkeys(THREAD_VARIABLES, str(cpus))


def available_cpus() -> list[int]:
    """CPUs that this process may use; empty where affinity does not exist."""
    return sorted(os.sched_getaffinity(0)) if LINUX else []


def nvidia_devices() -> int:
    """How many NVIDIA GPUs this machine has."""
    return sum(path.name[len("nvidia") :].isdigit() for path in Path("/dev").glob("nvidia*"))


def apply(*, memory: int | None, cpus: Sequence[int] | None) -> None:
    """Limit this process and what it starts.

    Args:
        memory: Bytes of private writable memory.
        cpus: CPUs that it may use.
    """
    if cpus and LINUX:
        os.sched_setaffinity(0, cpus)
    if memory is not None and LINUX:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends (Linux).

    Args:
        parent: Process id of the parent, which may have ended already.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of any process below this one whose own parent ends (Linux)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if LINUX:
        # A kernel that lacks the option leaves things as they are anywhere else.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
