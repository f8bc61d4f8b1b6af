"""`Model`: the object that a data scientist holds, with the API of the Kaptain SDK."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from kaptain_zen import console, envs
from kaptain_zen.exceptions import ModelNotFoundError, RunNotFoundError
from kaptain_zen.model import deploying, running, states
from kaptain_zen.model.core import default_platform
from kaptain_zen.model.deployable import DeployableModel
from kaptain_zen.model.record import ModelRecord, RunHandle
from kaptain_zen.model.repository import RecordRepository
from kaptain_zen.model.spec import ModelSpec, checked_id
from kaptain_zen.model.trainable import TrainableModel, either

if TYPE_CHECKING:
    from kaptain_zen.config import Config
    from kaptain_zen.model.frameworks import ModelFramework
    from kaptain_zen.platform.platform import Platform


class _Undefined:
    """Default of a property that must be given, so that leaving it out is an error of ours."""

    def __repr__(self) -> str:
        return "<required>"


_UNDEFINED: Any = _Undefined()


class Model(TrainableModel, DeployableModel):
    """A machine-learning model: described once, then built, trained, tuned, deployed, canaried.

    Making one touches nothing. Its record begins untrained; `Model.load` continues one of an
    earlier session.

    Example:
        >>> model = Model(
        ...     id="dev/mnist", name="MNIST", description="Digits", version="1.0",
        ...     framework="sklearn", framework_version="1.9", main_file="training.py",
        ...     image_name="me/mnist", base_image="python:3.11",
        ... )
        >>> model.record.state.value
        'untrained'
    """

    def __init__(
        self,
        id: str = _UNDEFINED,
        name: str = _UNDEFINED,
        description: str = _UNDEFINED,
        version: str = _UNDEFINED,
        framework: str | ModelFramework = _UNDEFINED,
        framework_version: str = _UNDEFINED,
        main_file: str = _UNDEFINED,
        image_name: str = _UNDEFINED,
        base_image: str = _UNDEFINED,
        extra_files: list[str] | None = None,
        requirements: str | list[str] | None = None,
        labels: list[str] | None = None,
        config: Config | None = None,
        *,
        serving_config: Mapping[str, Any] | None = None,
        platform: Platform | None = None,
    ) -> None:
        """Describe a model; the properties are those of `ModelSpec`.

        Args:
            id: Unique identifier, for example `dev/mnist`.
            name: Short name.
            description: A sentence.
            version: The model's own version.
            framework: Its framework.
            framework_version: The framework's version.
            main_file: The Python file that trains it.
            image_name: Repository, with or without a tag, for its training image.
            base_image: Image that the training image is built from.
            extra_files: Further files that the main file needs.
            requirements: A requirements file, or a list of pip requirements.
            labels: Free words to find it by.
            config: Where things are; the platform's own choice if None.
            serving_config: How it is served.
            platform: Where it runs; `platform.local(config)` if None.

        Raises:
            InvalidModelProperty: A property is None, blank or not legal.
            UndefinedModelProperty: A property is missing.
            UnsupportedModelFrameworkException: The framework is unknown.
        """
        properties = {
            "id": id,
            "name": name,
            "description": description,
            "version": version,
            "framework": framework,
            "framework_version": framework_version,
            "main_file": main_file,
            "image_name": image_name,
            "base_image": base_image,
            "extra_files": extra_files,
            "requirements": requirements,
            "labels": labels,
            "serving_config": serving_config,
        }
        spec = ModelSpec(**{k: v for k, v in properties.items() if v is not _UNDEFINED})
        record = states.new(spec, revision=uuid4().hex, now=datetime.now(UTC))
        self._begin(record, config, platform)

    @classmethod
    def from_spec(
        cls, spec: ModelSpec, *, config: Config | None = None, platform: Platform | None = None
    ) -> Self:
        """An untrained model of a specification."""
        record = states.new(spec, revision=uuid4().hex, now=datetime.now(UTC))
        return cls.from_record(record, config=config, platform=platform)

    @classmethod
    def from_record(
        cls, record: ModelRecord, *, config: Config | None = None, platform: Platform | None = None
    ) -> Self:
        """A model that continues from a record."""
        model = cls.__new__(cls)
        model._begin(record, config, platform)
        return model

    @classmethod
    def load(
        cls, id: str, *, config: Config | None = None, platform: Platform | None = None
    ) -> Self:
        """Continue a model of an earlier session, or of another machine.

        Its service says what is deployed; the storage says the rest. Without a record in the
        storage, the service's annotation is enough.

        Args:
            id: Of the model.
            config: Where things are.
            platform: Where it runs.

        Raises:
            ModelNotFoundError: Nothing is known of it.
            RecordFormatError: What is known cannot be read by this release.
        """
        checked_id(id)
        chosen = platform or default_platform(config)
        stored = RecordRepository(chosen.store).load(id)
        service = chosen.server.get(id)
        if stored is None and service is None:
            raise ModelNotFoundError(
                f"No model {id!r} is deployed here, and there is no record of it below "
                f"{chosen.store.base_uri}. `kaptain-zen models list` lists those that there are."
            )
        # A client that died after it changed the service has left the storage behind.
        known = [r for r in (stored, service.record if service else None) if r is not None]
        newest = max(known, key=_last_change)
        for other in known:
            newest = states.merged(newest, other)
        record, _ = deploying.observe(chosen, newest)
        return cls.from_record(record, platform=chosen)

    @classmethod
    def attach(
        cls,
        handle: RunHandle | str,
        *,
        config: Config | None = None,
        platform: Platform | None = None,
        verbose: bool | None = None,
        force_cleanup: bool | None = None,
    ) -> Self:
        """Wait for a training or tuning that another process submitted, and finish its work.

        Args:
            handle: The run, or the id of a model that has one under way.
            config: Where things are.
            platform: Where it runs.
            verbose: Whether to print what the workers print; `KAPTAIN_SDK_VERBOSE` if None.
            force_cleanup: Whether to remove the ended run; `KAPTAIN_SDK_FORCE_CLEANUP` if None.

        Returns:
            The model as it is afterwards; `last_error` says why the run failed, if it did.

        Raises:
            RunNotFoundError: There is no such run.
        """
        console.configure_logging()
        chosen = platform or default_platform(config)
        record, pending = running.find_pending(chosen, handle)
        model = cls.from_record(record, platform=chosen)
        try:
            status = running.wait(chosen, pending, verbose=either(verbose, envs.VERBOSE))
        except RunNotFoundError:
            if record.pending is not None:
                running.forget(chosen, record)
            raise
        keep = not either(force_cleanup, envs.FORCE_CLEANUP)
        model._take(running.settle(chosen, record, pending, status, keep=keep))
        return model


def _last_change(record: ModelRecord) -> datetime:
    return max([record.created_at, *(entry.at for entry in record.history)])
