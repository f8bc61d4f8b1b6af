"""Domains: what is refused when they are made, and what lies in them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tests.unit.search_support import domains

from kaptain_zen.exceptions import ModelValidationException
from kaptain_zen.hyperparameter.domains import (
    AnyDomain,
    Categorical,
    Discrete,
    Double,
    Integer,
)

ANY: TypeAdapter[AnyDomain] = TypeAdapter(AnyDomain)


def test_the_signatures_of_the_tutorial_work() -> None:
    assert Double(0.0001, 0.001).max == 0.001
    assert Integer(min=1, max=5).min == 1
    assert Discrete([1, 2.5]).values == (1.0, 2.5)
    assert Categorical(["a", "b"]).values == ("a", "b")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Double(2, 1), "min is above max"),
        (lambda: Integer(2, 1), "min is above max"),
        (lambda: Double(0, 1, step=0), "a step must be above 0"),
        (lambda: Integer(0, 1, step=-1), "a step must be above 0"),
        (lambda: Double(0, 1, log=True), "needs min above 0"),
        (lambda: Integer(0, 1, log=True), "needs min above 0"),
        (lambda: Double(1, 2, step=0.1, log=True), "and no step"),
        (lambda: Double("0", 1), "must be a finite number"),
        (lambda: Double(0, math.inf), "must be a finite number"),
        (lambda: Double(math.nan, 1), "must be a finite number"),
        (lambda: Double(True, 1), "must be a finite number"),
        (lambda: Integer(0.5, 1), "must be a whole number"),
        (lambda: Discrete([]), "the domain is empty"),
        (lambda: Discrete([1, 1]), "a value twice"),
        (lambda: Discrete(["1"]), "must be a finite number"),
        (lambda: Discrete(5), "needs a list of values"),
        (lambda: Categorical([]), "the domain is empty"),
        (lambda: Categorical("abc"), "needs a list of values"),
        (lambda: Categorical(["a", ""]), "non-empty strings"),
        (lambda: Categorical([1, 2]), "non-empty strings"),
        (lambda: Categorical(["a", "a"]), "a value twice"),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ModelValidationException, match=message):
        make()


@given(domains())
def test_a_domain_survives_json(domain: AnyDomain) -> None:
    assert ANY.validate_json(ANY.dump_json(domain)) == domain


def test_a_domain_cannot_be_changed() -> None:
    domain = Double(0, 1)
    with pytest.raises(ValidationError):
        domain.min = 5  # type: ignore[misc]


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(-2e9, 2e9))
def test_a_double_holds_what_lies_between_its_ends(a: float, b: float, value: float) -> None:
    domain = Double(min(a, b), max(a, b))
    assert (value in domain) == (min(a, b) <= value <= max(a, b))
    assert domain.min in domain
    assert domain.max in domain


def test_an_integer_holds_whole_numbers_only() -> None:
    domain = Integer(1, 5)
    assert 3 in domain
    assert 2.5 not in domain
    assert 6 not in domain
    assert domain.parse("3") == 3
    assert domain.parse("3.0") == 3
