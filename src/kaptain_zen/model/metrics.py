"""Metrics: what a training prints, what a search maximises, what a person logs.

The line format is the one that Katib's StdOut collector reads by default: `name=value`, several to
a line, whitespace around `=` allowed
(https://www.kubeflow.org/docs/components/katib/user-guides/metrics-collector/).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from kaptain_zen.exceptions import ModelValidationException, UnsupportedMetricsTypeException
from kaptain_zen.model.base import Frozen

_LINE = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(?:\.\d+)?(?:[Ee][+-]?\d+)?)(?![\w.])")


class MetricsType(Enum):
    """Where an evaluation comes from."""

    TRAINING = "training"
    TESTING = "testing"
    VALIDATION = "validation"
    PRODUCTION = "production"

    @staticmethod
    def of(metrics_type: str | MetricsType) -> MetricsType:
        """Convert a name to a type.

        Args:
            metrics_type: `training`, `testing`, `validation` or `production`.

        Returns:
            The type.

        Raises:
            UnsupportedMetricsTypeException: There is no such type.
        """
        try:
            return MetricsType(
                metrics_type.value
                if isinstance(metrics_type, MetricsType)
                else str(metrics_type).strip().lower()
            )
        except ValueError:
            known = ", ".join(member.value for member in MetricsType)
            raise UnsupportedMetricsTypeException(
                f"Metrics type {metrics_type!r} is not known. Use one of: {known}."
            ) from None


class Metric(Frozen):
    """One metric over the life of a run.

    Attributes:
        latest: The last value seen.
        min: The smallest value seen.
        max: The largest value seen.
    """

    latest: float
    min: float
    max: float

    def __getitem__(self, key: str) -> float:
        """`metrics["accuracy"]["latest"]`, the way the Kaptain SDK has it."""
        if key not in ("latest", "min", "max"):
            raise KeyError(key)
        return float(getattr(self, key))

    def observe(self, value: float) -> Metric:
        """Add a newer value."""
        return Metric(latest=value, min=min(self.min, value), max=max(self.max, value))

    @classmethod
    def first(cls, value: float) -> Metric:
        """A metric of one value."""
        return cls(latest=value, min=value, max=value)


def parse_line(line: str) -> dict[str, float]:
    """Read the metrics of one line of output.

    Args:
        line: For example `epoch=3 accuracy=0.93`.

    Returns:
        Finite values by name; empty when the line holds none.
    """
    found: dict[str, float] = {}
    for name, text in _LINE.findall(line):
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value):
            found[name] = value
    return found


def observe(metrics: Mapping[str, Metric], values: Mapping[str, float]) -> dict[str, Metric]:
    """Add newer values to metrics.

    Args:
        metrics: What was seen so far.
        values: Newer values by name; those that are not finite are left out.

    Returns:
        New metrics; the argument is not changed.
    """
    result = dict(metrics)
    for name, value in values.items():
        if math.isfinite(value):
            result[name] = result[name].observe(value) if name in result else Metric.first(value)
    return result


def summarise(lines: Iterable[str]) -> dict[str, Metric]:
    """Read the metrics of a whole log."""
    result: dict[str, Metric] = {}
    for line in lines:
        values = parse_line(line)
        if values:
            result = observe(result, values)
    return result


def checked(metrics: Mapping[Any, Any]) -> dict[str, float]:
    """Check metrics that a person gives.

    Args:
        metrics: Numbers by name.

    Returns:
        The same as plain floats.

    Raises:
        ModelValidationException: There are none, a name is blank, or a value is no finite number.
    """
    if not isinstance(metrics, Mapping) or not metrics:
        raise ModelValidationException(
            "No metrics were given. Give a mapping such as {'accuracy': 0.97}."
        )
    result: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or not name.strip():
            raise ModelValidationException(f"A metric needs a name, not {name!r}.")
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, (bool, str)) or not math.isfinite(number):
            raise ModelValidationException(
                f"Metric {name!r} is {value!r}; it must be a finite number."
            )
        result[name] = number
    return result
