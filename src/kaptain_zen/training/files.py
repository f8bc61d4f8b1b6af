"""Local files: found without following links out of a folder, and published all at once.

Names that begin with `RESERVED` are ours: files on their way to their place, locks, probes. They
are no part of what a folder holds; whoever removes the folder removes them too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kaptain_zen.exceptions import StorageError
from kaptain_zen.training.uris import legal_name

RESERVED = ".kaptain-zen-"

_ADVICE = {
    errno.EACCES: "Choose a folder that you may write to, or ask for the permission.",
    errno.EPERM: "Choose a folder that you may write to, or ask for the permission.",
    errno.EROFS: "Choose a folder that you may write to; this one cannot be changed by anybody.",
    errno.ENOSPC: "Make room on the disk.",
    errno.EDQUOT: "Make room on the disk, or ask for a larger quota.",
    errno.ENOTDIR: "A part of the path is a file; choose another folder.",
    errno.EEXIST: "A part of the path is a file; choose another folder.",
    errno.EISDIR: "There is a folder of that name; choose another name.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


@contextmanager
def explained(action: str, what: str | Path) -> Iterator[None]:
    """Turn what the operating system refuses into this package's error.

    Args:
        action: What was to happen, as in `could not be <action>`.
        what: To which file or URI.

    Raises:
        StorageError: The block raised an OSError, which is chained.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        where = (
            f" ({error.filename})" if error.filename and str(error.filename) != str(what) else ""
        )
        advice = _ADVICE.get(error.errno or 0, "")
        raise StorageError(
            f"{what} could not be {action}: {reason}{where}. {advice}".rstrip()
        ) from error


def reserved(name: str) -> bool:
    """Whether a relative name is one of ours, or below a folder of ours."""
    return f"/{RESERVED}" in f"/{name}"


def excluded(name: str, exclude: tuple[str, ...]) -> bool:
    """Whether a relative name is one of several names, or lies in a folder of such a name."""
    return any(name == other or name.startswith(f"{other}/") for other in exclude)


def files_below(folder: Path) -> list[tuple[str, Path]]:
    """All files below a folder, by relative name, in the order of the names.

    Args:
        folder: Where to look; it may itself be a link.

    Returns:
        Name (with slashes) and path of each; empty when there is no such folder.

    Raises:
        StorageError: Something is no regular file (a link, a pipe), or has a name that not every
            storage can hold. Nothing is ever followed out of the folder.
    """
    found: list[tuple[str, Path]] = []
    waiting = [("", folder)]
    while waiting:
        prefix, current = waiting.pop()
        try:
            entries = list(os.scandir(current))
        except (FileNotFoundError, NotADirectoryError):
            continue  # There is none, or somebody removed it while we looked.
        for entry in entries:
            if entry.name.startswith(RESERVED):
                continue
            _check_entry(entry)
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                waiting.append((f"{name}/", Path(entry.path)))
            else:
                found.append((name, Path(entry.path)))
    return sorted(found)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal; the file is never held in memory as a whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content in one step; its folder must be there."""
    temporary = path.parent / f"{RESERVED}{os.urandom(8).hex()}"
    _in_one_step(temporary, path, lambda: temporary.write_bytes(data))


def copy_atomically(source: Path, target: Path) -> None:
    """Copy a file so that a reader sees nothing, or the old one, or the whole new one.

    The folders above `target` are made; those that were not there before are removed again when it
    fails.
    """
    with made(target.parent):
        temporary = target.parent / f"{RESERVED}{os.urandom(8).hex()}"
        _in_one_step(temporary, target, lambda: shutil.copyfile(source, temporary))


@contextmanager
def made(folder: Path) -> Iterator[list[Path]]:
    """Make a folder and those above it, and take them away again when the block fails.

    Yields:
        Those that were not there before, innermost first.
    """
    missing = []
    current = folder
    while not current.exists():
        missing.append(current)
        current = current.parent
    try:
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
        yield missing
    except BaseException:
        remove_empty(missing)
        raise


def remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, as far as they are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Fill a folder all at once: nothing shows in it until the block has ended well.

    Files that are there already stay, or are replaced by a new one of the same name.

    Args:
        target: The folder; made when missing, and taken away again when the block fails.

    Yields:
        A folder beside the final files, to put the new ones into.
    """
    with made(target):
        stage = target / f"{RESERVED}{os.urandom(8).hex()}"
        try:
            stage.mkdir()
            yield stage
            _publish(stage, target)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _publish(stage: Path, target: Path) -> None:
    files = files_below(stage)
    new_folders: list[Path] = []
    try:
        for name, _ in files:
            final = target / name
            _check_free(final)
            parents = [p for p in final.parents if p.is_relative_to(target) and not p.exists()]
            for folder in reversed(parents):
                folder.mkdir(exist_ok=True)
                new_folders.insert(0, folder)
    except BaseException:
        remove_empty(new_folders)
        raise
    for name, path in files:
        path.replace(target / name)


def _check_free(final: Path) -> None:
    if final.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))


def _in_one_step(temporary: Path, final: Path, fill: Callable[[], object]) -> None:
    try:
        fill()
        temporary.replace(final)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _check_entry(entry: os.DirEntry[str]) -> None:
    if entry.is_symlink():
        raise StorageError(
            f"{entry.path!r} is a symbolic link; a storage holds files only, and a link may lead "
            f"anywhere. Put a copy of the file in its place."
        )
    if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
        raise StorageError(f"{entry.path!r} is neither a file nor a folder. Move it elsewhere.")
    if not legal_name(entry.name):
        raise StorageError(
            f"{entry.path!r} has a name that not every storage can hold (control characters, or "
            f"bytes that are no UTF-8). Rename it."
        )
