"""Optuna's samplers and pruners for our algorithms.

This module imports Optuna, so it is imported when a search runs and not before.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optuna import pruners, samplers

from kaptain_zen.hyperparameter.algorithms import Algorithm
from kaptain_zen.platform.local.search_settings import read_settings
from kaptain_zen.platform.local.search_space import Grid

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from kaptain_zen.model.ports import TuneRequest


def make_sampler(request: TuneRequest, *, begun: int) -> samplers.BaseSampler:
    """The sampler of a search.

    Args:
        request: The search.
        begun: How many of its trials were begun by an earlier process. A sampler that starts anew
            with the same seed would draw what those drew already, so the seed moves on.

    Returns:
        The sampler; with the setting `random_state` it draws the same in every search.
    """
    settings = read_settings(request.algorithm, request.algorithm_settings)
    seed = settings.pop("random_state", None)
    moved = None if seed is None else (seed + begun) % 2**32
    sampler: samplers.BaseSampler
    with warnings.catch_warnings():
        # Optuna announces that `gamma` and `prior_weight` go away in its version 6, and that its
        # Sobol sampler may change. Our requirements say which releases we run with.
        warnings.simplefilter("ignore")
        match request.algorithm:
            case Algorithm.GRID:
                sampler = GridSampler(Grid(request.hyperparameters), request.trials, seed or 0)
            case Algorithm.TPE | Algorithm.MULTIVARIATE_TPE:
                multivariate = request.algorithm is Algorithm.MULTIVARIATE_TPE
                sampler = _tpe(settings, seed=moved, multivariate=multivariate)
            case Algorithm.HYPERBAND:
                sampler = _tpe({}, seed=moved, multivariate=False)
            case Algorithm.CMAES:
                sampler = samplers.CmaEsSampler(
                    sigma0=settings.get("sigma"), seed=moved, warn_independent_sampling=False
                )
            case Algorithm.BAYESIAN:
                sampler = samplers.GPSampler(
                    n_startup_trials=settings.get("n_initial_points", 10), seed=moved
                )
            case Algorithm.SOBOL:
                # The place in the sequence is kept in the study; the seed shuffles the sequence
                # and must therefore stay.
                sampler = samplers.QMCSampler(
                    scramble=seed is not None, seed=seed, warn_independent_sampling=False
                )
            case _:
                sampler = samplers.RandomSampler(seed=moved)
    return sampler


def make_pruner(request: TuneRequest) -> pruners.BasePruner:
    """The pruner of a search: for hyperband it compares the objective at equal numbers of reports.

    Without the setting `r_l`, the first trial that succeeds tells how often the objective is
    reported, and nothing is stopped before that.
    """
    if request.algorithm is not Algorithm.HYPERBAND:
        return pruners.NopPruner()
    settings = read_settings(request.algorithm, request.algorithm_settings)
    return pruners.HyperbandPruner(
        min_resource=1,
        max_resource=settings.get("r_l", "auto"),
        reduction_factor=settings.get("eta", 3),
    )


class GridSampler(samplers.BaseSampler):
    """Gives the n-th trial the n-th point of a grid, whichever process asks.

    Optuna's own keeps all points in memory and in the study, and ends the study from inside.
    """

    def __init__(self, grid: Grid, trials: int, seed: int) -> None:
        self._grid = grid
        self._numbers: Sequence[int] = grid.pick(trials, seed=seed)

    def infer_relative_search_space(
        self,
        study: Study,  # noqa: ARG002 - the signature is Optuna's
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Nothing is drawn for several hyperparameters together."""
        return {}

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Nothing is drawn for several hyperparameters together."""
        return {}

    def sample_independent(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        """One coordinate of the trial's point."""
        return self._grid.drawn(self._numbers[trial.number])[param_name]


def _tpe(settings: dict[str, Any], *, seed: int | None, multivariate: bool) -> samplers.TPESampler:
    arguments: dict[str, Any] = {
        name: settings[name]
        for name in ("n_startup_trials", "n_ei_candidates", "prior_weight")
        if name in settings
    }
    if "gamma" in settings:
        share = settings["gamma"]
        arguments["gamma"] = lambda trials: math.ceil(share * trials)
    # Trials under way count as bad ones, so that parallel trials do not try the same.
    return samplers.TPESampler(
        seed=seed, multivariate=multivariate, constant_liar=True, **arguments
    )
