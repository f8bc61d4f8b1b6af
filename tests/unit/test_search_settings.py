"""Settings of search algorithms, by the names that Katib documents."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.search_support import request

from kaptain_zen.exceptions import ModelValidationException, UnsupportedAlgorithmException
from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.hyperparameter.domains import Categorical, Discrete, Double, Integer
from kaptain_zen.platform.local.search_settings import check_search, read_settings

DOCUMENTED: dict[str, dict[str, Any]] = {
    "random": {"random_state": "10"},
    "grid": {"random_state": "10"},
    "tpe": {"n_EI_candidates": "25", "random_state": "10", "gamma": "0.25", "prior_weight": "1.1"},
    "multivariate-tpe": {"n_ei_candidates": "25", "random_state": "10", "n_startup_trials": "5"},
    "cmaes": {"random_state": "10", "sigma": "0.001", "restart_strategy": "none"},
    "sobol": {},
    "hyperband": {"r_l": "9", "eta": "3", "resource_name": "n"},
    "bayesianoptimization": {
        "base_estimator": "GP",
        "n_initial_points": "10",
        "acq_optimizer": "auto",
        "random_state": "10",
    },
}


@pytest.mark.parametrize("algorithm", DOCUMENTED)
def test_documented_settings_are_understood_as_text(algorithm: str) -> None:
    found = read_settings(Algorithm(algorithm), DOCUMENTED[algorithm])
    assert len(found) == len(DOCUMENTED[algorithm])


def test_settings_get_their_types() -> None:
    assert read_settings(Algorithm.TPE, {"n_EI_candidates": "25", "gamma": 0.25}) == {
        "n_ei_candidates": 25,
        "gamma": 0.25,
    }
    assert read_settings(Algorithm.RANDOM, {"random_state": 3.0}) == {"random_state": 3}


@pytest.mark.parametrize(
    ("algorithm", "settings", "message"),
    [
        ("random", {"seed": 1}, "has no setting 'seed' .* It has: random_state"),
        ("tpe", {"sigma": 1}, "It has: n_startup_trials, n_ei_candidates"),
        ("random", {"random_state": -1}, "'random_state' .* a whole number, 0 to 4294967295"),
        ("random", {"random_state": 2**32}, "must be a whole number"),
        ("random", {"random_state": "ten"}, "must be a whole number"),
        ("random", {"random_state": 1.5}, "must be a whole number"),
        ("random", {"random_state": True}, "must be a whole number"),
        ("random", {"random_state": "inf"}, "must be a whole number"),
        ("random", {"random_state": "nan"}, "must be a whole number"),
        ("tpe", {"gamma": 1}, "a number above 0 and below 1"),
        ("tpe", {"gamma": "nan"}, "a number above 0"),
        ("tpe", {"prior_weight": 0}, "a number above 0"),
        ("tpe", {"n_ei_candidates": 0}, "a whole number, 1 or more"),
        ("cmaes", {"sigma": -1}, "a number above 0"),
        ("cmaes", {"restart_strategy": "ipop"}, "restarts are not available on the local"),
        ("hyperband", {"eta": 1}, "a whole number, 2 or more"),
        ("hyperband", {"r_l": 9, "resource_name": "y"}, "none of the hyperparameters"),
        ("hyperband", {"resource_name": "n"}, "needs the setting 'r_l'"),
        ("hyperband", {"r_l": 99, "resource_name": "n"}, "is not in the domain of"),
    ],
)
def test_a_wrong_setting_is_refused(algorithm: str, settings: dict[str, Any], message: str) -> None:
    wanted = request(
        algorithm=Algorithm(algorithm),
        algorithm_settings=settings,
        hyperparameters={"x": Double(0, 1), "n": Integer(1, 9)},
    )
    with pytest.raises(ModelValidationException, match=message):
        check_search(wanted)


@given(
    st.sampled_from([Algorithm(name) for name in DOCUMENTED]),
    st.dictionaries(st.text(), st.booleans() | st.integers() | st.floats() | st.text(), min_size=1),
)
def test_any_settings_are_read_or_refused(algorithm: Algorithm, settings: dict[str, Any]) -> None:
    with suppress(ModelValidationException):
        found = read_settings(algorithm, settings)
        assert len(found) == len(settings)


@pytest.mark.parametrize("algorithm", ["pbt", "enas", "darts"])
def test_what_only_katib_can_do_is_refused_with_the_reason(algorithm: str) -> None:
    with pytest.raises(UnsupportedAlgorithmException, match=r"not available .* with Katib"):
        check_search(request(algorithm=Algorithm(algorithm)))


@pytest.mark.parametrize(
    ("algorithm", "package"), [("bayesianoptimization", "torch"), ("cmaes", "cmaes")]
)
def test_a_missing_package_is_named(algorithm: str, package: str) -> None:
    wanted = request(
        algorithm=Algorithm(algorithm),
        hyperparameters={"x": Double(0, 1), "y": Double(0, 1)},
    )
    if importlib.util.find_spec(package):
        check_search(wanted)
        return
    with pytest.raises(UnsupportedAlgorithmException, match=f"pip install {package}.*'tpe'"):
        check_search(wanted)


def test_cmaes_needs_two_numbers() -> None:
    pytest.importorskip("cmaes")
    domains = {"x": Double(0, 1), "word": Categorical(["a", "b"]), "d": Discrete([1, 2])}
    with pytest.raises(ModelValidationException, match=r"there is 1 of 3\. Use 'tpe'"):
        check_search(request(algorithm=Algorithm.CMAES, hyperparameters=domains))


def test_a_goal_is_a_number() -> None:
    with pytest.raises(ModelValidationException, match="objective_goal is nan"):
        check_search(request(objective_goal=float("nan")))


def test_a_grid_over_a_double_needs_a_step() -> None:
    with pytest.raises(ModelValidationException, match="without a step"):
        check_search(request(algorithm=Algorithm.GRID))
