"""Where the local platform keeps what must outlive a client: runs, services, image checksums.

    <home>/models/                    storage when none is configured, laid out as in S3
    <home>/images/<name>.json         checksum of each image that was "built"
    <home>/runs/<name>/               one training or tuning
    <home>/services/<model>/          one service

Files are replaced in one step, so that a reader never sees half of one. Locks are the kernel's
(`flock`): they vanish with the process that held them.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaptain_zen.exceptions import ConfigurationError

HOME_VARIABLE = "KAPTAIN_ZEN_HOME"
DEFAULT_HOME = "~/.kaptain-zen"


@dataclass(frozen=True)
class LocalHome:
    """The folder that a local platform works in.

    Attributes:
        root: Absolute path.
    """

    root: Path

    @classmethod
    def resolve(cls, root: str | os.PathLike[str] | None = None) -> LocalHome:
        """Find the home: the argument, else `KAPTAIN_ZEN_HOME`, else `~/.kaptain-zen`."""
        chosen = root or os.environ.get(HOME_VARIABLE) or DEFAULT_HOME
        return cls(Path(chosen).expanduser().absolute())

    @property
    def runs(self) -> Path:
        """Folder of trainings and tunings."""
        return self.root / "runs"

    @property
    def services(self) -> Path:
        """Folder of services."""
        return self.root / "services"

    @property
    def images(self) -> Path:
        """Folder of image checksums."""
        return self.root / "images"

    @property
    def models_uri(self) -> str:
        """Storage URI to use when none is configured."""
        return (self.root / "models").as_uri()

    def ensure(self, folder: Path) -> Path:
        """Make a folder of the home, readable by its owner only.

        Raises:
            ConfigurationError: It cannot be made or written to.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"The local platform cannot use {folder}: {error.strerror}. Set {HOME_VARIABLE} "
                f"to a folder that you may write to."
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"The local platform cannot write to {folder}. Set {HOME_VARIABLE} to a folder "
                f"that you may write to."
            )
        return folder


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file's content in one step, surviving a kill at any moment."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a JSON value in one step."""
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> Any | None:
    """Read a JSON file; None if there is none."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def locked(path: Path, *, blocking: bool = True) -> Iterator[bool]:
    """Hold a lock between processes and threads for the length of a block.

    Args:
        path: The lock's file; made when missing, and left.
        blocking: Whether to wait for it.

    Yields:
        Whether the lock is held; always True when blocking.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
