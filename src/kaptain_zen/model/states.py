"""Every action on a model as a pure function: record in, record out, or an error.

Nothing here reads a clock, draws a random number or touches a file. What varies (`revision`, `now`)
is an argument. The table of what is allowed when is in `docs/architecture.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kaptain_zen.exceptions import ModelDeploymentException, ModelValidationException
from kaptain_zen.model.metrics import Metric, MetricsType, checked
from kaptain_zen.model.record import (
    Artifact,
    DataSet,
    Deployment,
    DeploymentPhase,
    Evaluation,
    HistoryEntry,
    Hyperparameters,
    Image,
    ModelRecord,
    ModelState,
    PendingRun,
    RunHandle,
    Scalar,
    Served,
    Trial,
)
from kaptain_zen.model.resources import Resources
from kaptain_zen.model.spec import ModelSpec

MIN_PERCENTAGE, MAX_PERCENTAGE = 1, 99


def new(spec: ModelSpec, *, revision: str, now: datetime) -> ModelRecord:
    """The record of a model that nothing has been done to."""
    return ModelRecord(spec=spec, revision=revision, created_at=now)


def built(record: ModelRecord, image: Image) -> ModelRecord:
    """A training image was built, or found to be up to date."""
    return record.model_copy(update={"image": image})


def submitted(record: ModelRecord, pending: PendingRun) -> ModelRecord:
    """A run was handed to the platform."""
    return record.model_copy(update={"pending": pending})


def ended_without_model(record: ModelRecord) -> ModelRecord:
    """The run under way failed or was cancelled: the model is what it was before."""
    return record.model_copy(update={"pending": None})


def trained(
    record: ModelRecord,
    *,
    artifact: Artifact,
    hyperparameters: Hyperparameters,
    metrics: Mapping[str, Metric],
    run: RunHandle,
    now: datetime,
) -> ModelRecord:
    """A training succeeded; the model's revision is now the artifact's."""
    return _advanced(
        record.model_copy(
            update={
                "state": ModelState.TRAINED,
                "artifact": artifact,
                "hyperparameters": dict(hyperparameters),
                "metrics": dict(metrics),
                "run": run,
                "trials": (),
                "pending": None,
            }
        ),
        "train",
        revision=artifact.revision,
        now=now,
        detail={"uri": artifact.uri},
    )


def tuned(
    record: ModelRecord,
    *,
    artifact: Artifact,
    hyperparameters: Hyperparameters,
    metrics: Mapping[str, Metric],
    run: RunHandle,
    trials: tuple[Trial, ...],
    now: datetime,
) -> ModelRecord:
    """A tuning succeeded; the best trial's artifact and hyperparameters are the model's."""
    return _advanced(
        record.model_copy(
            update={
                "state": ModelState.TUNED,
                "artifact": artifact,
                "hyperparameters": dict(hyperparameters),
                "metrics": dict(metrics),
                "run": run,
                "trials": trials,
                "pending": None,
            }
        ),
        "tune",
        revision=artifact.revision,
        now=now,
        detail={"uri": artifact.uri, "trials": len(trials)},
    )


def deployed(
    record: ModelRecord,
    *,
    revision: str,
    now: datetime,
    uri: str | None = None,
    bundles: str | None = None,
    replace: bool = False,
    resources: Resources | None = None,
    autoscale: int = 2,
    serving_config: Mapping[str, Any] | None = None,
) -> ModelRecord:
    """Deploy the newest artifact, or what is under a URI, as the only revision.

    Args:
        record: The model.
        revision: The revision that it gets.
        now: The time.
        uri: Folder of a saved model instead of the newest artifact.
        bundles: Folder in which the newest artifact is copied, under the revision, to be served
            from there; it is served from where it is if None.
        replace: Whether what is deployed may be replaced.
        resources: What a replica gets.
        autoscale: Target of requests under way per replica, 1 or more.
        serving_config: How it is served; the specification's if None.

    Returns:
        The record with a deployment in phase `serving`.

    Raises:
        ModelValidationException: There is nothing to deploy, or `autoscale` is below 1.
        ModelDeploymentException: Something is deployed and `replace` is not set.
    """
    if record.deployment.phase is not DeploymentPhase.NONE and not replace:
        raise ModelDeploymentException(
            f"Model {record.spec.id!r} is already deployed (phase "
            f"{record.deployment.phase.value}). Pass replace=True to replace it, use "
            f"deploy_canary to try the new revision beside it, or undeploy it first."
        )
    served = _served(
        record,
        revision=revision,
        uri=uri,
        bundles=bundles,
        resources=resources,
        autoscale=autoscale,
        serving_config=serving_config,
    )
    deployment = Deployment(phase=DeploymentPhase.SERVING, baseline=served)
    return _advanced(
        record.model_copy(update={"deployment": deployment}),
        "deploy",
        revision=revision,
        now=now,
        detail={"uri": served.uri},
    )


def canaried(
    record: ModelRecord,
    *,
    percentage: int,
    revision: str,
    now: datetime,
    uri: str | None = None,
    bundles: str | None = None,
    resources: Resources | None = None,
    autoscale: int | None = None,
    serving_config: Mapping[str, Any] | None = None,
) -> ModelRecord:
    """Serve a second revision beside the baseline, or change its share of the requests.

    With a canary deployed, the same artifact (or the same `uri`, or none given and nothing newer
    trained) changes the percentage only; a newer one replaces the canary.

    Args:
        record: The model.
        percentage: Share of the requests for the canary, 1 to 99.
        revision: The revision that the model gets.
        now: The time.
        uri: Folder of a saved model instead of the newest artifact.
        bundles: As for `deployed`.
        resources: What a replica of a new canary gets; as the baseline if None.
        autoscale: Of a new canary; as the baseline if None.
        serving_config: Of a new canary; as the specification if None.

    Returns:
        The record with a deployment in phase `canary`.

    Raises:
        ModelValidationException: The percentage is out of range, or there is nothing to deploy.
        ModelDeploymentException: Nothing is deployed, or the artifact is the one that serves.
    """
    checked_percentage(percentage)
    deployment = record.deployment
    baseline = deployment.baseline
    if baseline is None:
        raise ModelDeploymentException(
            f"Model {record.spec.id!r} is not deployed, so there is no baseline for a canary. "
            f"Call deploy() first."
        )
    canary = deployment.canary
    wanted = uri or (record.artifact.revision if record.artifact else None)
    if canary is None or (wanted is not None and wanted not in (canary.uri, canary.source)):
        if wanted is not None and wanted in (baseline.uri, baseline.source):
            raise ModelDeploymentException(
                f"Model {record.spec.id!r} already serves {wanted} as its baseline. Train or tune "
                f"it again, or give the model_uri of another artifact."
            )
        canary = _served(
            record,
            revision=revision,
            uri=uri,
            bundles=bundles,
            resources=baseline.resources if resources is None else resources,
            autoscale=baseline.autoscale if autoscale is None else autoscale,
            serving_config=serving_config,
        )
    deployment = Deployment(
        phase=DeploymentPhase.CANARY,
        baseline=baseline,
        canary=canary,
        canary_percentage=percentage,
    )
    return _advanced(
        record.model_copy(update={"deployment": deployment}),
        "deploy_canary",
        revision=revision,
        now=now,
        detail={"percentage": percentage, "uri": canary.uri},
    )


def promoted(record: ModelRecord, *, revision: str, now: datetime) -> ModelRecord:
    """The canary takes all requests.

    Raises:
        ModelDeploymentException: There is no canary.
    """
    return _settled(record, _with_canary(record, "promote").canary, "promote", revision, now)


def rolled_back(record: ModelRecord, *, revision: str, now: datetime) -> ModelRecord:
    """The baseline takes all requests again.

    Raises:
        ModelDeploymentException: There is no canary.
    """
    return _settled(record, _with_canary(record, "roll back").baseline, "rollback", revision, now)


def undeployed(record: ModelRecord, *, now: datetime) -> ModelRecord:
    """Nothing is deployed any more; what was trained stays.

    Raises:
        ModelDeploymentException: Nothing is deployed.
    """
    if record.deployment.phase is DeploymentPhase.NONE:
        raise ModelDeploymentException(
            f"Model {record.spec.id!r} is not deployed, so there is nothing to undeploy."
        )
    return _advanced(
        record.model_copy(update={"deployment": Deployment()}),
        "undeploy",
        revision=record.revision,
        now=now,
    )


def observed(record: ModelRecord, deployment: Deployment) -> ModelRecord:
    """Take over what the service says is deployed: the service is the truth about it."""
    return record.model_copy(update={"deployment": deployment})


def evaluated(
    record: ModelRecord,
    *,
    metrics: Mapping[str, float],
    metrics_type: str | MetricsType,
    now: datetime,
    uri: str | None = None,
) -> ModelRecord:
    """Metrics were logged.

    Raises:
        ModelValidationException: A metric is no finite number.
        UnsupportedMetricsTypeException: The type is not known.
    """
    entry = Evaluation(
        metrics=checked(metrics),
        metrics_type=MetricsType.of(metrics_type),
        revision=record.revision,
        at=now,
        uri=uri,
    )
    return record.model_copy(update={"evaluations": (*record.evaluations, entry)})


def with_data(record: ModelRecord, dataset: DataSet) -> ModelRecord:
    """An input data set was logged; one of the same name and version is replaced."""
    others = tuple(
        known
        for known in record.datasets
        if (known.name, known.version) != (dataset.name, dataset.version)
    )
    return record.model_copy(update={"datasets": (*others, dataset)})


def merged(ours: ModelRecord, theirs: ModelRecord) -> ModelRecord:
    """Bring our record and one that another client wrote in the meantime to one.

    What was done by either stays in the history; logged data sets and evaluations are united. In
    everything else ours wins, because it is the newer write and the service, not this record, is
    the truth about what is deployed.
    """
    # An action and the revision that it made tell an entry from all others, so that two processes
    # which finish the same run leave one entry.
    history = {(e.action, e.revision): e for e in (*ours.history, *theirs.history)}
    evaluations = {
        (e.at, e.metrics_type.value, e.revision): e
        for e in (*theirs.evaluations, *ours.evaluations)
    }
    datasets = {(d.name, d.version): d for d in (*theirs.datasets, *ours.datasets)}
    return ours.model_copy(
        update={
            "history": tuple(sorted(history.values(), key=lambda e: (e.at, e.action))),
            "evaluations": tuple(evaluations[key] for key in sorted(evaluations)),
            "datasets": tuple(datasets.values()),
        }
    )


def checked_percentage(percentage: int) -> int:
    """Check a canary's share.

    Raises:
        ModelValidationException: It is no whole number from 1 to 99.
    """
    if (
        isinstance(percentage, bool)
        or not isinstance(percentage, int)
        or not MIN_PERCENTAGE <= percentage <= MAX_PERCENTAGE
    ):
        raise ModelValidationException(
            f"A canary's share of the traffic is a whole number from {MIN_PERCENTAGE} to "
            f"{MAX_PERCENTAGE}, not {percentage!r}. To give it all requests, promote it; to give "
            f"it none, roll it back."
        )
    return percentage


def _with_canary(record: ModelRecord, verb: str) -> Deployment:
    if record.deployment.phase is not DeploymentPhase.CANARY:
        raise ModelDeploymentException(
            f"Model {record.spec.id!r} has no canary to {verb} (phase "
            f"{record.deployment.phase.value}). Call deploy_canary() first."
        )
    return record.deployment


def _settled(
    record: ModelRecord, served: Served | None, action: str, revision: str, now: datetime
) -> ModelRecord:
    deployment = Deployment(phase=DeploymentPhase.SERVING, baseline=served)
    return _advanced(
        record.model_copy(update={"deployment": deployment}),
        action,
        revision=revision,
        now=now,
        detail={"serves": served.revision} if served else {},
    )


def _served(
    record: ModelRecord,
    *,
    revision: str,
    uri: str | None,
    bundles: str | None,
    resources: Resources | None,
    autoscale: int,
    serving_config: Mapping[str, Any] | None,
) -> Served:
    if isinstance(autoscale, bool) or not isinstance(autoscale, int) or autoscale < 1:
        raise ModelValidationException(
            f"autoscale is the number of requests under way per replica to aim at; give 1 or "
            f"more, not {autoscale!r}."
        )
    if uri is not None and not uri.strip():
        raise ModelValidationException(
            "model_uri is blank. Give the URI of a saved model's folder."
        )
    if uri is None and record.artifact is None:
        raise ModelValidationException(
            f"Model {record.spec.id!r} is untrained, so there is nothing to deploy. Train or tune "
            f"it first, give the model_uri of a saved model, or continue an earlier session with "
            f"Model.load({record.spec.id!r})."
        )
    from_artifact = record.artifact if uri is None else None
    if from_artifact:
        uri = f"{bundles}/{revision}" if bundles else from_artifact.uri
    return Served(
        revision=revision,
        uri=str(uri),
        source=from_artifact.revision if from_artifact else None,
        resources=resources or Resources(),
        autoscale=autoscale,
        serving_config=dict(
            record.spec.serving_config if serving_config is None else serving_config
        ),
        metrics={name: m.latest for name, m in record.metrics.items()} if from_artifact else {},
    )


def _advanced(
    record: ModelRecord,
    action: str,
    *,
    revision: str,
    now: datetime,
    detail: Mapping[str, Scalar] | None = None,
) -> ModelRecord:
    entry = HistoryEntry(
        action=action,
        revision=revision,
        at=now,
        state=record.state,
        phase=record.deployment.phase,
        detail=dict(detail or {}),
    )
    return record.model_copy(update={"revision": revision, "history": (*record.history, entry)})
