"""Machine-learning frameworks that a model may be written in."""

from __future__ import annotations

from enum import Enum

from kaptain_zen.exceptions import UnsupportedModelFrameworkException

_ALIASES = {
    "scikit-learn": "sklearn",
    "scikit_learn": "sklearn",
    "torch": "pytorch",
    "tf": "tensorflow",
    "lgbm": "lightgbm",
    "xgb": "xgboost",
    "paddlepaddle": "paddle",
    "transformers": "huggingface",
}


class ModelFramework(Enum):
    """A framework, by the name that serving runtimes know it by."""

    TENSORFLOW = "tensorflow"
    PYTORCH = "pytorch"
    SKLEARN = "sklearn"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    ONNX = "onnx"
    MLFLOW = "mlflow"
    HUGGINGFACE = "huggingface"
    TRITON = "triton"
    PADDLE = "paddle"
    PMML = "pmml"
    CUSTOM = "custom"

    @staticmethod
    def of(framework: str | ModelFramework | None) -> ModelFramework | None:
        """Convert a name to a framework.

        Args:
            framework: The name, in any case; usual aliases (`scikit-learn`, `torch`) are known.

        Returns:
            The framework, or None for None.

        Raises:
            UnsupportedModelFrameworkException: No framework has this name.
        """
        if framework is None or isinstance(framework, ModelFramework):
            return framework
        name = str(framework).strip().lower()
        try:
            return ModelFramework(_ALIASES.get(name, name))
        except ValueError:
            known = ", ".join(member.value for member in ModelFramework)
            raise UnsupportedModelFrameworkException(
                f"Framework {framework!r} is not supported. Use one of: {known}."
            ) from None

    @property
    def distributed(self) -> bool:
        """Whether training with several workers means several processes that find each other."""
        return self in _DISTRIBUTED


_DISTRIBUTED = frozenset(
    {ModelFramework.TENSORFLOW, ModelFramework.PYTORCH, ModelFramework.HUGGINGFACE}
)
