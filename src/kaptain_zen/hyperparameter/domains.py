"""Domains that a search draws hyperparameters from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kaptain_zen.exceptions import ModelValidationException

Value = int | float | str


class Domain(BaseModel, ABC):
    """Base of all domains; immutable, and checked when it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_post_init(self, _context: Any, /) -> None:
        """Count the kind as given, so that a dump without defaults can be read back."""
        self.model_fields_set.add("kind")

    @abstractmethod
    def parse(self, text: str) -> Value:
        """Turn a value's text, as a search service reports it, into the domain's type."""

    @abstractmethod
    def __contains__(self, value: object) -> bool:
        """Whether the value lies in the domain."""


def _number(value: object, what: str, whole: bool = False) -> Any:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or (whole and value != int(value))
    ):
        kind = "whole number" if whole else "finite number"
        raise ModelValidationException(f"{what} must be a {kind}, not {value!r}.")
    return int(value) if whole else float(value)


def _range(kind: str, low: Any, high: Any, step: Any) -> None:
    if low > high:
        raise ModelValidationException(
            f"{kind}(min={low}, max={high}): min is above max. Swap them."
        )
    if step is not None and step <= 0:
        raise ModelValidationException(f"{kind}(step={step}): a step must be above 0.")


class Double(Domain):
    """A floating-point hyperparameter in [min, max].

    Attributes:
        min: Smallest value.
        max: Largest value.
        step: Distance of neighbouring values; any value if None.
        log: Whether to draw on a logarithmic scale; needs `min` above 0 and no step.
    """

    kind: Literal["double"] = "double"
    min: float
    max: float
    step: float | None = None
    log: bool = False

    def __init__(
        self, min: float, max: float, step: float | None = None, log: bool = False, **_: Any
    ) -> None:
        low, high = _number(min, "Double min"), _number(max, "Double max")
        step = None if step is None else _number(step, "Double step")
        _range("Double", low, high, step)
        if log and (low <= 0 or step is not None):
            raise ModelValidationException(
                f"Double(min={low}, max={high}, log=True): a logarithmic scale needs min above 0 "
                f"and no step."
            )
        values: dict[str, Any] = {"min": low, "max": high, "step": step, "log": log}
        super().__init__(**values)

    def parse(self, text: str) -> float:
        """Turn a value's text into a float."""
        return float(text)

    def __contains__(self, value: object) -> bool:
        """Whether the value lies between min and max."""
        return isinstance(value, (int, float)) and self.min <= value <= self.max


class Integer(Domain):
    """A whole-number hyperparameter in [min, max].

    Attributes:
        min: Smallest value.
        max: Largest value.
        step: Distance of neighbouring values; 1 if None.
        log: Whether to draw on a logarithmic scale; needs `min` above 0 and no step.
    """

    kind: Literal["integer"] = "integer"
    min: int
    max: int
    step: int | None = None
    log: bool = False

    def __init__(
        self, min: int, max: int, step: int | None = None, log: bool = False, **_: Any
    ) -> None:
        low, high = _number(min, "Integer min", whole=True), _number(max, "Integer max", whole=True)
        step = None if step is None else _number(step, "Integer step", whole=True)
        _range("Integer", low, high, step)
        if log and (low <= 0 or step is not None):
            raise ModelValidationException(
                f"Integer(min={low}, max={high}, log=True): a logarithmic scale needs min above 0 "
                f"and no step."
            )
        values: dict[str, Any] = {"min": low, "max": high, "step": step, "log": log}
        super().__init__(**values)

    def parse(self, text: str) -> int:
        """Turn a value's text into an int; `12.0` is accepted, as some services write it."""
        return int(float(text))

    def __contains__(self, value: object) -> bool:
        """Whether the value is whole and lies between min and max."""
        return isinstance(value, int) and self.min <= value <= self.max


class Discrete(Domain):
    """A hyperparameter that takes one of several numbers.

    Attributes:
        values: The numbers.
    """

    kind: Literal["discrete"] = "discrete"
    values: tuple[float, ...]

    def __init__(self, values: Iterable[float], **_: Any) -> None:
        numbers = tuple(_number(v, "A Discrete value") for v in _listed("Discrete", values))
        fields: dict[str, Any] = {"values": numbers}
        super().__init__(**fields)

    def parse(self, text: str) -> float:
        """Turn a value's text into a float."""
        return float(text)

    def __contains__(self, value: object) -> bool:
        """Whether the value is one of the listed ones."""
        return value in self.values


class Categorical(Domain):
    """A hyperparameter that takes one of several words.

    Attributes:
        values: The words.
    """

    kind: Literal["categorical"] = "categorical"
    values: tuple[str, ...]

    def __init__(self, values: Iterable[str], **_: Any) -> None:
        words = _listed("Categorical", values)
        if not all(isinstance(word, str) and word for word in words):
            raise ModelValidationException(
                f"Categorical values must be non-empty strings, not {words!r}."
            )
        fields: dict[str, Any] = {"values": words}
        super().__init__(**fields)

    def parse(self, text: str) -> str:
        """Return the text as it is."""
        return text

    def __contains__(self, value: object) -> bool:
        """Whether the value is one of the listed ones."""
        return value in self.values


AnyDomain = Annotated[Double | Integer | Discrete | Categorical, Field(discriminator="kind")]


def _listed(kind: str, values: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ModelValidationException(f"{kind} needs a list of values, not {values!r}.")
    listed = tuple(values)
    if not listed:
        raise ModelValidationException(f"{kind} has no values: the domain is empty.")
    if len(set(map(repr, listed))) != len(listed):
        raise ModelValidationException(f"{kind} has a value twice: {listed!r}.")
    return listed
