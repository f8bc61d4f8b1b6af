"""Whether a model is good enough to be deployed: pure, so that it can be tested like arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.model.record import ModelRecord

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Decision:
    """Whether to deploy, and why.

    Attributes:
        deploy: The decision.
        reason: A sentence for people.
        value: The metric of the new model.
        deployed: The metric of what is deployed, when it was looked at and is known.
    """

    deploy: bool
    reason: str
    value: float
    deployed: float | None = None


def metric_of(record: ModelRecord, name: str) -> float:
    """The value of a metric of a model's newest artifact: as evaluated, else as trained.

    Raises:
        ModelValidationException: The model has no such metric.
    """
    revisions = {record.revision, record.artifact.revision if record.artifact else None}
    evaluated = _evaluated(name, revisions, record)
    if evaluated is not None:
        return evaluated
    if name in record.metrics:
        return record.metrics[name].latest
    known = sorted({*record.metrics, *(n for e in record.evaluations for n in e.metrics)})
    raise ModelValidationException(
        f"Model {record.spec.id!r} has no metric {name!r} of its newest revision; it has: "
        f"{', '.join(known) or 'none'}. Print it in the training script as `{name}=<number>`, or "
        f"log it with log_model_metrics."
    )


def deployed_metric(deployed: ModelRecord, newest: ModelRecord, name: str) -> float | None:
    """The value of a metric of what is deployed as the baseline.

    Args:
        deployed: The record of the service.
        newest: The model's newest record, which may know more evaluations.
        name: Of the metric.

    Returns:
        The value; None if nothing is deployed, or nobody knows.
    """
    baseline = deployed.deployment.baseline
    if baseline is None:
        return None
    evaluated = _evaluated(name, {baseline.revision, baseline.source}, deployed, newest)
    return baseline.metrics.get(name) if evaluated is None else evaluated


def _evaluated(name: str, revisions: set[str | None], *records: ModelRecord) -> float | None:
    """The newest evaluation of one of some revisions."""
    found = [
        (evaluation.at, evaluation.metrics[name])
        for record in records
        for evaluation in record.evaluations
        if evaluation.revision in revisions and name in evaluation.metrics
    ]
    return max(found)[1] if found else None


def decide(
    value: float,
    *,
    metric: str,
    min_value: float | None = None,
    max_value: float | None = None,
    better: Direction | None = None,
    deployed: float | None = None,
    min_improvement: float = 0.0,
) -> Decision:
    """Decide whether to deploy a model.

    Args:
        value: The metric of the new model.
        metric: Its name.
        min_value: The least that is good enough.
        max_value: The most that is good enough.
        better: Compare with what is deployed: whether a higher or a lower value is better.
        deployed: The metric of what is deployed; None if nothing is, or if it is not known.
        min_improvement: How much better than what is deployed it must be. With 0 it must be better
            at all: an equal one is not deployed.

    Returns:
        The decision.

    Raises:
        ModelValidationException: There is nothing to decide by, or a limit makes no sense.
    """
    _check(metric, min_value, max_value, better, min_improvement)
    if min_value is not None and value < min_value:
        return Decision(False, f"{metric} {value:g} is below {min_value:g}.", value, deployed)
    if max_value is not None and value > max_value:
        return Decision(False, f"{metric} {value:g} is above {max_value:g}.", value, deployed)
    if better is None:
        return Decision(True, f"{metric} {value:g} is good enough.", value)
    if deployed is None:
        return Decision(
            True, f"{metric} is {value:g}, and nothing is deployed to compare with.", value
        )
    gain = value - deployed if better == "higher" else deployed - value
    good = gain > 0 and gain >= min_improvement
    comparison = "better" if good else "not better enough" if gain > 0 else "no better"
    return Decision(
        good,
        f"{metric} {value:g} is {comparison} than the {deployed:g} of what is deployed.",
        value,
        deployed,
    )


def _check(
    metric: str,
    min_value: float | None,
    max_value: float | None,
    better: Direction | None,
    min_improvement: float,
) -> None:
    if not metric.strip():
        raise ModelValidationException("metric is blank; name the metric to decide by.")
    if better not in (None, "higher", "lower"):
        raise ModelValidationException(
            f"better is {better!r}; give 'higher' or 'lower', or leave it out."
        )
    if min_value is None and max_value is None and better is None:
        raise ModelValidationException(
            "There is nothing to decide by. Give min_value or max_value, or better='higher' (or "
            "'lower') to compare with what is deployed."
        )
    limits = {"min_value": min_value, "max_value": max_value, "min_improvement": min_improvement}
    for name, limit in limits.items():
        if limit is not None and not math.isfinite(limit):
            raise ModelValidationException(f"{name} is {limit!r}; it must be a finite number.")
    if min_value is not None and max_value is not None and min_value > max_value:
        raise ModelValidationException(
            f"min_value {min_value:g} is above max_value {max_value:g}. Swap them."
        )
    if min_improvement < 0:
        raise ModelValidationException(
            f"min_improvement is {min_improvement:g}; it must be 0 or more."
        )
