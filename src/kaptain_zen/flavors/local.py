"""Flavors of the local platform: processes and servers on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, field_validator
from zenml.config.base_settings import BaseSettings
from zenml.model_deployers.base_model_deployer import (
    BaseModelDeployerConfig,
    BaseModelDeployerFlavor,
)
from zenml.step_operators.base_step_operator import (
    BaseStepOperatorConfig,
    BaseStepOperatorFlavor,
)

if TYPE_CHECKING:
    from kaptain_zen.components.model_deployers.local import KaptainLocalModelDeployer
    from kaptain_zen.components.step_operators.local_trainer import KaptainLocalTrainer
    from kaptain_zen.components.step_operators.local_tuner import KaptainLocalTuner

LOCAL_TRAINER_FLAVOR = "kaptain_local_trainer"
LOCAL_TUNER_FLAVOR = "kaptain_local_tuner"
LOCAL_MODEL_DEPLOYER_FLAVOR = "kaptain_local"


class LocalPlatformConfig(BaseModel):
    """What every component of the local platform may say about it.

    The components of one stack must not contradict each other; one that says nothing agrees with
    all. ZenML's own base of component configurations comes from the subclass.
    """

    home: str | None = Field(
        default=None,
        description="Folder for runs and services: absolute, or beginning with ~. "
        "KAPTAIN_ZEN_HOME, else ~/.kaptain-zen, if not given.",
    )
    storage_uri: str | None = Field(
        default=None,
        description="Folder in the storage for all models, s3://bucket/folder or file:///folder. "
        "A folder of the stack's artifact store if not given and that is S3, else models/ of home.",
    )

    @field_validator("home")
    @classmethod
    def _absolute_home(cls, value: str | None) -> str | None:
        if value is None:
            return None
        text = value.strip()
        # A relative folder would be another one for every working directory.
        if not text.startswith("~") and not Path(text).is_absolute():
            raise ValueError(
                f"home is {value!r}; it must be an absolute path, or begin with '~', because steps "
                f"and commands run in different working directories"
            )
        return text

    @field_validator("storage_uri")
    @classmethod
    def _usable_storage(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value.strip())
        if parts.scheme not in ("s3", "file") or not (parts.netloc or parts.path.strip("/")):
            raise ValueError(
                f"storage_uri is {value!r}; it must be s3://bucket/folder or file:///folder"
            )
        return value.strip().rstrip("/")

    @property
    def is_local(self) -> bool:
        """It works on this machine."""
        return True

    @property
    def is_remote(self) -> bool:
        """It needs no ZenML server that others can reach."""
        return False


class LocalStepOperatorSettings(BaseSettings):
    """What a step may ask of the operator that runs it.

    Given as `settings={"step_operator:<name of the component>": {...}}`. The plain key
    `step_operator` means the first operator of a stack only.
    """

    timeout: PositiveFloat | None = Field(
        default=None,
        description="Seconds that the step may take; no limit if not given.",
    )


class KaptainLocalTrainerConfig(
    LocalPlatformConfig, BaseStepOperatorConfig, LocalStepOperatorSettings
):
    """Configuration of the local trainer."""

    warm_start: bool | None = Field(
        default=None,
        description="Whether trainings fork from a process that has imported what they import; "
        "yes if not given.",
    )


class KaptainLocalTunerConfig(
    LocalPlatformConfig, BaseStepOperatorConfig, LocalStepOperatorSettings
):
    """Configuration of the local tuner."""

    warm_start: bool | None = Field(
        default=None,
        description="Whether trials fork from a process that has imported what they import; yes "
        "if not given.",
    )
    parallel_trials: PositiveInt | None = Field(
        default=None,
        description="How many trials run at a time when a step does not say; 2 if not given.",
    )


class KaptainLocalModelDeployerConfig(LocalPlatformConfig, BaseModelDeployerConfig):
    """Configuration of the local model deployer."""


class KaptainLocalTrainerFlavor(BaseStepOperatorFlavor):
    """Runs steps and trainings as processes of this machine."""

    @property
    def name(self) -> str:
        """`kaptain_local_trainer`."""
        return LOCAL_TRAINER_FLAVOR

    @property
    def config_class(self) -> type[KaptainLocalTrainerConfig]:
        """Its configuration."""
        return KaptainLocalTrainerConfig

    @property
    def implementation_class(self) -> type[KaptainLocalTrainer]:
        """The step operator, imported when ZenML asks for it."""
        from kaptain_zen.components.step_operators.local_trainer import KaptainLocalTrainer

        return KaptainLocalTrainer


class KaptainLocalTunerFlavor(BaseStepOperatorFlavor):
    """Runs searches, and the steps around them, as processes of this machine."""

    @property
    def name(self) -> str:
        """`kaptain_local_tuner`."""
        return LOCAL_TUNER_FLAVOR

    @property
    def config_class(self) -> type[KaptainLocalTunerConfig]:
        """Its configuration."""
        return KaptainLocalTunerConfig

    @property
    def implementation_class(self) -> type[KaptainLocalTuner]:
        """The step operator, imported when ZenML asks for it."""
        from kaptain_zen.components.step_operators.local_tuner import KaptainLocalTuner

        return KaptainLocalTuner


class KaptainLocalModelDeployerFlavor(BaseModelDeployerFlavor):
    """Serves models with MLServer on this machine, canaries included."""

    @property
    def name(self) -> str:
        """`kaptain_local`."""
        return LOCAL_MODEL_DEPLOYER_FLAVOR

    @property
    def config_class(self) -> type[KaptainLocalModelDeployerConfig]:
        """Its configuration."""
        return KaptainLocalModelDeployerConfig

    @property
    def implementation_class(self) -> type[KaptainLocalModelDeployer]:
        """The model deployer, imported when ZenML asks for it."""
        from kaptain_zen.components.model_deployers.local import KaptainLocalModelDeployer

        return KaptainLocalModelDeployer
