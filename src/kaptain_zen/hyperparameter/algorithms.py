"""Search algorithms, by the names that Katib knows them by.

https://www.kubeflow.org/docs/components/katib/user-guides/hp-tuning/configure-algorithm/
"""

from __future__ import annotations

from enum import Enum

from kaptain_zen.exceptions import UnsupportedAlgorithmException

_ALIASES = {"bayesian": "bayesianoptimization", "gp": "bayesianoptimization", "cma-es": "cmaes"}


class Algorithm(Enum):
    """How the next hyperparameters to try are chosen."""

    RANDOM = "random"
    GRID = "grid"
    BAYESIAN = "bayesianoptimization"
    TPE = "tpe"
    MULTIVARIATE_TPE = "multivariate-tpe"
    CMAES = "cmaes"
    SOBOL = "sobol"
    HYPERBAND = "hyperband"
    PBT = "pbt"
    ENAS = "enas"
    DARTS = "darts"

    @staticmethod
    def of(algorithm: str | Algorithm | None) -> Algorithm | None:
        """Convert a name to an algorithm.

        Args:
            algorithm: The name, in any case; `bayesian` and `cma-es` are known too.

        Returns:
            The algorithm, or None for None.

        Raises:
            UnsupportedAlgorithmException: No algorithm has this name.
        """
        if algorithm is None or isinstance(algorithm, Algorithm):
            return algorithm
        name = str(algorithm).strip().lower()
        try:
            return Algorithm(_ALIASES.get(name, name))
        except ValueError:
            known = ", ".join(member.value for member in Algorithm)
            raise UnsupportedAlgorithmException(
                f"Algorithm {algorithm!r} is not supported. Use one of: {known}."
            ) from None
