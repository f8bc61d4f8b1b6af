"""Step operator of the local tuner."""

from __future__ import annotations

from kaptain_zen.components.step_operators.base import LocalStepOperator


class KaptainLocalTuner(LocalStepOperator):
    """Runs steps as processes of this machine; on a stack, it stands for the local tuner.

    An ordinary step is run once, as by the trainer: its own parameters are not searched. A search
    is what `tune_model` does, with or without a step operator of its own.
    """
