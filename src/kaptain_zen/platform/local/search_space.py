"""From a model's domains to what a search draws from, and back to values of the domain's type.

Nothing here knows Optuna: a domain becomes an `Axis` of plain numbers or choices, and what the
optimiser drew on an axis is turned back into a value that lies in the domain, exactly.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, prod
from typing import Literal

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.hyperparameter.domains import (
    AnyDomain,
    Categorical,
    Discrete,
    Double,
    Integer,
    Value,
)

MAX_WHOLE = 2**52
"""Above it, floats, which optimisers use, have nothing between two whole numbers."""
_NARROW = 1 + 1e-6
"""Where the ends of a range are this close, its logarithms may be one and the same float, and the
logarithmic scale is a straight line anyway."""
MAX_GRID = 2**62


@dataclass(frozen=True)
class Axis:
    """What an optimiser draws one hyperparameter from.

    Attributes:
        kind: Whether it draws a real number, a whole number, or one of `choices`.
        low: Smallest number.
        high: Largest number.
        step: Distance of whole numbers.
        log: Whether it draws on a logarithmic scale.
        choices: What to choose from.
    """

    kind: Literal["real", "whole", "choice"]
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    log: bool = False
    choices: tuple[Value, ...] = ()


def axis(domain: AnyDomain) -> Axis:
    """The axis of a domain.

    A `Double` with a step is drawn as the number of its step, so that no rounding of the optimiser
    can lead to a value between two steps or past the end.
    """
    match domain:
        case Double(step=None):
            return Axis("real", low=domain.min, high=domain.max, log=_curved(domain))
        case Double():
            return Axis("whole", low=0, high=_Steps(domain).count - 1)
        case Integer():
            step = domain.step or 1
            high = domain.max - (domain.max - domain.min) % step
            return Axis("whole", low=domain.min, high=high, step=step, log=_curved(domain))
        case Discrete() | Categorical():
            return Axis("choice", choices=domain.values)


def value_at(domain: AnyDomain, drawn: float | str) -> Value:
    """Turn what was drawn on a domain's axis into the domain's value, of the domain's type."""
    match domain:
        case Double(step=None):
            return min(max(float(drawn), domain.min), domain.max)
        case Double():
            return _Steps(domain)[int(drawn)]
        case Integer():
            return int(drawn)
        case Discrete():
            return float(drawn)
        case Categorical():
            return str(drawn)


def check_space(domains: Mapping[str, AnyDomain]) -> None:
    """Say whether an optimiser can draw from the domains.

    Raises:
        ModelValidationException: A range is so wide that floats cannot tell its values apart.
    """
    for name, domain in domains.items():
        if not name.strip():
            raise ModelValidationException("A hyperparameter needs a name; one of them is blank.")
        found = axis(domain)
        if found.kind == "real" and not isfinite(found.high - found.low):
            raise ModelValidationException(
                f"Hyperparameter {name!r}: the range from {found.low} to {found.high} is wider "
                f"than a float can hold. Narrow it, or search its logarithm (log=True)."
            )
        if found.kind == "whole" and max(abs(found.low), abs(found.high)) > MAX_WHOLE:
            raise ModelValidationException(
                f"Hyperparameter {name!r}: the range from {domain_text(domain)} has more whole "
                f"numbers or steps than can be told apart (2**52). Narrow it, take a larger step, "
                f"or use a Double without a step."
            )


def domain_text(domain: AnyDomain) -> str:
    """A domain's range for a message: `0 to 10`."""
    if isinstance(domain, (Double, Integer)):
        step = f" in steps of {domain.step}" if domain.step is not None else ""
        return f"{domain.min} to {domain.max}{step}"
    return ", ".join(str(value) for value in domain.values)


class Grid:
    """All combinations of the values of several domains, by number; none is kept in memory.

    Attributes:
        size: How many there are.

    Raises:
        ModelValidationException: A domain has no finite number of values, or there are too many
            combinations to count.
    """

    def __init__(self, domains: Mapping[str, AnyDomain]) -> None:
        self._domains = dict(domains)
        self._sizes = {name: _size(name, domain) for name, domain in domains.items()}
        self.size = prod(self._sizes.values())
        if self.size > MAX_GRID:
            raise ModelValidationException(
                "The grid has more than 2**62 combinations. Take larger steps or fewer values, "
                "or another algorithm, such as 'random'."
            )

    def drawn(self, number: int) -> dict[str, Value]:
        """What an optimiser would draw on each axis for the combination of a number from 0.

        The last hyperparameter changes fastest; `value_at` turns what is drawn into values.
        """
        point: dict[str, Value] = {}
        for name, domain in reversed(self._domains.items()):
            number, place = divmod(number, self._sizes[name])
            point[name] = _drawn_at(domain, place)
        return {name: point[name] for name in self._domains}

    def pick(self, trials: int, *, seed: int = 0) -> Sequence[int]:
        """Numbers of the combinations to try.

        Args:
            trials: How many at most.
            seed: Of the choice, where there are more combinations than trials.

        Returns:
            All numbers in order when the trials suffice for them; otherwise some, spread over the
            whole grid, and the same ones for the same seed.
        """
        if trials >= self.size:
            return range(self.size)
        # No secret hangs on it: a seeded choice that every process repeats is what is wanted.
        return random.Random(seed).sample(range(self.size), trials)  # noqa: S311


class _Steps:
    """The values of a `Double` with a step.

    They are computed from the decimal texts of its numbers, so that steps of 0.1 from 0 lead to 0.3
    and not to 0.30000000000000004, and none of them is above the maximum.
    """

    def __init__(self, domain: Double) -> None:
        self._low, high, self._step = (
            Fraction(repr(number)) for number in (domain.min, domain.max, domain.step)
        )
        self.count = int((high - self._low) / self._step) + 1

    def __getitem__(self, place: int) -> float:
        return float(self._low + place * self._step)


def _curved(domain: Double | Integer) -> bool:
    return domain.log and domain.max / domain.min > _NARROW


def _size(name: str, domain: AnyDomain) -> int:
    """How many values a domain has."""
    match domain:
        case Double(step=None):
            raise ModelValidationException(
                f"Hyperparameter {name!r} is a Double without a step, so a grid over it has no "
                f"end. Give it a step, for example Double({domain.min}, {domain.max}, "
                f"step={(domain.max - domain.min) / 4:g}), list its values with Discrete([...]), "
                f"or choose another algorithm, such as 'random'."
            )
        case Double():
            return _Steps(domain).count
        case Integer():
            return (domain.max - domain.min) // (domain.step or 1) + 1
        case Discrete() | Categorical():
            return len(domain.values)


def _drawn_at(domain: AnyDomain, place: int) -> Value:
    match domain:
        case Double():
            return place
        case Integer():
            return domain.min + place * (domain.step or 1)
        case Discrete() | Categorical():
            return domain.values[place]
