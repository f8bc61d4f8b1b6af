"""Tuning stays cheap to import: Optuna is loaded when a search runs."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "kaptain_zen.platform.local.tuner",
        "kaptain_zen.platform.search_report",
        "kaptain_zen.hyperparameter.domains",
        "kaptain_zen.console",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = {
        "optuna",
        "numpy",
        "plotly",
        "kubernetes",
        "boto3",
        "sklearn",
        "torch",
        "zenml",
        "tqdm",
    }
    code = f"import sys, {module}; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
