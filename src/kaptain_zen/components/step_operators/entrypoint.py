"""What a step's process runs: ZenML's own entry point, on the files of this machine."""

from __future__ import annotations

import sys

from zenml.step_operators.step_operator_entrypoint_configuration import (
    StepOperatorEntrypointConfiguration,
)
from zenml.utils import source_utils


class LocalStepEntrypointConfiguration(StepOperatorEntrypointConfiguration):
    """Runs a step where its pipeline runs.

    ZenML's own makes `/app`, works there, and downloads the code into it: right in a container, but
    not on somebody's machine, where the code is at hand.
    """

    def prepare_code_environment(self) -> None:
        """Make the pipeline's code importable; the working directory stays the pipeline's."""
        root = source_utils.get_source_root()
        if root not in sys.path:
            sys.path.insert(0, root)
