"""The store that a model uses: one object for URIs of every kind of storage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kaptain_zen.storage.local import LocalStore
from kaptain_zen.storage.s3 import S3Store
from kaptain_zen.storage.uri import parse, trimmed

if TYPE_CHECKING:
    from kaptain_zen.config import Config
    from kaptain_zen.model.ports import ObjectInfo, Store


def open_store(config: Config) -> Store:
    """Make the store of a configuration.

    Args:
        config: For the folder of all models, and for the storage's credentials.

    Returns:
        The store. Nothing is read, written or connected to until it is used.

    Raises:
        ConfigurationError: The folder's URI is not supported.
    """
    base_uri = config.base_model_storage_uri
    parse(base_uri)
    return AnyStore(base_uri, LocalStore(base_uri), S3Store(base_uri, config.storage_environment()))


class AnyStore:
    """Hands every URI to the store of its kind; a model may be deployed from elsewhere.

    Attributes:
        base_uri: Folder that holds all models.
    """

    def __init__(self, base_uri: str, local: LocalStore, s3: S3Store) -> None:
        """Put the stores together."""
        self.base_uri = trimmed(base_uri)
        self._local, self._s3 = local, s3

    def check(self) -> None:
        """Prove that objects can be written below `base_uri`; leave nothing."""
        self._of(self.base_uri).check()

    def read(self, uri: str) -> tuple[bytes, str]:
        """Read one object."""
        return self._of(uri).read(uri)

    def write(self, uri: str, data: bytes, *, version: str | None = None, new: bool = False) -> str:
        """Write one object in one step."""
        return self._of(uri).write(uri, data, version=version, new=new)

    def list(self, uri: str) -> list[ObjectInfo]:
        """All objects below a folder."""
        return self._of(uri).list(uri)

    def upload(self, folder: Path, uri: str) -> None:
        """Copy a local folder's files to a folder of the storage."""
        self._of(uri).upload(folder, uri)

    def download(self, uri: str, folder: Path) -> None:
        """Copy all objects below a folder to a local one."""
        self._of(uri).download(uri, folder)

    def copy(self, source: str, target: str, *, exclude: tuple[str, ...] = ()) -> None:
        """Copy all objects below a folder to another one, which may be of another kind."""
        schemes = parse(source).scheme, parse(target).scheme
        if schemes == ("file", "s3"):
            self._local.files_of(source, exclude)  # Raises when there are none.
            self._s3.upload(self._local.path_of(source), target, exclude=exclude)
        elif schemes == ("s3", "file"):
            self._s3.download(source, self._local.path_of(target), exclude=exclude)
        else:
            self._of(source).copy(source, target, exclude=exclude)

    def delete(self, uri: str) -> int:
        """Remove all objects below a folder, and the folder."""
        return self._of(uri).delete(uri)

    def fingerprint(self, uri: str, *, exclude: tuple[str, ...] = ()) -> tuple[int, str]:
        """Size and hash over names and contents of all objects below a folder."""
        return self._of(uri).fingerprint(uri, exclude=exclude)

    def _of(self, uri: str) -> LocalStore | S3Store:
        return self._s3 if parse(uri).scheme == "s3" else self._local
