"""The one record of a model: what it is, what was done to it, what of it is deployed.

The same JSON stands in the annotation `kaptain-zen.io/model` of whatever serves or trains the
model, in step artifacts, in the metadata of a ZenML model version, and in `record.json` beside the
artifacts. Records are immutable; `kaptain_zen.model.states` makes new ones.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, ValidationError, model_validator

from kaptain_zen.exceptions import KaptainError, RecordFormatError
from kaptain_zen.model.base import Frozen
from kaptain_zen.model.metrics import Metric, MetricsType
from kaptain_zen.model.resources import Resources
from kaptain_zen.model.spec import ModelSpec

ANNOTATION = "kaptain-zen.io/model"
SCHEMA_VERSION: Literal[1] = 1
ANNOTATION_LIMIT = 128 * 1024
"""Bytes of the annotation at most; Kubernetes allows 256 KiB for all annotations together."""
ANNOTATION_HISTORY = 20
"""Entries of the history that the annotation keeps; the storage keeps all of them."""

Scalar = bool | int | float | str
Hyperparameters = dict[str, Scalar]


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone")
    return moment.astimezone(UTC)


Moment = Annotated[
    datetime,
    AfterValidator(_in_utc),
    PlainSerializer(lambda moment: moment.isoformat(), when_used="json"),
]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class ModelState(Enum):
    """Where the newest artifact of a model came from."""

    UNTRAINED = "untrained"
    TRAINED = "trained"
    TUNED = "tuned"


class DeploymentPhase(Enum):
    """What is deployed."""

    NONE = "none"
    SERVING = "serving"
    CANARY = "canary"


class RunHandle(Frozen):
    """A submitted training or tuning, as plain data that any later process can re-attach with.

    Attributes:
        backend: The adapter that runs it, for example `local`.
        kind: `train`, `tune`, or the kind of the cluster's object.
        namespace: Where its name is unique: a Kubernetes namespace, or the local platform's home.
        name: Its name.
        uid: Tells it from an earlier run of the same name.
    """

    backend: str
    kind: str
    namespace: str
    name: str
    uid: str = ""


class Image(Frozen):
    """A training image.

    Attributes:
        name: Repository and tag; on the local platform nothing of that name exists.
        checksum: Over everything that went into it.
        digest: What the registry knows it by, if there is a registry.
    """

    name: str
    checksum: str
    digest: str | None = None


class Artifact(Frozen):
    """A trained model in the storage.

    Attributes:
        uri: Folder that holds it.
        revision: The revision of the model that made it.
        size: Bytes of all its files.
        sha256: Hash over the names and contents of its files.
    """

    uri: str
    revision: Revision
    size: int = Field(default=0, ge=0)
    sha256: str | None = None


class Served(Frozen):
    """One revision behind a service.

    Attributes:
        revision: The model's revision at the time it was deployed; it stays through a promotion.
        uri: Folder that it is loaded from.
        source: The artifact's revision, if it is one of this model.
        resources: What one replica gets.
        autoscale: Target of requests under way per replica.
        serving_config: How it is served.
        metrics: The latest metrics of the artifact, to compare the next one with.
    """

    revision: Revision
    uri: str
    source: Revision | None = None
    resources: Resources = Resources()
    autoscale: int = Field(default=2, ge=1)
    serving_config: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)


class Deployment(Frozen):
    """What is deployed of a model.

    Attributes:
        phase: Nothing, one revision, or two of them.
        baseline: What serves.
        canary: What is tried beside it.
        canary_percentage: Share of the requests that the canary answers, 1 to 99.
    """

    phase: DeploymentPhase = DeploymentPhase.NONE
    baseline: Served | None = None
    canary: Served | None = None
    canary_percentage: int | None = Field(default=None, ge=1, le=99)

    @model_validator(mode="after")
    def _consistent(self) -> Deployment:
        expected = {
            DeploymentPhase.NONE: (False, False, False),
            DeploymentPhase.SERVING: (True, False, False),
            DeploymentPhase.CANARY: (True, True, True),
        }[self.phase]
        found = (
            self.baseline is not None,
            self.canary is not None,
            self.canary_percentage is not None,
        )
        if found != expected:
            raise ValueError(f"a deployment in phase {self.phase.value} cannot look like this")
        if self.baseline and self.canary and self.baseline.revision == self.canary.revision:
            raise ValueError("baseline and canary are the same revision")
        return self


class Evaluation(Frozen):
    """Metrics that a person or a step logged."""

    metrics: dict[str, float]
    metrics_type: MetricsType
    revision: Revision
    at: Moment
    uri: str | None = None


class DataSet(Frozen):
    """A data set that the model was made from."""

    name: str = Field(min_length=1)
    uri: str = Field(min_length=1)
    description: str | None = None
    features: tuple[str, ...] = ()
    version: str | None = None


class Trial(Frozen):
    """One trial of a tuning.

    Attributes:
        number: Its place in the order in which trials were asked for, from 0.
        name: The name of its run.
        state: `succeeded`, `failed`, `killed`, `pruned`.
        parameters: What it tried.
        metrics: The latest value of each metric that it reported.
        seconds: How long it ran.
    """

    number: int
    name: str
    state: Literal["succeeded", "failed", "killed", "pruned"]
    parameters: Hyperparameters
    metrics: dict[str, float] = Field(default_factory=dict)
    seconds: float | None = None


class PendingRun(Frozen):
    """A training or tuning under way: all that is needed to finish it in another process.

    Attributes:
        action: What it is.
        revision: The revision that the model will have when it succeeds.
        handle: Where it runs.
        upload_uri: Where its model will be.
        hyperparameters: What a training was given; empty for a tuning.
        objectives: What a tuning looks at, the main one first.
        submitted_at: When it was handed to the platform.
    """

    action: Literal["train", "tune"]
    revision: Revision
    handle: RunHandle
    upload_uri: str
    hyperparameters: Hyperparameters = Field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    submitted_at: Moment


class HistoryEntry(Frozen):
    """One action, as it ended.

    Attributes:
        action: Its name.
        revision: The model's revision afterwards.
        at: When.
        state: The model's state afterwards.
        phase: What was deployed afterwards.
        detail: What tells this entry from another: a URI, a percentage, the main metric.
    """

    action: str
    revision: Revision
    at: Moment
    state: ModelState
    phase: DeploymentPhase
    detail: dict[str, Scalar] = Field(default_factory=dict)


class ModelRecord(Frozen):
    """Specification, state, revision, metrics, lineage and deployment of one model.

    Attributes:
        schema_version: Of this format; a reader refuses those that it does not know.
        spec: What the model is.
        revision: Hex UUID, new after every train, tune, deploy, canary, promote, rollback.
        state: Where the newest artifact came from.
        created_at: When the record began.
        artifact: The newest artifact; there is one unless the state is untrained.
        image: The training image.
        hyperparameters: As given to the training, or found by the tuning.
        metrics: What the newest training, or the best trial, reported.
        run: The newest run that ended.
        trials: The newest tuning's trials.
        evaluations: What was logged by hand or by steps.
        datasets: What it was made from.
        deployment: What is deployed.
        pending: A run under way.
        history: What was done, oldest first.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    spec: ModelSpec
    revision: Revision
    state: ModelState = ModelState.UNTRAINED
    created_at: Moment
    artifact: Artifact | None = None
    image: Image | None = None
    hyperparameters: Hyperparameters | None = None
    metrics: dict[str, Metric] = Field(default_factory=dict)
    run: RunHandle | None = None
    trials: tuple[Trial, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    datasets: tuple[DataSet, ...] = ()
    deployment: Deployment = Deployment()
    pending: PendingRun | None = None
    history: tuple[HistoryEntry, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> ModelRecord:
        if (self.artifact is None) != (self.state is ModelState.UNTRAINED):
            raise ValueError("a model has an artifact exactly when it is trained or tuned")
        return self

    def to_json(self) -> str:
        """The whole record as compact JSON."""
        return self.model_dump_json(exclude_defaults=False)

    def to_annotation(self) -> str:
        """The record as it goes into an annotation: bounded, the oldest history left out.

        Returns:
            Compact JSON of at most `ANNOTATION_LIMIT` bytes.

        Raises:
            RecordFormatError: The specification alone is larger than the limit.
        """
        kept = {
            "history": self.history[-ANNOTATION_HISTORY:],
            "trials": self.trials,
            "evaluations": self.evaluations[-ANNOTATION_HISTORY:],
            "datasets": self.datasets,
        }
        # What can be read again from the storage is left out first.
        for dropped in (None, "trials", "evaluations", "history", "datasets"):
            if dropped:
                kept[dropped] = ()
            text = self.model_copy(update=kept).to_json()
            if len(text.encode()) <= ANNOTATION_LIMIT:
                return text
        raise RecordFormatError(
            f"The record of model {self.spec.id!r} is larger than {ANNOTATION_LIMIT // 1024} KiB "
            f"even without its history. Shorten its labels, extra files or serving_config."
        )

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> ModelRecord:
        """Read a record.

        Args:
            text: What `to_json` or `to_annotation` wrote.
            where: What the text was read from, for the error.

        Returns:
            The record.

        Raises:
            RecordFormatError: It is broken, or of a version that this release does not know.
        """
        try:
            data = json.loads(text)
            version = data.get("schema_version")
        except (ValueError, AttributeError, RecursionError):
            raise RecordFormatError(
                f"The model record in {where} is not valid JSON. It was left as it is; repair or "
                f"remove it by hand."
            ) from None
        if version != SCHEMA_VERSION:
            raise RecordFormatError(
                f"The model record in {where} has schema version {version!r}; this release reads "
                f"{SCHEMA_VERSION}. It was left as it is; use the release that wrote it."
            )
        try:
            return cls.model_validate(data)
        except (ValidationError, KaptainError) as error:
            raise RecordFormatError(
                f"The model record in {where} is broken: {_first_reason(error)}. It was left as "
                f"it is; repair or remove it by hand."
            ) from error


def _first_reason(error: ValidationError | KaptainError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc']) or 'record'}: {first['msg']}"
    return str(error)
