"""What the steps share: from a step's input to a model, and from a model to ZenML's bookkeeping."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Discriminator, Tag
from zenml import get_step_context, log_metadata
from zenml.client import Client
from zenml.steps import StepContext

from kaptain_zen.components.services.local import KaptainLocalDeploymentConfig
from kaptain_zen.exceptions import ModelNotFoundError, ModelValidationException
from kaptain_zen.model.models import Model
from kaptain_zen.model.record import ModelRecord, RunHandle
from kaptain_zen.model.spec import ModelSpec
from kaptain_zen.platform.platform import from_active_stack

RUN_KEY, MODEL_KEY = "kaptain_run", "kaptain_model"
"""Names of what the steps write into metadata: a run's handle, and a model's state."""
ServiceAction = Literal["deploy", "canary", "promote", "rollback", "undeploy"]
_log = logging.getLogger("kaptain_zen")


def _kind(value: Any) -> str:
    """Tell a record from a specification, as objects and as JSON."""
    if isinstance(value, dict):
        return "record" if "spec" in value else "spec"
    return "record" if isinstance(value, ModelRecord) else "spec"


ModelInput = Annotated[
    Annotated[ModelRecord, Tag("record")] | Annotated[ModelSpec, Tag("spec")],
    Discriminator(_kind),
]
"""What every step takes: a model's specification, or the record that an earlier step returned."""

ModelOutput = Annotated[ModelRecord, "model_record"]
"""What most steps return."""


def open_model(model: ModelRecord | ModelSpec, base_dir: Path | None = None) -> Model:
    """The model of a step's input, on the platform of the active stack.

    A specification stands for the model as it is known there, or for a new one.

    Args:
        model: The input.
        base_dir: Folder of the model's files, for a step that needs them.

    Raises:
        ConfigurationError: The active stack is not one of ours.
    """
    platform = from_active_stack(str(base_dir) if base_dir else None)
    if isinstance(model, ModelRecord):
        return Model.from_record(model, platform=platform)
    try:
        known = Model.load(model.id, platform=platform).record
    except ModelNotFoundError:
        return Model.from_spec(model, platform=platform)
    return Model.from_record(known.model_copy(update={"spec": model}), platform=platform)


def find_base_dir(model: ModelRecord | ModelSpec, base_dir: str | None) -> Path:
    """The folder that a model's files are relative to.

    Args:
        model: The model.
        base_dir: What the caller said. Otherwise ZenML's source root (the folder of `zenml init`,
            else that of the script that was run) if it holds the main file, else the working
            directory.

    Raises:
        ModelValidationException: The main file is in none of them.
    """
    main_file = (model.spec if isinstance(model, ModelRecord) else model).main_file
    tried = [Path(base_dir).expanduser().absolute()] if base_dir else [*_source_root(), Path.cwd()]
    for folder in tried:
        if (folder / main_file).is_file():
            return folder
    places = " nor in ".join(dict.fromkeys(str(folder) for folder in tried))
    raise ModelValidationException(
        f"The main file {main_file!r} is not in {places}. Give the step the folder that holds it: "
        f"base_dir=str(Path(__file__).parent)."
    )


def _source_root() -> list[Path]:
    from zenml.utils import source_utils

    try:
        return [Path(source_utils.get_source_root())]
    except RuntimeError:
        # A notebook without `zenml init` has none.
        return []


def run_noter() -> Callable[[RunHandle], None]:
    """What writes a run's handle into the metadata of the step that calls this, at once.

    Whoever looks at the step while it runs, or after it was killed, can find the run again.
    """
    step_run_id = get_step_context().step_run.id

    def note(handle: RunHandle) -> None:
        log_metadata(metadata={RUN_KEY: handle.model_dump(mode="json")}, step_id=step_run_id)

    return note


def note_model(model: Model, **more: Any) -> ModelRecord:
    """Write a model's state into the step's metadata, and into that of the ZenML model version.

    Args:
        model: The model.
        **more: Further values, for the step only.

    Returns:
        The model's record, with what is deployed as it is now.
    """
    status = model.status()
    record = model.record
    summary: dict[str, Any] = {
        "id": record.spec.id,
        "state": record.state.value,
        "revision": record.revision,
        "deployment": record.deployment.phase.value,
        "storage": model.platform.store.base_uri,
    }
    optional = {
        "artifact": record.artifact.uri if record.artifact else None,
        "prediction_url": status.url,
        "baseline_revision": status.baseline,
        "canary_revision": status.canary,
        "canary_percentage": status.canary_percentage,
    }
    # ZenML drops what is None, with a warning.
    summary |= {key: value for key, value in optional.items() if value is not None}
    metrics = {name: metric.latest for name, metric in record.metrics.items()}
    if metrics:
        summary["metrics"] = metrics
    if record.hyperparameters:
        summary["hyperparameters"] = dict(record.hyperparameters)
    log_metadata({MODEL_KEY: summary, **more})
    if get_step_context().model_version is not None:
        log_metadata(metadata={MODEL_KEY: summary}, infer_model=True)
    return record


def publish(model: Model, *, action: ServiceAction) -> UUID | None:
    """Make ZenML know the model's service, when the stack has a deployer of ours.

    Args:
        model: The model.
        action: What the step did. ZenML finds a service by the pipeline and step that deployed it,
            which a canary's steps do not change; a promotion changes the model version.

    Returns:
        ZenML's id of the service.
    """
    deployer = Client().active_stack.model_deployer
    publish_service = getattr(deployer, "publish_service", None)
    if publish_service is None:
        _log.info(
            "The active stack has no kaptain model deployer; ZenML will not list the service."
        )
        return None
    service = model.service()
    if service is None:
        # A duck-typed pair: who publishes services forgets them too.
        deployer.forget_service(model.id)  # type: ignore[union-attr]
        return None
    context = get_step_context()
    version = context.model_version if action in ("deploy", "promote") else None
    config = _on_behalf_of(model, context) if action == "deploy" else None
    published = publish_service(service, config, model_version=version)
    return UUID(str(published.uuid))


def _on_behalf_of(model: Model, context: StepContext) -> KaptainLocalDeploymentConfig:
    baseline = model.record.deployment.baseline
    return KaptainLocalDeploymentConfig(
        model_id=model.id,
        description=model.spec.description,
        model_uri=baseline.uri if baseline and baseline.source is None else "",
        pipeline_name=context.pipeline.name,
        pipeline_step_name=context.step_run.name,
        pipeline_run_id=str(context.pipeline_run.id),
    )
