"""How a model looks to a person: one line, a status, a table for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from pydantic import Field

from kaptain_zen.model.base import Frozen
from kaptain_zen.model.ports import Service
from kaptain_zen.model.record import DeploymentPhase, ModelRecord, ModelState

_SHORT = 8


class ModelStatus(Frozen):
    """What is trained, what is deployed, and whether it answers.

    Attributes:
        model_id: Of the model.
        state: Where the newest artifact came from.
        revision: The model's.
        phase: What is deployed.
        ready: Whether everything that is deployed answers.
        url: Where predictions are asked for.
        baseline: Revision that serves.
        canary: Revision that is tried beside it.
        canary_percentage: The canary's share of the requests.
        requests: Requests answered so far, by revision.
        message: Why it is not ready.
        pending: Name of a training or tuning under way.
    """

    model_id: str
    state: ModelState
    revision: str
    phase: DeploymentPhase
    ready: bool = False
    url: str | None = None
    baseline: str | None = None
    canary: str | None = None
    canary_percentage: int | None = None
    requests: dict[str, int] = Field(default_factory=dict)
    message: str = ""
    pending: str | None = None


def status(record: ModelRecord, service: Service | None) -> ModelStatus:
    """Bring a record and its service to one view."""
    deployment = record.deployment
    return ModelStatus(
        model_id=record.spec.id,
        state=record.state,
        revision=record.revision,
        phase=deployment.phase,
        ready=service is not None and service.ready,
        url=service.prediction_url if service else None,
        baseline=deployment.baseline.revision if deployment.baseline else None,
        canary=deployment.canary.revision if deployment.canary else None,
        canary_percentage=deployment.canary_percentage,
        requests=service.requests if service else {},
        message=service.message if service else "",
        pending=record.pending.handle.name if record.pending else None,
    )


def line(record: ModelRecord) -> str:
    """For example `Model('dev/mnist', state=tuned, revision=1f2e3d4c, accuracy=0.97, serving)`."""
    parts = [
        repr(record.spec.id),
        f"state={record.state.value}",
        f"revision={record.revision[:_SHORT]}",
        *(f"{name}={metric.latest:.4g}" for name, metric in record.metrics.items()),
        _deployed(record),
    ]
    return f"Model({', '.join(parts)})"


def html(record: ModelRecord) -> str:
    """A table with everything that a person asks first."""
    rows = {
        "Id": record.spec.id,
        "Name": record.spec.name,
        "Description": record.spec.description,
        "Version": record.spec.version,
        "Framework": f"{record.spec.framework.value} {record.spec.framework_version}",
        "State": record.state.value,
        "Revision": record.revision,
        "Artifact": record.artifact.uri if record.artifact else "none",
        "Hyperparameters": _pairs(record.hyperparameters or {}),
        "Metrics": _pairs({name: metric.latest for name, metric in record.metrics.items()}),
        "Deployment": _deployed(record),
        "Under way": record.pending.handle.name if record.pending else "nothing",
    }
    body = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{body}</table>"


def _deployed(record: ModelRecord) -> str:
    deployment = record.deployment
    if deployment.phase is DeploymentPhase.CANARY:
        return f"canary at {deployment.canary_percentage} %"
    return "serving" if deployment.phase is DeploymentPhase.SERVING else "not deployed"


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items()) or "none"
