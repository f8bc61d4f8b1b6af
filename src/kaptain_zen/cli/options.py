"""Options that several commands share, and the platform that they lead to."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from kaptain_zen.platform.local.home import LocalHome
    from kaptain_zen.platform.platform import Platform

Home = Annotated[
    str | None,
    typer.Option(
        "--home",
        help="Folder of the local platform, instead of what the active stack says.",
        show_default=False,
    ),
]
StorageUri = Annotated[
    str | None,
    typer.Option(
        "--storage-uri",
        help="Folder in the storage for all models, instead of what the active stack says: "
        "s3://bucket/folder or file:///folder.",
        show_default=False,
    ),
]
ModelId = Annotated[str, typer.Argument(metavar="MODEL_ID", help="For example dev/mnist.")]


class OutputFormat(StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print it.")]


def choose_platform(home: str | None, storage_uri: str | None) -> Platform:
    """The platform that a command works on.

    With one of the options it is the local platform there. Without, it is that of the active ZenML
    stack; where that has no component of ours, the local platform in its usual place, as for a
    `Model` in a notebook.

    Raises:
        ConfigurationError: An option is wrong, or the stack's components contradict each other.
    """
    from kaptain_zen.components.platforms import local_platform

    if home or storage_uri:
        return local_platform(home, storage_uri)
    from kaptain_zen.platform.platform import from_active_stack

    return from_active_stack() if kaptain_components() else local_platform()


def choose_home(home: str | None, storage_uri: str | None) -> LocalHome:
    """The folder of the local platform that a command works on; see `choose_platform`."""
    from kaptain_zen.components.platforms import home_of
    from kaptain_zen.platform.local.home import LocalHome

    components = [] if home or storage_uri else kaptain_components()
    return home_of(components[0]) if components else LocalHome.resolve(home)


def kaptain_components() -> list[Any]:
    """Components of the active stack that are of our flavors."""
    from zenml.client import Client

    stack = Client().active_stack
    return [c for c in stack.all_components if hasattr(c, "platform_settings")]
