"""Checks of what a person hands to `train` and `tune`, before anything is touched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.hyperparameter.domains import Domain
from kaptain_zen.model.record import Hyperparameters


def checked_hyperparameters(values: Any) -> Hyperparameters:
    """Check the static values of a training.

    Raises:
        ModelValidationException: They are no mapping of names to finite scalars.
    """
    _named(values)
    for name, value in values.items():
        if isinstance(value, Domain):
            raise ModelValidationException(
                f"Hyperparameter {name!r} of a training is a domain. Give train() a value, or "
                f"call tune() to search the domain."
            )
        if not isinstance(value, (bool, int, float, str)) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise ModelValidationException(
                f"Hyperparameter {name!r} is {value!r}; it must be a string, a bool or a finite "
                f"number."
            )
    return dict(values)


def checked_domains(values: Any) -> dict[str, Domain]:
    """Check the domains of a search.

    Raises:
        ModelValidationException: There are none, or one is no domain.
    """
    _named(values)
    if not values:
        raise ModelValidationException(
            "There is nothing to tune: give a domain for at least one hyperparameter, such as "
            "{'lr': Double(0.001, 0.1)}."
        )
    for name, value in values.items():
        if not isinstance(value, Domain):
            raise ModelValidationException(
                f"Hyperparameter {name!r} is {value!r}; a search needs a domain: Double, Integer, "
                f"Discrete or Categorical. Hand fixed values over as keyword arguments."
            )
    return dict(values)


def checked_objectives(objectives: Any) -> tuple[str, ...]:
    """Check the names of a search's objectives.

    Raises:
        ModelValidationException: There are none, or one is blank or there twice.
    """
    if isinstance(objectives, str) or not all(
        isinstance(name, str) and name.strip() for name in objectives or [None]
    ):
        raise ModelValidationException(
            f"objectives must be a list of metric names, the main one first, not {objectives!r}."
        )
    if len(set(objectives)) != len(objectives):
        raise ModelValidationException(f"An objective is named twice: {objectives!r}.")
    return tuple(objectives)


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Keyword arguments as the script will see them."""
    return {name: str(value) for name, value in values.items()}


def _named(values: Any) -> None:
    if not isinstance(values, Mapping):
        raise ModelValidationException(
            f"hyperparameters must be a mapping of names to values, not {values!r}."
        )
    for name in values:
        if not isinstance(name, str) or not name.strip("- "):
            raise ModelValidationException(f"A hyperparameter needs a name, not {name!r}.")
