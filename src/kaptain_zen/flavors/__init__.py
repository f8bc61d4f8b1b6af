"""The ZenML flavors: configuration only.

Each flavor is loaded on first use, so that importing this package costs next to nothing. ZenML
stores the path of a flavor's class in its database: the modules and classes keep their names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaptain_zen.flavors.local import (
        KaptainLocalModelDeployerFlavor as KaptainLocalModelDeployerFlavor,
    )
    from kaptain_zen.flavors.local import KaptainLocalTrainerFlavor as KaptainLocalTrainerFlavor
    from kaptain_zen.flavors.local import KaptainLocalTunerFlavor as KaptainLocalTunerFlavor

__all__ = [
    "KaptainLocalModelDeployerFlavor",
    "KaptainLocalTrainerFlavor",
    "KaptainLocalTunerFlavor",
]

FLAVORS = {
    "kaptain_zen.flavors.local.KaptainLocalTrainerFlavor": "step_operator",
    "kaptain_zen.flavors.local.KaptainLocalTunerFlavor": "step_operator",
    "kaptain_zen.flavors.local.KaptainLocalModelDeployerFlavor": "model_deployer",
}
"""Every flavor: the path to register it with, and the type of stack component that it makes."""


def __getattr__(name: str) -> Any:
    """Load a flavor on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    path = next(path for path in FLAVORS if path.endswith(f".{name}"))
    return getattr(import_module(path.rpartition(".")[0]), name)
