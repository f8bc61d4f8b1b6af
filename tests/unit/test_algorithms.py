"""Names of search algorithms."""

from __future__ import annotations

import pytest

from kaptain_zen.exceptions import UnsupportedAlgorithmException
from kaptain_zen.hyperparameter.algorithms import Algorithm


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_every_algorithm_is_found_by_its_name_in_any_case(algorithm: Algorithm) -> None:
    assert Algorithm.of(algorithm.value) is algorithm
    assert Algorithm.of(f"  {algorithm.value.upper()} ") is algorithm
    assert Algorithm.of(algorithm) is algorithm


def test_usual_other_names_are_known() -> None:
    assert Algorithm.of("bayesian") is Algorithm.BAYESIAN
    assert Algorithm.of("cma-es") is Algorithm.CMAES


def test_nothing_stays_nothing() -> None:
    assert Algorithm.of(None) is None


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedAlgorithmException, match=r"Use one of: random, grid, .*darts"):
        Algorithm.of("magic")
