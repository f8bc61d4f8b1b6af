"""Steps that deploy a model, try a revision beside it, and ask for predictions."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from zenml import log_metadata, step

from kaptain_zen.exceptions import ModelDeploymentException
from kaptain_zen.model.models import Model
from kaptain_zen.model.record import ModelRecord
from kaptain_zen.model.resources import Resources
from kaptain_zen.steps.context import (
    ModelInput,
    ModelOutput,
    ServiceAction,
    note_model,
    open_model,
    publish,
)
from kaptain_zen.steps.decision import decide, deployed_metric, metric_of

_TIMEOUT = 300.0
_log = logging.getLogger("kaptain_zen")


@step(enable_cache=False)
def deployment_trigger(
    model: ModelInput,
    metric: str,
    min_value: float | None = None,
    max_value: float | None = None,
    better: Literal["higher", "lower"] | None = None,
    min_improvement: float = 0.0,
) -> Annotated[bool, "deploy"]:
    """Decide by a metric whether a model is to be deployed.

    Args:
        model: Specification or record.
        metric: Its name: of the newest evaluation of this revision, else of its training.
        min_value: The least that is good enough.
        max_value: The most that is good enough.
        better: Compare with what is deployed: whether a `higher` or a `lower` value is better.
            When nothing is deployed, or the metric of what is deployed is not known, the
            comparison counts as passed.
        min_improvement: How much better than what is deployed it must be; an equal one never is.

    Returns:
        The decision, for `deploy_model`.

    Raises:
        ModelValidationException: The model has no such metric, or there is nothing to decide by.
    """
    opened = open_model(model)
    deployed = None
    if better is not None:
        service = opened.service()
        deployed = deployed_metric(service.record, opened.record, metric) if service else None
        if service and deployed is None:
            _log.warning("What is deployed of %s has no metric %r.", opened.id, metric)
    decision = decide(
        metric_of(opened.record, metric),
        metric=metric,
        min_value=min_value,
        max_value=max_value,
        better=better,
        deployed=deployed,
        min_improvement=min_improvement,
    )
    _log.info("%s %s", "Deploying:" if decision.deploy else "Not deploying:", decision.reason)
    noted: dict[str, Any] = {
        "deploy": decision.deploy,
        "reason": decision.reason,
        "metric": metric,
        "value": decision.value,
    }
    if decision.deployed is not None:
        noted["deployed_value"] = decision.deployed
    log_metadata({"kaptain_decision": noted})
    return decision.deploy


@step(enable_cache=False)
def deploy_model(
    model: ModelInput,
    deploy: bool = True,
    model_uri: str | None = None,
    autoscale: int = 2,
    gpus: int | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    resources: Resources | None = None,
    replace: bool = True,
    serving_config: dict[str, Any] | None = None,
    timeout: float = _TIMEOUT,
) -> ModelOutput:
    """Serve the newest artifact of a model, or what is under a URI.

    Run again, it replaces what is deployed in place: the service keeps its URL and its id in ZenML,
    and no request is dropped.

    Args:
        model: Specification or record.
        deploy: The decision; when it is False, nothing happens and what is deployed stays.
        model_uri: Folder of a saved model instead of the newest artifact.
        autoscale: Target of requests under way per replica.
        gpus: GPUs per replica.
        cpu: Cores per replica.
        memory: Memory per replica.
        resources: Requests and limits apart; not together with the three before.
        replace: Whether what is deployed may be replaced.
        serving_config: How it is served, over what the model's specification says.
        timeout: Seconds until it must answer.

    Returns:
        The record, with what is deployed.

    Raises:
        ModelValidationException: The model is untrained, or the request is wrong.
        ModelDeploymentException: It does not answer, or something is deployed and may not be
            replaced.
    """
    opened = open_model(model)
    if not deploy:
        _log.info("Model %s is not deployed: the decision was against it.", opened.id)
        return note_model(opened)
    _configure(opened, serving_config)
    succeeded = opened.deploy(
        model_uri,
        autoscale=autoscale,
        gpus=gpus,
        cpu=cpu,
        memory=memory,
        resources=resources,
        replace=replace,
        timeout=timeout,
    )
    if not succeeded:
        raise ModelDeploymentException(opened.last_error or f"{opened.id!r} was not deployed.")
    return _noted(opened, "deploy")


@step(enable_cache=False)
def deploy_canary(
    model: ModelInput,
    percentage: int,
    model_uri: str | None = None,
    serving_config: dict[str, Any] | None = None,
    timeout: float = _TIMEOUT,
) -> ModelOutput:
    """Serve the newest artifact beside what is deployed, or change its share of the requests.

    Args:
        model: Specification or record.
        percentage: Share of the requests for the canary, 1 to 99.
        model_uri: Folder of a saved model instead of the newest artifact.
        serving_config: How the canary is served, over what the model's specification says.
        timeout: Seconds until it must answer.

    Returns:
        The record, with what is deployed.

    Raises:
        ModelValidationException: The percentage is out of range, or there is nothing to serve.
        ModelDeploymentException: Nothing is deployed, or the canary did not start.
    """
    opened = open_model(model)
    _configure(opened, serving_config)
    opened.deploy_canary(percentage, model_uri, timeout=timeout)
    return _noted(opened, "canary")


@step(enable_cache=False)
def promote_canary(model: ModelInput, promote: bool = True) -> ModelOutput:
    """Give the canary all requests.

    Args:
        model: Specification or record.
        promote: The decision; when it is False, nothing happens.

    Returns:
        The record, with what is deployed.

    Raises:
        ModelDeploymentException: There is no canary.
    """
    opened = open_model(model)
    if promote:
        opened.promote_canary()
    return _noted(opened, "promote")


@step(enable_cache=False)
def rollback_canary(model: ModelInput, rollback: bool = True) -> ModelOutput:
    """Remove the canary and give the baseline all requests.

    Args:
        model: Specification or record.
        rollback: The decision; when it is False, nothing happens.

    Returns:
        The record, with what is deployed.

    Raises:
        ModelDeploymentException: There is no canary.
    """
    opened = open_model(model)
    if rollback:
        opened.rollback_canary()
    return _noted(opened, "rollback")


@step(enable_cache=False)
def undeploy_model(model: ModelInput) -> ModelOutput:
    """Remove a model's service, canary and all; what was trained stays.

    Args:
        model: Specification or record.

    Returns:
        The record.

    Raises:
        ModelDeploymentException: Nothing is deployed.
    """
    opened = open_model(model)
    opened.undeploy()
    return _noted(opened, "undeploy")


@step(enable_cache=False)
def predict(model: ModelInput, inputs: Any, timeout: float = 30.0) -> Annotated[Any, "predictions"]:
    """Ask a deployed model for predictions.

    Args:
        model: Specification or record.
        inputs: A numpy array, a pandas DataFrame, nested lists of numbers, or a complete request of
            the Open Inference Protocol as a dict; one row per sample.
        timeout: Seconds to wait for the answer.

    Returns:
        A numpy array; for a request that was a dict, the response as a dict.

    Raises:
        ModelDeploymentException: Nothing is deployed.
        PredictionError: The model did not answer with a prediction.
    """
    return open_model(model).predict(inputs, timeout=timeout)


def _configure(model: Model, serving_config: dict[str, Any] | None) -> None:
    if serving_config:
        model.serving_config = {**model.serving_config, **serving_config}


def _noted(model: Model, action: ServiceAction) -> ModelRecord:
    """Note what is deployed, with ZenML's id of the service."""
    service_id = publish(model, action=action)
    return note_model(model, **({"service_id": str(service_id)} if service_id else {}))
