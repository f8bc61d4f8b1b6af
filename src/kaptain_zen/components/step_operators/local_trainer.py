"""Step operator of the local trainer."""

from __future__ import annotations

from kaptain_zen.components.step_operators.base import LocalStepOperator


class KaptainLocalTrainer(LocalStepOperator):
    """Runs steps as processes of this machine; on a stack, it stands for the local trainer.

    `train_model` runs its training on the platform that the stack stands for, with or without a
    step operator of its own.
    """
