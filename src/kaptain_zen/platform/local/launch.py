"""Starts the supervisor of a run in a fresh interpreter, free of whoever starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from kaptain_zen.exceptions import WorkloadDeploymentError

IMPORT_PACKAGE = (
    "import sys; sys.path.insert(0, sys.argv[1]); import kaptain_zen; del sys.path[0]; "
)
"""First statement of a fresh interpreter: finds this package where the client found it, and leaves
the search path as it was."""
_BOOT = f"{IMPORT_PACKAGE}from kaptain_zen.platform.local.launch import boot; boot(sys.argv[2:])"
_START_TIMEOUT = 60.0


def package_root() -> str:
    """Folder that this package is imported from, for a fresh interpreter to import the same."""
    return str(Path(__file__).parents[3])


def start_supervisor(folder: Path, lock: int, environment: Mapping[str, str]) -> None:
    """Start the supervisor of a run; it is no child of this process.

    Args:
        folder: The run's folder.
        lock: Descriptor of its lock.
        environment: What the supervisor and all workers get.

    Raises:
        WorkloadDeploymentError: It cannot be started.
    """
    command = [sys.executable, "-c", _BOOT, package_root(), str(folder), str(lock)]
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            pass_fds=(lock,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            timeout=_START_TIMEOUT,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise WorkloadDeploymentError(
            f"The supervisor of the run in {folder} could not be started: {error}."
        ) from error
    if done.returncode:
        raise WorkloadDeploymentError(
            f"The supervisor of the run in {folder} could not be started: {sys.executable} ended "
            f"with {done.returncode}: {done.stderr.decode(errors='replace').strip()[-2000:]}"
        )


def boot(arguments: list[str]) -> None:
    """In the fresh interpreter: leave the parent behind and look after the run."""
    from kaptain_zen.platform.local.supervisor import supervise

    folder, lock = Path(arguments[0]), int(arguments[1])
    os.set_inheritable(lock, False)
    # The parent waits for this process only; its child is nobody's.
    if os.fork():
        os._exit(0)
    detach()
    supervise(folder, lock, dict(os.environ))
    os._exit(0)


def detach() -> None:
    """Get a session of one's own and let go of the parent's standard streams."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)
