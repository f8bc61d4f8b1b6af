"""What both kinds of storage do alike."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable

from kaptain_zen.exceptions import ModelValidationException, ObjectNotFoundError, StorageError
from kaptain_zen.storage.uri import contains, parse, shown

CHECK_SECONDS = 10.0
"""How long `check` may take."""


def check_condition(version: str | None, new: bool) -> None:
    """Refuse a write that could never happen.

    Raises:
        ModelValidationException: It asks for an old version of an object that must not be there.
    """
    if new and version is not None:
        raise ModelValidationException("Give `version` or `new` for a conditional write, not both.")


def check_copy(source: str, target: str) -> None:
    """Refuse to copy a folder into itself.

    Raises:
        ModelValidationException: The target is the source, or lies in it.
    """
    if contains(source, target):
        raise ModelValidationException(
            f"{shown(source)} cannot be copied to {shown(target)}, which lies in it."
        )


def check_delete(uri: str, base_uri: str) -> None:
    """Refuse to delete what holds all models, and more.

    Raises:
        ModelValidationException: The URI is a bucket, the root, or above the folder of all models.
    """
    if not parse(uri).path.strip("/") or (
        contains(uri, base_uri) and parse(uri) != parse(base_uri)
    ):
        raise ModelValidationException(
            f"{shown(uri)} is not deleted, because it holds more than models. Give a folder of "
            f"{shown(base_uri)}."
        )


def nothing_below(uri: str) -> ObjectNotFoundError:
    """The error for a folder that holds nothing, or is none."""
    return ObjectNotFoundError(f"There is no object below {uri}. Check the URI.")


def fingerprint_of(files: Iterable[tuple[str, int, str]]) -> tuple[int, str]:
    """Bring the names, sizes and hashes of files to one size and one hash.

    Args:
        files: Relative name, size in bytes and SHA-256 in hexadecimal of each, in any order.

    Returns:
        Size of all in bytes, and a SHA-256 that changes with any name or content.
    """
    total, digest = 0, hashlib.sha256()
    # Every name and content enters with a fixed length, so that no two lists read the same.
    for name, size, content in sorted(files):
        total += size
        digest.update(hashlib.sha256(name.encode()).digest() + bytes.fromhex(content))
    return total, digest.hexdigest()


def within(seconds: float, action: Callable[[], None], late: str) -> None:
    """Do something that may hang, such as looking up a name or touching a network drive.

    Args:
        seconds: How long it may take.
        action: What to do; it is left behind in a thread when it takes longer.
        late: What to say then.

    Raises:
        StorageError: It took longer. Whatever `action` raises is raised too.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            raised.append(error)

    thread = threading.Thread(target=run, name="kaptain-zen-storage-check", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise StorageError(late)
    for error in raised:
        raise error
