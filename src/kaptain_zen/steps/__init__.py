"""Reusable ZenML steps: from a model's description to predictions of what is deployed.

Every step takes a `ModelSpec`, or the `ModelRecord` that an earlier step returned, and works on the
platform of the active stack. Steps with side effects are never cached.

Example:
    >>> from zenml import pipeline
    >>> @pipeline(enable_cache=False)
    ... def digits() -> None:
    ...     record = train_model(spec, hyperparameters={"gamma": 0.001})
    ...     good = deployment_trigger(record, metric="accuracy", min_value=0.9, better="higher")
    ...     deploy_model(record, deploy=good)
"""

from kaptain_zen.steps.serving import (
    deploy_canary,
    deploy_model,
    deployment_trigger,
    predict,
    promote_canary,
    rollback_canary,
    undeploy_model,
)
from kaptain_zen.steps.training import build_model, log_model_metrics, train_model, tune_model

__all__ = [
    "build_model",
    "deploy_canary",
    "deploy_model",
    "deployment_trigger",
    "log_model_metrics",
    "predict",
    "promote_canary",
    "rollback_canary",
    "train_model",
    "tune_model",
    "undeploy_model",
]
