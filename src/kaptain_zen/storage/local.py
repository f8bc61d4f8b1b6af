"""Storage in local folders.

Every file appears in one step, so a reader sees the old one or the new one. Conditional writes are
made under a lock of the kernel (`flock`) on a file beside the object, which vanishes when it is
let go; an object's version is the hash of its content.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from kaptain_zen.exceptions import ObjectNotFoundError, PreconditionFailedError, StorageError
from kaptain_zen.model.ports import ObjectInfo
from kaptain_zen.storage import rules
from kaptain_zen.storage.uri import join, local_path, trimmed
from kaptain_zen.training.files import (
    RESERVED,
    copy_atomically,
    excluded,
    explained,
    files_below,
    made,
    remove_empty,
    reserved,
    sha256_of,
    staged,
    write_atomically,
)

_LOCK = f"{RESERVED}lock"
_LOCK_SECONDS = 10.0
_ATTEMPTS = 10

Files = list[tuple[str, Path]]
"""Relative name and path of each."""


class LocalStore:
    """Objects in local folders, under `file://` URIs.

    Attributes:
        base_uri: Folder that holds all models.
    """

    def __init__(self, base_uri: str) -> None:
        """Use a folder; it is made when something is written.

        Args:
            base_uri: Folder that holds all models. When it is of another kind of storage, only
                folders elsewhere are served.
        """
        self.base_uri = trimmed(base_uri)
        self._base = local_path(base_uri) if base_uri.lower().startswith("file:") else None

    def check(self) -> None:
        """Write below `base_uri`, and take it away again."""
        rules.within(
            rules.CHECK_SECONDS,
            self._probe,
            f"{self.base_uri} did not answer within {rules.CHECK_SECONDS:.0f} s. If it is on a "
            f"network drive, check that the drive is there.",
        )

    def read(self, uri: str) -> tuple[bytes, str]:
        """Read one file."""
        path = self.path_of(uri)
        with explained("read", uri):
            try:
                data = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise ObjectNotFoundError(f"There is no object {uri}.") from None
        return data, _version(data)

    def write(self, uri: str, data: bytes, *, version: str | None = None, new: bool = False) -> str:
        """Write one file in one step."""
        rules.check_condition(version, new)
        path = self.path_of(uri)
        with explained("written", uri):
            for _ in range(_ATTEMPTS):
                # Somebody who removes the folder at this moment must not make the write fail.
                with suppress(FileNotFoundError):
                    with made(path.parent), _locked(path.parent):
                        _check_version(path, uri, version=version, new=new)
                        write_atomically(path, data)
                    return _version(data)
        raise StorageError(
            f"{uri} could not be written: its folder cannot be made, or is removed by somebody "
            f"else all the time."
        )

    def list(self, uri: str) -> list[ObjectInfo]:
        """All files below a folder."""
        found = []
        for name, path in self._files(uri):
            # A file that is gone by now was removed while we looked.
            with explained("listed", uri), suppress(FileNotFoundError):
                seen = path.stat()
                modified = datetime.fromtimestamp(seen.st_mtime, UTC)
                found.append(ObjectInfo(uri=join(uri, name), size=seen.st_size, modified=modified))
        return sorted(found, key=lambda info: info.uri)

    def upload(self, folder: Path, uri: str, *, exclude: tuple[str, ...] = ()) -> None:
        """Copy a folder's files to a folder of the storage."""
        target = self.path_of(uri)
        with explained("written", uri):
            _copy(uploadable(folder, exclude), target)

    def download(self, uri: str, folder: Path, *, exclude: tuple[str, ...] = ()) -> None:
        """Copy all files below a folder to another one."""
        files = self.files_of(uri, exclude)
        with explained("downloaded", uri):
            _copy(files, folder)

    def copy(self, source: str, target: str, *, exclude: tuple[str, ...] = ()) -> None:
        """Copy all files below a folder to another folder of the storage."""
        rules.check_copy(source, target)
        files, folder = self.files_of(source, exclude), self.path_of(target)
        with explained("written", target):
            _copy(files, folder)

    def delete(self, uri: str) -> int:
        """Remove a folder with everything in it; links are removed, never followed."""
        rules.check_delete(uri, self.base_uri)
        path = self.path_of(uri)
        if path.is_symlink():
            raise StorageError(f"{uri} is a symbolic link. Remove the link yourself.")
        with explained("deleted", uri):
            count = _count(path)
            for _ in range(_ATTEMPTS):
                if _removed(path):
                    return count
        raise StorageError(
            f"{uri} could not be deleted: somebody else writes there all the time. Stop that first."
        )

    def fingerprint(self, uri: str, *, exclude: tuple[str, ...] = ()) -> tuple[int, str]:
        """Size and hash of all files below a folder."""
        files = self.files_of(uri, exclude)
        with explained("read", uri):
            return rules.fingerprint_of(
                (name, path.stat().st_size, sha256_of(path)) for name, path in files
            )

    def path_of(self, uri: str) -> Path:
        """The path of a URI.

        Raises:
            StorageError: It leaves the folder of all models through a link.
        """
        path = local_path(uri)
        if self._base is not None and path.is_relative_to(self._base):
            try:
                inside = path.resolve().is_relative_to(self._base.resolve())
            except (OSError, RuntimeError):  # A circle of links; which of them depends on Python.
                inside = False
            if not inside:
                raise StorageError(
                    f"{uri} leads out of {self.base_uri} through a symbolic link. Remove the link, "
                    f"or put a copy in its place."
                )
        return path

    def files_of(self, uri: str, exclude: tuple[str, ...] = ()) -> Files:
        """Name and path of all files below a folder.

        Raises:
            ObjectNotFoundError: There are none.
        """
        files = self._files(uri, exclude)
        if not files:
            raise rules.nothing_below(uri)
        return files

    def _probe(self) -> None:
        folder = self.path_of(self.base_uri)
        probe = folder / f"{RESERVED}check-{os.urandom(8).hex()}"
        with explained("written to", self.base_uri), made(folder) as new:
            with _locked(folder):
                write_atomically(probe, b"")
                probe.unlink()
            remove_empty(new)

    def _files(self, uri: str, exclude: tuple[str, ...] = ()) -> Files:
        path = self.path_of(uri)
        with explained("listed", uri):
            return [entry for entry in files_below(path) if not excluded(entry[0], exclude)]


def uploadable(folder: Path, exclude: tuple[str, ...] = ()) -> Files:
    """Name and path of the files of a folder that somebody wants in the storage.

    Raises:
        StorageError: There is no such folder, or something in it is no plain file.
    """
    with explained("read", folder):
        if not folder.is_dir():
            raise StorageError(f"There is no folder {folder} to upload.")
        return [entry for entry in files_below(folder) if not excluded(entry[0], exclude)]


def _copy(files: Files, target: Path) -> None:
    if files:
        with staged(target) as stage:
            for name, path in files:
                copy_atomically(path, stage / name)


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_version(path: Path, uri: str, *, version: str | None, new: bool) -> None:
    if not new and version is None:
        return
    try:
        found = _version(path.read_bytes())
    except FileNotFoundError:
        found = None
    if found != version:
        raise PreconditionFailedError(
            f"{uri} could not be written: somebody else wrote or removed it in the meantime. Read "
            f"it again and decide again."
        )


def _removed(folder: Path) -> bool:
    """Remove a folder, unless somebody else writes to it or deletes it at the same moment."""
    try:
        if folder.is_dir():
            shutil.rmtree(folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTEMPTY):
            return False
        raise
    return True


def _count(folder: Path) -> int:
    return sum(
        not reserved((Path(root) / name).relative_to(folder).as_posix())
        for root, _, names in os.walk(folder)
        for name in names
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder between threads and processes."""
    path = folder / _LOCK
    deadline = time.monotonic() + _LOCK_SECONDS
    while (descriptor := _try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise StorageError(
                f"{folder} has been locked by another process for {_LOCK_SECONDS:.0f} s. Look for "
                f"one that was suspended while it wrote there (`fuser {path}`)."
            )
        # The kernel can wait for a lock, but not with a deadline. Locks are held for milliseconds.
        time.sleep(0.005)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    held = False
    try:
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before has removed the file; a lock on that one locks nobody out.
            held = os.path.samestat(os.fstat(descriptor), path.stat())
    finally:
        if not held:
            os.close(descriptor)
    return descriptor if held else None
