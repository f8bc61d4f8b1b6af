"""URIs of the storage, taken apart and put together: `file:///folder/name` and `s3://bucket/key`.

Both are written the way people write S3's: what stands in a URI is the name itself, blanks and all.
The one exception is `file://`, where `%20` and the like mean what they mean in any URI; a `%` that
is part of a name is written `%25` there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from kaptain_zen.exceptions import ConfigurationError

SCHEMES = ("file", "s3")
MAX_KEY_BYTES = 1024
"""What S3 allows for a key, in UTF-8."""

_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")
# Control characters, halves of surrogate pairs and U+FFFE/U+FFFF cannot be written in XML, which
# S3 answers in; a name that only one kind of storage can hold could never be copied to the other.
_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Location(NamedTuple):
    """A URI taken apart.

    Attributes:
        scheme: `file` or `s3`.
        bucket: The bucket; blank for `file`.
        path: The key without slashes around it, or the absolute path of a file.
    """

    scheme: str
    bucket: str
    path: str

    @property
    def uri(self) -> str:
        """The URI in the form that everything here writes it in."""
        if self.scheme == "file":
            return f"file://{self.path.replace('%', '%25')}"
        return f"s3://{self.bucket}/{self.path}".rstrip("/")


def parse(uri: str) -> Location:
    """Take a URI apart.

    Args:
        uri: For example `s3://kaptain/models` or `file:///var/models`; slashes at its end do not
            matter.

    Returns:
        Its parts, with names as they are in the storage.

    Raises:
        ConfigurationError: It is not complete, its scheme is not supported, or a name in it is not
            legal (`..`, an empty one, control characters, a key of more than 1024 bytes).
    """
    if not isinstance(uri, str) or not uri.strip():
        raise ConfigurationError(
            "A storage URI is missing or blank. Write s3://bucket/folder or file:///folder."
        )
    scheme, found, rest = uri.partition("://")
    scheme = scheme.lower()
    if not found or scheme not in SCHEMES:
        raise ConfigurationError(
            f"The storage URI {shown(uri)} is not supported. Write s3://bucket/folder or "
            f"file:///folder (with three slashes)."
        )
    head, slash, path = rest.partition("/")
    path = path.rstrip("/")
    if scheme == "file":
        if head not in ("", "localhost") or not slash:
            raise ConfigurationError(
                f"The storage URI {shown(uri)} is no absolute path on this machine. Write it with "
                f"three slashes, such as file:///folder."
            )
        path = _decoded(path, uri)
        _check_names(path, uri)
        return Location(scheme, "", f"/{path}")
    if not _BUCKET.fullmatch(head):
        raise ConfigurationError(
            f"The storage URI {shown(uri)} has no legal bucket. Write s3://bucket/folder."
        )
    _check_names(path, uri)
    if len(path.encode()) > MAX_KEY_BYTES:
        raise ConfigurationError(
            f"The storage URI {shown(uri)} has a key of more than {MAX_KEY_BYTES} bytes, which S3 "
            f"does not allow. Shorten it."
        )
    return Location(scheme, head, path)


def join(uri: str, *names: str) -> str:
    """Put names behind the URI of a folder.

    Args:
        uri: Of the folder.
        names: As they are in the storage; one may hold slashes.

    Returns:
        The URI; it begins with `uri` letter for letter, save for slashes at its end.

    Raises:
        ConfigurationError: The URI or a name is not legal.
    """
    scheme = parse(uri).scheme
    tail = "/".join(names)
    joined = f"{trimmed(uri)}/{tail.replace('%', '%25') if scheme == 'file' else tail}"
    parse(joined)
    return joined


def trimmed(uri: str) -> str:
    """A URI without the slashes at its end, but with those that belong to its beginning."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rstrip('/')}"


def local_path(uri: str) -> Path:
    """The path of a `file://` URI.

    Raises:
        ConfigurationError: The URI is not legal, or of another scheme.
    """
    location = parse(uri)
    if location.scheme != "file":
        raise ConfigurationError(f"{shown(uri)} is no local folder. Give a file:// URI.")
    return Path(location.path)


def legal_name(name: str) -> bool:
    """Whether a relative name (parts with slashes between them) can be used on every storage."""
    return not _UNUSABLE.search(name) and all(
        part not in ("", ".", "..") for part in name.split("/")
    )


def shown(uri: str) -> str:
    """A URI for a message, without the user name and password that somebody may have put in."""
    return repr(re.sub(r"//[^/]*@", "//…@", uri))


def _decoded(path: str, uri: str) -> str:
    if "%" not in path:
        return path
    from urllib.parse import unquote_to_bytes

    try:
        return unquote_to_bytes(path.encode()).decode()
    except UnicodeError:
        raise ConfigurationError(
            f"The storage URI {shown(uri)} does not hold text in UTF-8 once its percent signs are "
            f"decoded. Write a percent sign that is part of a name as %25."
        ) from None


def _check_names(path: str, uri: str) -> None:
    if path and not legal_name(path):
        raise ConfigurationError(
            f"The storage URI {shown(uri)} has a part that is empty, '.' or '..', or that holds a "
            f"control character. Write the full path with single slashes."
        )
