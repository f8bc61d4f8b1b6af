"""A step operator that runs steps as processes of this machine."""

from __future__ import annotations

import contextvars
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import UUID

from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.orchestrators import publish_utils
from zenml.step_operators import BaseStepOperator
from zenml.utils import source_utils

from kaptain_zen import console, envs
from kaptain_zen.components.platforms import REQUIREMENTS, home_of, settings_of
from kaptain_zen.components.step_operators.entrypoint import LocalStepEntrypointConfiguration
from kaptain_zen.components.step_operators.step_runs import StepRuns
from kaptain_zen.exceptions import RunNotFoundError
from kaptain_zen.flavors.local import (
    KaptainLocalTrainerConfig,
    KaptainLocalTunerConfig,
    LocalStepOperatorSettings,
)
from kaptain_zen.model.interrupts import undisturbed
from kaptain_zen.model.ports import LogLine, RunState
from kaptain_zen.model.resources import Resources

if TYPE_CHECKING:
    from zenml.config.base_settings import BaseSettings
    from zenml.config.resource_settings import ResourceSettings
    from zenml.config.step_run_info import StepRunInfo
    from zenml.models import StepRunResponse
    from zenml.step_operators.step_operator_entrypoint_configuration import (
        StepOperatorEntrypointConfiguration,
    )

    from kaptain_zen.platform.platform import PlatformSettings

RUN_KEY = "kaptain_step_run"
"""Name of the run's handle in a step's metadata. A training that the step submits has another."""
_STATUS = {
    RunState.PENDING: ExecutionStatus.PROVISIONING,
    RunState.RUNNING: ExecutionStatus.RUNNING,
    RunState.SUCCEEDED: ExecutionStatus.COMPLETED,
    RunState.FAILED: ExecutionStatus.FAILED,
    RunState.CANCELLED: ExecutionStatus.STOPPED,
}
_SECRET = ("TOKEN", "PASSWORD", "SECRET", "API_KEY", "ACCESS_KEY", "CREDENTIAL")
_log = logging.getLogger("kaptain_zen")


class LocalStepOperator(BaseStepOperator):
    """Runs each step as a process of its own on this machine, under a supervisor.

    The step has the pipeline's working directory, files and environment. It goes on when the
    pipeline's process is killed; Ctrl-C and a failing pipeline stop it. A model server that it
    deploys outlives it.

    ZenML gets along with several operators on one stack only half: steps that run at the same time
    in a dynamic pipeline are looked after by the stack's first operator, whichever they asked for.
    When that is one of ours, it passes such questions on.
    """

    @property
    def config(self) -> KaptainLocalTrainerConfig | KaptainLocalTunerConfig:
        """The component's configuration."""
        return cast("KaptainLocalTrainerConfig | KaptainLocalTunerConfig", self._config)

    @property
    def settings_class(self) -> type[BaseSettings]:
        """What a step may ask for."""
        return LocalStepOperatorSettings

    @property
    def requirements(self) -> set[str]:
        """What an image needs in which this component is used."""
        return set(REQUIREMENTS)

    @property
    def entrypoint_config_class(self) -> type[StepOperatorEntrypointConfiguration]:
        """What the step's process runs."""
        return LocalStepEntrypointConfiguration

    def platform_settings(self) -> PlatformSettings:
        """What this component says about the platform of its stack."""
        return settings_of(self.config)

    def submit(
        self, info: StepRunInfo, entrypoint_command: list[str], environment: dict[str, str]
    ) -> None:
        """Start a step and return at once.

        Args:
            info: The step.
            entrypoint_command: What it runs.
            environment: ZenML's environment variables for it, credentials among them.

        Raises:
            ModelValidationException: The command's program was not found.
            WorkloadDeploymentError: It cannot be started.
        """
        settings = cast(LocalStepOperatorSettings, self.get_settings(info))
        command = list(entrypoint_command)
        if info.config.command is None and command[0] == "python":
            # Not every environment has its interpreter under this name in PATH.
            command[0] = sys.executable
        runs = self._runs
        try:
            handle = runs.submit(
                info.step_run_id,
                command,
                cwd=Path.cwd(),
                environment=_environment(environment),
                secrets=[name for name in environment if any(s in name.upper() for s in _SECRET)],
                resources=_limits(info.config.resource_settings),
                timeout=settings.timeout,
                labels={"zenml.run": info.run_name, "zenml.step": info.pipeline_step_name},
            )
            publish_utils.publish_step_run_metadata(
                info.step_run_id, {self.id: {RUN_KEY: handle.model_dump(mode="json")}}
            )
        except BaseException:
            # ZenML cleans up after steps only that were submitted.
            with undisturbed():
                runs.delete(info.step_run_id)
            raise

    def get_status(self, step_run: StepRunResponse) -> ExecutionStatus:
        """How a step is.

        Raises:
            RunNotFoundError: There is no run of it; ZenML then goes by its own records.
        """
        operator = self._responsible(step_run)
        if operator is not self:
            return operator.get_status(step_run)
        try:
            return _STATUS[self._runs.status(step_run.id).state]
        except RunNotFoundError:
            return self._recorded(step_run.id)

    def wait(self, step_run: StepRunResponse) -> ExecutionStatus:
        """Wait until a step ends, and show what it prints meanwhile.

        Raises:
            RunNotFoundError: There is no run of it, and its end is not recorded.
        """
        operator = self._responsible(step_run)
        if operator is not self:
            return operator.wait(step_run)
        # The process of an ordinary step hands its output to ZenML's log store itself. A context
        # without ZenML's keeps it from being stored a second time.
        is_command = step_run.config.command is not None
        context = contextvars.copy_context() if is_command else contextvars.Context()
        try:
            status = self._runs.wait(
                step_run.id, on_log=lambda line: context.run(_show, step_run.name, line)
            )
        except RunNotFoundError:
            return self._recorded(step_run.id)
        if status.state is RunState.FAILED:
            _log.error("Step %s failed: %s", step_run.name, status.reason)
        return _STATUS[status.state]

    def cancel(self, step_run: StepRunResponse) -> None:
        """Stop a step and everything that it started."""
        operator = self._responsible(step_run)
        if operator is not self:
            operator.cancel(step_run)
            return
        try:
            self._runs.cancel(step_run.id)
        except RunNotFoundError:
            _log.debug("There is nothing to cancel of step run %s.", step_run.id)

    def cleanup_step_submission(self, step_run: StepRunResponse) -> None:
        """Remove what is left of a step; stop it if it has not ended.

        After Ctrl-C this is all that ZenML calls. The run of a step that failed stays to be looked
        at, until `kaptain-zen cleanup` or unless `KAPTAIN_SDK_FORCE_CLEANUP` is set.
        """
        operator = self._responsible(step_run)
        if operator is not self:
            operator.cleanup_step_submission(step_run)
            return
        with undisturbed():
            try:
                failed = self._runs.status(step_run.id).state is RunState.FAILED
            except RunNotFoundError:
                return
            if not failed or envs.FORCE_CLEANUP:
                self._runs.delete(step_run.id)

    @property
    def _runs(self) -> StepRuns:
        return StepRuns(home_of(self))

    def _responsible(self, step_run: StepRunResponse) -> BaseStepOperator:
        """The operator that a step asked for: ZenML may ask this one about it all the same."""
        name = step_run.config.step_operator
        if not isinstance(name, str) or name == self.name:
            return self
        other = (Client().active_stack.step_operators or {}).get(name)
        # One that is not on the stack (any more) cannot be asked.
        return self if other is None else other

    def _recorded(self, step_run_id: UUID) -> ExecutionStatus:
        """The end of a step as ZenML knows it; there is nothing else to go by."""
        step_run = Client().get_run_step(step_run_id)
        status = step_run.status
        if status.is_finished or status == ExecutionStatus.RETRYING:
            return status
        submitted = step_run.run_metadata.get(RUN_KEY)
        here = str(home_of(self).root)
        if isinstance(submitted, dict) and submitted.get("namespace") == here:
            _log.error("The run of step %s was deleted before it ended.", step_run.name)
            return ExecutionStatus.FAILED
        raise RunNotFoundError(
            f"Step operator {self.name!r} has no run of step run {step_run_id}, which is "
            f"{status.value} in ZenML's records. It was deleted, or never started."
        )


def _show(step: str, line: LogLine) -> None:
    console.print_line(line.model_copy(update={"source": step}))


def _environment(given: dict[str, str]) -> dict[str, str]:
    """This process's environment under ZenML's, with what makes the step find the same code."""
    folder = str(Path(sys.executable).parent)
    try:
        root = source_utils.get_source_root()
    except RuntimeError:
        # A notebook without `zenml init` has none.
        root = str(Path.cwd())
    merged = {**os.environ, "ZENML_CUSTOM_SOURCE_ROOT": root, **given}
    # Programs of this environment are found even when it was not activated.
    merged["PATH"] = os.pathsep.join(filter(None, (folder, merged.get("PATH"))))
    return merged


def _limits(settings: ResourceSettings) -> Resources:
    """ZenML's resources of a step as limits."""
    memory = settings.get_memory(unit="B") if settings.memory else None
    return Resources(
        cpu_limit=str(settings.cpu_count) if settings.cpu_count else None,
        memory_limit=str(int(memory)) if memory else None,
        gpu_limit=settings.gpu_count or None,
    )
