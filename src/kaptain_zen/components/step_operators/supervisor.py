"""The process that looks after one step; a training's supervisor with two differences.

It runs any command instead of a training script, and what the step leaves behind in a session of
its own (a model server that it deployed) goes on when the step has ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kaptain_zen.exceptions import WorkloadDeploymentError
from kaptain_zen.platform.local.command import UPLOAD_VARIABLE
from kaptain_zen.platform.local.launch import IMPORT_PACKAGE, detach, package_root
from kaptain_zen.platform.local.supervisor import Supervisor, _Running, supervise
from kaptain_zen.platform.local.worker import Continuation, Worker, execute

_BOOT = (
    f"{IMPORT_PACKAGE}from kaptain_zen.components.step_operators.supervisor import boot; "
    "boot(sys.argv[2:])"
)
_START_TIMEOUT = 60.0


class StepSupervisor(Supervisor):
    """Looks after one step: the plan's arguments are its command, the import path its folder."""

    def _go_on(self, worker: Worker) -> Continuation | None:
        os.chdir(self._plan.import_path)
        environment = {k: v for k, v in worker.environment.items() if k != UPLOAD_VARIABLE}
        execute(replace(worker, command=self._plan.arguments, environment=environment))

    def _clear_up(self, worker: _Running) -> None:
        # What has left the step's session was meant to stay: a router, a model server.
        worker.kill()


def start(folder: Path, lock: int, environment: Mapping[str, str]) -> None:
    """Start the supervisor of a step in a fresh interpreter; it is no child of this process.

    Args:
        folder: The run's folder.
        lock: Descriptor of its lock.
        environment: What the step gets; handed over in memory.

    Raises:
        WorkloadDeploymentError: It cannot be started.
    """
    try:
        subprocess.run(
            [sys.executable, "-c", _BOOT, package_root(), str(folder), str(lock)],
            env=dict(environment),
            pass_fds=(lock,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            timeout=_START_TIMEOUT,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or b""
        # The error's own text would hold the command, but never the environment.
        raise WorkloadDeploymentError(
            f"The supervisor of the step in {folder} could not be started: {error}. "
            f"{output.decode(errors='replace').strip()[-2000:]}"
        ) from error


def boot(arguments: list[str]) -> None:
    """In the fresh interpreter: leave the parent behind and look after the step."""
    folder, lock = Path(arguments[0]), int(arguments[1])
    os.set_inheritable(lock, False)
    # The parent waits for this process only; its child is nobody's.
    if os.fork():
        os._exit(0)
    detach()
    supervise(folder, lock, dict(os.environ), kind=StepSupervisor)
    os._exit(0)
