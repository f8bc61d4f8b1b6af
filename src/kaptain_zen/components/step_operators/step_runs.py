"""Steps as runs of the local platform, found again by ZenML's id of the step run."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kaptain_zen.components.step_operators import supervisor
from kaptain_zen.exceptions import ModelValidationException, WorkloadDeploymentError
from kaptain_zen.model.ports import LogLine, RunStatus
from kaptain_zen.model.record import RunHandle
from kaptain_zen.model.resources import Resources
from kaptain_zen.platform.local import limits
from kaptain_zen.platform.local.home import LocalHome
from kaptain_zen.platform.local.runs import Plan, RunFolder, now
from kaptain_zen.platform.local.trainer import LocalTrainer

STEP_LABEL = "zenml.step_run_id"


class StepRuns:
    """The steps of one home. What is submitted here is a run like a training, and ends like one."""

    def __init__(self, home: LocalHome) -> None:
        """Use a home; nothing is made or started."""
        self._home = home
        self._runs = LocalTrainer(home, environment={}, warm_start=False)

    def handle(self, step_run_id: uuid.UUID) -> RunHandle:
        """The handle of a step's run, whether there is one or not."""
        return RunHandle(
            backend=self._runs.backend,
            kind="train",
            namespace=str(self._home.root),
            name=f"step-{step_run_id}",
        )

    def submit(
        self,
        step_run_id: uuid.UUID,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        secrets: Sequence[str] = (),
        resources: Resources,
        timeout: float | None = None,
        labels: Mapping[str, str],
    ) -> RunHandle:
        """Start a step's command and return at once; it does not need this process any more.

        Args:
            step_run_id: ZenML's id of the step run, new for every retry.
            command: The command; its program is looked up in the environment's `PATH`.
            cwd: Working directory.
            environment: All of its environment variables; never written down.
            secrets: Names of those whose values are kept out of the log.
            resources: Limits.
            timeout: Seconds that it may take.
            labels: Written down with the run.

        Returns:
            The handle.

        Raises:
            ModelValidationException: There is no such program, or a text holds a NUL character.
            WorkloadDeploymentError: It cannot be started.
            ConfigurationError: The home cannot be written to.
        """
        handle = self.handle(step_run_id)
        program = shutil.which(command[0], path=environment.get("PATH")) if command else None
        if program is None:
            raise ModelValidationException(
                f"The program {command[0] if command else ''!r} of step run {step_run_id} was not "
                f"found. Give its full path, or install it."
            )
        self._check(resources, [*command, *environment.values()])
        plan = Plan(
            name=handle.name,
            uid=uuid.uuid4().hex,
            submitted_at=now(),
            python=sys.executable,
            script="",
            arguments=(str(Path(program).absolute()), *command[1:]),
            import_path=str(cwd),
            workers=1,
            rendezvous="none",
            upload_uri="",
            timeout=timeout,
            cpus=limits.cpus_of(resources.cores),
            memory=resources.memory_bytes,
            secrets=tuple(secrets),
            labels={**labels, STEP_LABEL: str(step_run_id)},
        )
        self._home.ensure(self._home.runs)
        folder = RunFolder(self._home.runs / plan.name)
        draft = RunFolder(self._home.runs / f".new-{plan.uid}")
        lock = -1
        try:
            draft.path.mkdir(mode=0o700)
            lock = draft.make_lock()
            draft.worker(0).mkdir()
            draft.write_plan(plan)
            # Renaming fails when there is a run of this name: a step run is submitted once.
            draft.path.rename(folder.path)
            try:
                supervisor.start(
                    folder.path,
                    lock,
                    {**environment, **limits.thread_variables(plan.cpus), "PYTHONUNBUFFERED": "1"},
                )
            except BaseException:
                self.delete(step_run_id)
                raise
        except OSError as error:
            raise WorkloadDeploymentError(
                f"Step run {step_run_id} could not be started in {folder.path}: {error}."
            ) from error
        finally:
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(draft.path, ignore_errors=True)
        return handle.model_copy(update={"uid": plan.uid})

    def status(self, step_run_id: uuid.UUID) -> RunStatus:
        """Look at a step.

        Raises:
            RunNotFoundError: There is no run of it.
        """
        return self._runs.status(self.handle(step_run_id))

    def wait(
        self, step_run_id: uuid.UUID, *, on_log: Callable[[LogLine], None] | None = None
    ) -> RunStatus:
        """Wait until a step's command ends; every line that it prints goes to `on_log`.

        Raises:
            RunNotFoundError: There is no run of it, or it was deleted meanwhile.
        """
        return self._runs.wait(self.handle(step_run_id), on_log=on_log)

    def cancel(self, step_run_id: uuid.UUID) -> None:
        """Stop a step; nothing happens when it has ended already.

        Raises:
            RunNotFoundError: There is no run of it.
        """
        self._runs.cancel(self.handle(step_run_id))

    def delete(self, step_run_id: uuid.UUID) -> None:
        """Stop a step and remove what is left of it; nothing happens when there is nothing."""
        self._runs.delete(self.handle(step_run_id))

    def _check(self, resources: Resources, texts: Sequence[str]) -> None:
        wanted = resources.gpu_limit or 0
        present = limits.nvidia_devices() if wanted else 0
        if wanted > present:
            raise WorkloadDeploymentError(
                f"The step asks for {wanted} GPU(s); this machine has {present} NVIDIA device(s)."
            )
        if any("\0" in text for text in texts):
            raise ModelValidationException(
                "An argument or environment variable of the step holds a NUL character, which no "
                "process can be given. Remove it."
            )
