"""From domains to what an optimiser draws from, and back."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.search_support import domains, finite_domains, stepped_doubles

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.hyperparameter.domains import (
    AnyDomain,
    Categorical,
    Discrete,
    Double,
    Integer,
    Value,
)
from kaptain_zen.platform.local.search_space import Grid, axis, check_space, value_at


def points(spaces: dict[str, AnyDomain]) -> list[tuple[Value, ...]]:
    grid = Grid(spaces)
    found = []
    for number in range(grid.size):
        drawn = grid.drawn(number)
        assert list(drawn) == list(spaces)
        found.append(tuple(value_at(spaces[name], drawn[name]) for name in spaces))
    return found


@given(domains(), st.floats(0, 1))
def test_whatever_is_drawn_on_an_axis_lies_in_the_domain(domain: AnyDomain, where: float) -> None:
    line = axis(domain)
    if line.kind == "choice":
        drawn = line.choices[round(where * (len(line.choices) - 1))]
    elif line.kind == "whole":
        steps = int((line.high - line.low) // line.step)
        drawn = int(line.low) + round(where * steps) * line.step
    else:
        drawn = line.low * (1 - where) + line.high * where
    value = value_at(domain, drawn)
    assert value in domain
    wanted = {"double": float, "integer": int, "discrete": float, "categorical": str}
    assert type(value) is wanted[domain.kind]
    # The text that a script gets on its command line reads back as the same value.
    assert domain.parse(str(value)) == value


@given(stepped_doubles())
def test_steps_of_a_double_are_those_of_its_decimal_numbers(domain: Double) -> None:
    assert domain.step is not None
    values = [value_at(domain, n) for n in range(int(axis(domain).high) + 1)]
    assert values[0] == domain.min
    assert values == sorted(values)
    exact = [
        Fraction(repr(domain.min)) + n * Fraction(repr(domain.step)) for n in range(len(values))
    ]
    assert values == [float(value) for value in exact]
    assert exact[-1] + Fraction(repr(domain.step)) > Fraction(repr(domain.max))


def test_steps_of_a_tenth_are_tenths() -> None:
    domain = Double(0, 1, step=0.1)
    assert [value_at(domain, n) for n in range(11)] == [n / 10 for n in range(11)]


@given(st.dictionaries(st.text(min_size=1), finite_domains(), min_size=1, max_size=3))
def test_a_grid_has_every_combination_exactly_once(spaces: dict[str, AnyDomain]) -> None:
    if Grid(spaces).size > 2000:
        spaces = dict(itertools.islice(spaces.items(), 1))
    found = points(spaces)
    assert len(set(map(repr, found))) == len(found)
    for point in found:
        assert all(v in d for v, d in zip(point, spaces.values(), strict=True))
    whole = [
        len(d.values)
        if isinstance(d, (Discrete, Categorical))
        else len(range(d.min, d.max + 1, d.step or 1))
        if isinstance(d, Integer)
        else int((Fraction(repr(d.max)) - Fraction(repr(d.min))) / Fraction(repr(d.step))) + 1
        for d in spaces.values()
    ]
    expected = 1
    for number in whole:
        expected *= number
    assert len(found) == expected


def test_a_grid_in_full() -> None:
    spaces: dict[str, AnyDomain] = {
        "a": Integer(1, 7, step=3),
        "b": Double(0, 0.5, step=0.5),
        "c": Categorical(["x"]),
        "d": Discrete([3, 1]),
    }
    assert points(spaces) == [
        (a, b, "x", d) for a in (1, 4, 7) for b in (0.0, 0.5) for d in (3.0, 1.0)
    ]


def test_a_grid_needs_steps() -> None:
    with pytest.raises(ModelValidationException, match="'rate' is a Double without a step"):
        Grid({"rate": Double(0, 1)})


def test_a_grid_may_be_huge_but_not_endless() -> None:
    grid = Grid({"a": Integer(0, 10**9 - 1), "b": Integer(0, 10**9 - 1)})
    assert grid.size == 10**18
    assert grid.drawn(10**18 - 1) == {"a": 10**9 - 1, "b": 10**9 - 1}
    with pytest.raises(ModelValidationException, match="more than 2\\*\\*62 combinations"):
        Grid({"a": Integer(0, 10**10), "b": Integer(0, 10**10)})


@given(st.integers(1, 500), st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_trials_of_a_grid_are_all_of_it_or_different_points(
    size: int, trials: int, seed: int
) -> None:
    grid = Grid({"n": Integer(1, size)})
    picked = list(grid.pick(trials, seed=seed))
    assert picked == list(grid.pick(trials, seed=seed))
    assert len(set(picked)) == len(picked) == min(trials, size)
    assert set(picked) <= set(range(size))
    if trials >= size:
        assert picked == list(range(size))


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (Double(-1e308, 1e308), "wider than a float can hold"),
        (Integer(0, 2**60), "than can be told apart"),
        (Double(0, 1e300, step=1e-300), "than can be told apart"),
    ],
)
def test_a_range_that_no_optimiser_can_draw_from_is_refused(
    domain: AnyDomain, message: str
) -> None:
    with pytest.raises(ModelValidationException, match=f"Hyperparameter 'x'.*{message}"):
        check_space({"x": domain})


@given(domains())
def test_other_ranges_are_fine(domain: AnyDomain) -> None:
    check_space({"x": domain})


def test_a_hyperparameter_has_a_name() -> None:
    with pytest.raises(ModelValidationException, match="needs a name"):
        check_space({" ": Double(0, 1)})
