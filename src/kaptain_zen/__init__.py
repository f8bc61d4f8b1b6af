"""kaptain-zen: describe a model once; train, tune, deploy and canary it from ZenML.

Importing this package loads nothing heavy. What is exported here is loaded on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaptain_zen.config import Config as Config
    from kaptain_zen.model.models import Model as Model
    from kaptain_zen.model.record import ModelRecord as ModelRecord
    from kaptain_zen.model.spec import ModelSpec as ModelSpec

__version__ = "0.1.0"
__all__ = ["Config", "Model", "ModelRecord", "ModelSpec", "__version__"]

_EXPORTS = {
    "Config": "kaptain_zen.config",
    "Model": "kaptain_zen.model.models",
    "ModelRecord": "kaptain_zen.model.record",
    "ModelSpec": "kaptain_zen.model.spec",
}


def __getattr__(name: str) -> Any:
    """Load an exported name on first use (PEP 562)."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_EXPORTS[name]), name)
