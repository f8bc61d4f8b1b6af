"""The settings of each search algorithm, and whether this machine can run it.

The names are those that Katib documents
(https://www.kubeflow.org/docs/components/katib/user-guides/hp-tuning/configure-algorithm/), so that
the same `algorithm_settings` work on a laptop and on a cluster. Everything here is decided without
importing an optimiser, before anything is started.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from kaptain_zen.exceptions import ModelValidationException, UnsupportedAlgorithmException
from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.hyperparameter.domains import AnyDomain, Double, Integer
from kaptain_zen.model.ports import TuneRequest
from kaptain_zen.model.record import Scalar
from kaptain_zen.platform.local.search_space import Grid, check_space

_MAX_SEED = 2**32 - 1

_NOT_HERE = {
    Algorithm.PBT: (
        "population based training hands the checkpoints of good trials on to others, which needs "
        "a volume that all of them share"
    ),
    Algorithm.ENAS: "it searches neural architectures, not hyperparameters",
    Algorithm.DARTS: "it searches neural architectures, not hyperparameters",
}
_NEEDS = {
    Algorithm.BAYESIAN: ("torch", "Its Gaussian process is computed with PyTorch"),
    Algorithm.CMAES: ("cmaes", "Its evolution strategy is in a package of its own"),
    Algorithm.SOBOL: ("scipy", "Its sequence is computed with SciPy"),
}
_SERVED_BY_ALL = "'random', 'grid', 'tpe', 'multivariate-tpe' and 'hyperband' need nothing more."


@dataclass(frozen=True)
class _Setting:
    """How one setting is read.

    Attributes:
        read: Turns its text into its value, or raises ValueError.
        wants: What it wants, for the error.
    """

    read: Callable[[str], Any]
    wants: str


def _whole(low: int, high: int | None = None) -> _Setting:
    def read(text: str) -> int:
        number = float(text)
        if not number.is_integer() or number < low or (high is not None and number > high):
            raise ValueError
        return int(number)

    bound = "or more" if high is None else f"to {high}"
    return _Setting(read, f"a whole number, {low} {bound}")


def _real(low: float, high: float = math.inf) -> _Setting:
    def read(text: str) -> float:
        value = float(text)
        if not low < value < high:
            raise ValueError
        return value

    bound = f" and below {high:g}" if math.isfinite(high) else ""
    return _Setting(read, f"a number above {low:g}{bound}")


def _word(*words: str, why: str = "") -> _Setting:
    def read(text: str) -> str:
        if text.lower() not in {word.lower() for word in words}:
            raise ValueError
        return text

    return _Setting(read, " or ".join(map(repr, words)) + (f" ({why})" if why else ""))


_SEED = {"random_state": _whole(0, _MAX_SEED)}
_TPE = {
    "n_startup_trials": _whole(0),
    "n_ei_candidates": _whole(1),
    "n_EI_candidates": _whole(1),
    "gamma": _real(0, 1),
    "prior_weight": _real(0),
    **_SEED,
}
_SETTINGS: dict[Algorithm, dict[str, _Setting]] = {
    Algorithm.RANDOM: _SEED,
    Algorithm.GRID: _SEED,
    Algorithm.SOBOL: _SEED,
    Algorithm.TPE: _TPE,
    Algorithm.MULTIVARIATE_TPE: _TPE,
    Algorithm.CMAES: {
        "sigma": _real(0),
        "restart_strategy": _word(
            "none", why="restarts are not available on the local platform, only with Katib"
        ),
        **_SEED,
    },
    Algorithm.BAYESIAN: {
        "base_estimator": _word("GP", why="other estimators are available with Katib"),
        "n_initial_points": _whole(1),
        "acq_func": _word("EI", why="the local platform maximises the expected improvement"),
        "acq_optimizer": _word("auto", "lbfgs", why="the local platform optimises with L-BFGS"),
        **_SEED,
    },
    Algorithm.HYPERBAND: {
        "r_l": _whole(1),
        "eta": _whole(2),
        "resource_name": _Setting(str, "the name of a hyperparameter"),
        **_SEED,
    },
}


def check_search(request: TuneRequest) -> None:
    """Say whether the local platform can run a search.

    Args:
        request: The search.

    Raises:
        UnsupportedAlgorithmException: The algorithm is not available here, or not without a
            package that is not installed.
        ModelValidationException: A setting is unknown or wrong, or the algorithm cannot search the
            hyperparameters' domains.
    """
    algorithm, domains = request.algorithm, request.hyperparameters
    _check_available(algorithm)
    settings = read_settings(algorithm, request.algorithm_settings)
    check_space(domains)
    if algorithm is Algorithm.GRID:
        Grid(domains)
    elif algorithm is Algorithm.CMAES:
        _check_numbers(domains)
    elif algorithm is Algorithm.HYPERBAND:
        _check_resource(settings, domains)
    goal = request.objective_goal
    if goal is not None and not math.isfinite(goal):
        raise ModelValidationException(
            f"objective_goal is {goal!r}; give a finite number, or None to try all trials."
        )


def read_settings(algorithm: Algorithm, settings: Mapping[str, Scalar]) -> dict[str, Any]:
    """Read an algorithm's settings; numbers may be given as text, as in Katib's experiments.

    Args:
        algorithm: Which.
        settings: By name.

    Returns:
        Values of the right types by name.

    Raises:
        ModelValidationException: A name is unknown, or a value is not what it wants.
    """
    known = _SETTINGS[algorithm]
    result: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            raise ModelValidationException(
                f"Algorithm {algorithm.value!r} has no setting {name!r} on the local platform. "
                f"It has: {', '.join(known)}."
            )
        try:
            result[name] = known[name].read(str(value).strip())
        except ValueError:
            raise ModelValidationException(
                f"Setting {name!r} of algorithm {algorithm.value!r} is {value!r}; it must be "
                f"{known[name].wants}."
            ) from None
    if "n_EI_candidates" in result:
        result["n_ei_candidates"] = result.pop("n_EI_candidates")
    return result


def _check_available(algorithm: Algorithm) -> None:
    if algorithm in _NOT_HERE:
        raise UnsupportedAlgorithmException(
            f"Algorithm {algorithm.value!r} is not available on the local platform: "
            f"{_NOT_HERE[algorithm]}. Tune on a cluster with Katib, or choose another algorithm: "
            f"{_SERVED_BY_ALL}"
        )
    package, why = _NEEDS.get(algorithm, (None, None))
    if package and find_spec(package) is None:
        raise UnsupportedAlgorithmException(
            f"Algorithm {algorithm.value!r} needs the package {package!r}, which is not installed. "
            f"{why}. Run `pip install {package}`, or choose another algorithm: {_SERVED_BY_ALL}"
        )


def _check_numbers(domains: Mapping[str, AnyDomain]) -> None:
    numbers = [name for name, domain in domains.items() if isinstance(domain, (Double, Integer))]
    if len(numbers) < 2:  # noqa: PLR2004 - a covariance needs two
        raise ModelValidationException(
            f"Algorithm 'cmaes' learns how numeric hyperparameters vary together, so it needs two "
            f"or more of Double or Integer; there is {len(numbers)} of {len(domains)}. Use 'tpe' "
            f"instead."
        )


def _check_resource(settings: Mapping[str, Any], domains: Mapping[str, AnyDomain]) -> None:
    name = settings.get("resource_name")
    if name is None:
        return
    if name not in domains:
        raise ModelValidationException(
            f"Setting 'resource_name' of algorithm 'hyperband' is {name!r}, which is none of the "
            f"hyperparameters ({', '.join(domains)}). Name the one that says how long a training "
            f"takes, such as the number of epochs."
        )
    if "r_l" not in settings:
        raise ModelValidationException(
            f"Algorithm 'hyperband' needs the setting 'r_l' together with 'resource_name': the "
            f"largest value of {name!r}, which the trials that are not stopped early get."
        )
    if settings["r_l"] not in domains[name]:
        raise ModelValidationException(
            f"Setting 'r_l' of algorithm 'hyperband' is {settings['r_l']}, which is not in the "
            f"domain of hyperparameter {name!r}. Give a value of the domain."
        )
