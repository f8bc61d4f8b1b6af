"""Sharing requests out by percentage."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaptain_zen.platform.local.router.split import Split


@st.composite
def percentages(draw: st.DrawFn) -> list[int]:
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=4)))
    return [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]


@given(percentages(), st.integers(0, 2**32), st.integers(1, 5))
def test_every_hundred_requests_are_shared_out_exactly(
    weights: list[int], seed: int, hundreds: int
) -> None:
    split = Split(weights, random.Random(seed).shuffle)

    for _ in range(hundreds):
        counted = Counter(split.choose() for _ in range(100))
        assert [counted[route] for route in range(len(weights))] == weights


@given(st.integers(1, 99), st.integers(0, 2**32))
def test_the_order_within_a_hundred_differs(share: int, seed: int) -> None:
    split = Split([100 - share, share], random.Random(seed).shuffle)

    orders = {tuple(split.choose() for _ in range(100)) for _ in range(20)}

    assert len(orders) > 1


@pytest.mark.parametrize("weights", [[], [100, 1], [99], [-1, 101], [50.0, 50.0], [True, 99]])
def test_what_is_no_split_is_refused(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Split(weights)
