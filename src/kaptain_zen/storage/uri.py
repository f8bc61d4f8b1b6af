"""URIs of objects and folders in the storage.

The rules are those of `kaptain_zen.training.uris`, which a training process needs too; here is what
only a client needs on top.
"""

from __future__ import annotations

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.training.uris import Location, join, local_path, parse, shown, trimmed

__all__ = [
    "Location",
    "contains",
    "join",
    "local_path",
    "name",
    "parent",
    "parse",
    "relative",
    "shown",
    "trimmed",
]


def name(uri: str) -> str:
    """The last part of a URI, as it is in the storage; blank for a bucket or for `file:///`."""
    return parse(uri).path.rpartition("/")[2]


def parent(uri: str) -> str:
    """The folder that an object or folder lies in.

    Raises:
        ConfigurationError: The URI is not legal, or is a bucket or `file:///`.
    """
    location = parse(uri)
    if not location.path.strip("/"):
        raise ConfigurationError(f"{shown(uri)} lies in no folder.")
    return location._replace(path=location.path.rpartition("/")[0] or _root(location)).uri


def contains(folder: str, uri: str) -> bool:
    """Whether a URI is a folder's own, or one of something below it."""
    outer, inner = parse(folder), parse(uri)
    prefix = outer.path.strip("/")
    return outer[:2] == inner[:2] and (
        not prefix or f"{inner.path.strip('/')}/".startswith(f"{prefix}/")
    )


def relative(folder: str, uri: str) -> str:
    """The name that an object below a folder has there, with slashes between its parts.

    Raises:
        ConfigurationError: A URI is not legal, or the object is not below the folder.
    """
    outer, inner = parse(folder), parse(uri)
    below = inner.path.strip("/").removeprefix(outer.path.strip("/")).strip("/")
    if not contains(folder, uri) or not below:
        raise ConfigurationError(f"{shown(uri)} does not lie below {shown(folder)}.")
    return below


def _root(location: Location) -> str:
    return "/" if location.scheme == "file" else ""
