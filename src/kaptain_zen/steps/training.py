"""Steps that build, train, tune and evaluate a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from zenml import step
from zenml.client import Client
from zenml.types import HTMLString

from kaptain_zen.exceptions import ModelValidationException, WorkloadDeploymentError
from kaptain_zen.flavors.local import KaptainLocalTunerConfig
from kaptain_zen.hyperparameter.domains import AnyDomain
from kaptain_zen.model.models import Model
from kaptain_zen.model.record import Scalar
from kaptain_zen.model.resources import Resources
from kaptain_zen.steps.context import (
    ModelInput,
    ModelOutput,
    find_base_dir,
    note_model,
    open_model,
    run_noter,
)
from kaptain_zen.steps.foresight import prepare_serving

_PARALLEL_TRIALS = 2


@step(enable_cache=False)
def build_model(
    model: ModelInput, base_dir: str | None = None, verbose: bool | None = None
) -> ModelOutput:
    """Build the training image, unless the same content was built under its name before.

    Training and tuning do this by themselves; the step makes it visible in a pipeline.

    Args:
        model: Specification or record.
        base_dir: Folder that the model's files are relative to; ZenML's source root if it holds
            the main file, else the working directory.
        verbose: Whether to print the build's log.

    Returns:
        The record, with the image.

    Raises:
        ModelValidationException: A file of the model is missing.
        ImageBuildException: The build failed.
    """
    opened = open_model(model, find_base_dir(model, base_dir))
    opened.build(verbose)
    return note_model(opened)


@step(enable_cache=False)
def train_model(
    model: ModelInput,
    hyperparameters: dict[str, Scalar] | None = None,
    args: list[str] | None = None,
    kwargs: dict[str, str] | None = None,
    workers: int = 2,
    gpus: int | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    resources: Resources | None = None,
    timeout: float | None = None,
    base_dir: str | None = None,
    verbose: bool | None = None,
) -> ModelOutput:
    """Train a model; the handle of the run stands in the step's metadata as soon as there is one.

    Args:
        model: Specification or record.
        hyperparameters: Handed to the script as `--name value`.
        args: Positional arguments of the script.
        kwargs: Keyword arguments of the script, handed over as `--key=value`.
        workers: Parallel workers.
        gpus: GPUs per worker.
        cpu: Cores per worker.
        memory: Memory per worker.
        resources: Requests and limits apart; not together with the three before.
        timeout: Seconds that it may take; a week if not given.
        base_dir: Folder that the model's files are relative to; ZenML's source root if it holds
            the main file, else the working directory.
        verbose: Whether to print what the workers print.

    Returns:
        The record, trained.

    Raises:
        ModelValidationException: The request is wrong.
        WorkloadDeploymentError: The training failed; the reason is in the message.
    """
    opened = open_model(model, find_base_dir(model, base_dir))
    prepare_serving(opened)
    succeeded = opened.train(
        *(args or ()),
        hyperparameters=hyperparameters or {},
        gpus=gpus,
        cpu=cpu,
        memory=memory,
        resources=resources,
        workers=workers,
        verbose=verbose,
        timeout=timeout,
        on_submit=run_noter(),
        **_script_arguments(kwargs, Model.train),
    )
    _require(succeeded, opened)
    return note_model(opened)


@step(enable_cache=False)
def tune_model(
    model: ModelInput,
    hyperparameters: dict[str, AnyDomain],
    objectives: list[str],
    objective_type: str = "maximize",
    objective_goal: float | None = None,
    algorithm: str = "random",
    algorithm_setting: dict[str, Scalar] | None = None,
    trials: int = 16,
    parallel_trials: int | None = None,
    failed_trials: int = 4,
    args: list[str] | None = None,
    kwargs: dict[str, str] | None = None,
    workers: int = 2,
    gpus: int | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    resources: Resources | None = None,
    timeout: float | None = None,
    base_dir: str | None = None,
    verbose: bool | None = None,
) -> tuple[ModelOutput, Annotated[HTMLString, "search_report"]]:
    """Search for the best hyperparameters; its handle stands in the step's metadata at once.

    Args:
        model: Specification or record.
        hyperparameters: The domain of each: `Double`, `Integer`, `Discrete` or `Categorical`.
        objectives: Metrics to look at, the main one first.
        objective_type: `maximize` or `minimize`.
        objective_goal: Value of the main one at which the search may stop.
        algorithm: How it searches; see `Algorithm`.
        algorithm_setting: The algorithm's own settings.
        trials: How many at most.
        parallel_trials: How many at a time; what the stack's tuner says, else 2, if not given.
        failed_trials: The search fails when this many trials have failed.
        args: Positional arguments of the script.
        kwargs: Keyword arguments of the script, handed over as `--key=value`.
        workers: Parallel workers of each trial.
        gpus: GPUs per worker.
        cpu: Cores per worker.
        memory: Memory per worker.
        resources: Requests and limits apart; not together with the three before.
        timeout: Seconds that the search may take; a week if not given.
        base_dir: Folder that the model's files are relative to; ZenML's source root if it holds
            the main file, else the working directory.
        verbose: Whether to print what the trials print.

    Returns:
        The record, tuned, and a picture of the search.

    Raises:
        ModelValidationException: The request is wrong.
        UnsupportedAlgorithmException: The platform has no such algorithm.
        WorkloadDeploymentError: The search failed; the reason is in the message.
    """
    from kaptain_zen.platform.search_report import search_report

    opened = open_model(model, find_base_dir(model, base_dir))
    prepare_serving(opened)
    succeeded = opened.tune(
        *(args or ()),
        hyperparameters=hyperparameters,
        objectives=objectives,
        objective_goal=objective_goal,
        objective_type=objective_type,
        workers=workers,
        gpus=gpus,
        cpu=cpu,
        memory=memory,
        resources=resources,
        trials=trials,
        parallel_trials=parallel_trials or _parallel_trials(),
        failed_trials=failed_trials,
        algorithm=algorithm,
        algorithm_setting=algorithm_setting,
        verbose=verbose,
        timeout=timeout,
        on_submit=run_noter(),
        **_script_arguments(kwargs, Model.tune),
    )
    _require(succeeded, opened)
    status = opened.tuning
    if status is None:
        raise WorkloadDeploymentError(f"The search of {opened.id!r} ended without a status.")
    report = search_report(
        status,
        objective=objectives[0],
        objective_type=objective_type,
        title=f"Search of {opened.id}",
    )
    return note_model(opened, best_trial=status.best or ""), HTMLString(report)


@step(enable_cache=False)
def log_model_metrics(
    model: ModelInput,
    metrics: dict[str, float],
    metrics_type: str = "testing",
    uri: str | None = None,
) -> ModelOutput:
    """Note evaluation metrics of a model.

    Args:
        model: Specification or record.
        metrics: Numbers by name.
        metrics_type: `training`, `testing`, `validation` or `production`.
        uri: Where more about them is.

    Returns:
        The record, with the evaluation.

    Raises:
        ModelValidationException: A metric is no finite number.
        UnsupportedMetricsTypeException: The type is not known.
    """
    opened = open_model(model)
    opened.log_metrics(metrics, metrics_type, uri)
    evaluation = opened.record.evaluations[-1]
    return note_model(opened, **{f"{metrics_type}_metrics": dict(evaluation.metrics)})


def _require(succeeded: bool, model: Model) -> None:
    """Make a failed workload a failed step."""
    if not succeeded:
        raise WorkloadDeploymentError(model.last_error or f"Model {model.id!r}: the run failed.")


def _script_arguments(
    kwargs: Mapping[str, str] | None, action: Callable[..., Any]
) -> dict[str, Any]:
    """Refuse arguments of the script that would be taken for arguments of the action."""
    taken = set(inspect.signature(action).parameters).intersection(kwargs or {})
    if taken:
        raise ModelValidationException(
            f"The script's argument {min(taken)!r} has the name of an argument of "
            f"Model.{action.__name__}. Hand it over in args, as '--{min(taken)}=value'."
        )
    return dict(kwargs or {})


def _parallel_trials() -> int:
    """How many trials the stack's tuner runs at a time."""
    for operator in (Client().active_stack.step_operators or {}).values():
        config = operator.config
        if isinstance(config, KaptainLocalTunerConfig) and config.parallel_trials:
            return config.parallel_trials
    return _PARALLEL_TRIALS
