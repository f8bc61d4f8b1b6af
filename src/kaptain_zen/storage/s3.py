"""Storage in S3, MinIO, or anything else that speaks its protocol.

Conditional writes are the server's own (`If-Match`, `If-None-Match`); an object's version is its
ETag. Copies are made by the server. Whatever fails on the way leaves neither unfinished parts nor
objects that were not there before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from kaptain_zen.exceptions import ObjectNotFoundError, StorageError
from kaptain_zen.model.ports import ObjectInfo
from kaptain_zen.storage import rules
from kaptain_zen.storage import s3_objects as objects
from kaptain_zen.storage.local import uploadable
from kaptain_zen.storage.uri import Location, join, parse, shown, trimmed
from kaptain_zen.training import files, s3
from kaptain_zen.training.s3_errors import address, explained
from kaptain_zen.training.uris import legal_name

_READERS = 8


class _Object(NamedTuple):
    """An object below a folder, by its name there."""

    name: str
    size: int
    modified: datetime


_Objects = list[_Object]


class S3Store:
    """Objects in buckets, under `s3://` URIs.

    Attributes:
        base_uri: Folder that holds all models.
    """

    def __init__(
        self,
        base_uri: str,
        environment: Mapping[str, str] | None = None,
        *,
        part_size: int = s3.PART_SIZE,
    ) -> None:
        """Use a storage; nothing is sent, and boto3 is not loaded, until a method is called.

        Args:
            base_uri: Folder that holds all models.
            environment: The variables that `S3ConfigurationProvider.get_secret_body` gives; those
                of the process, and whatever else boto3 finds, if there are none.
            part_size: Bytes from which on, and in which, objects are moved in parts; S3 takes
                5 MiB and more.
        """
        self.base_uri = trimmed(base_uri)
        self._environment = dict(environment or {})
        self._part_size = part_size
        self._lock = threading.Lock()
        self._made: tuple[int, Any] | None = None

    def check(self) -> None:
        """Write an object below `base_uri`, prove that it cannot be made twice, and remove it."""
        client = s3.client(self._environment, connect_timeout=3, read_timeout=3, attempts=2)
        rules.within(
            rules.CHECK_SECONDS,
            lambda: self._probe(client),
            f"{self.base_uri} could not be reached: {address(client)} did not answer within "
            f"{rules.CHECK_SECONDS:.0f} s. Check that it runs and can be reached from here, and "
            f"the endpoint of Config.storage_config_provider or AWS_ENDPOINT_URL_S3.",
        )

    def read(self, uri: str) -> tuple[bytes, str]:
        """Read one object."""
        client, target = self._object(uri)
        with explained("read", uri, client):
            answer = client.get_object(**target)
            return answer["Body"].read(), answer["ETag"]

    def write(self, uri: str, data: bytes, *, version: str | None = None, new: bool = False) -> str:
        """Write one object."""
        rules.check_condition(version, new)
        client, target = self._object(uri)
        with explained("written", uri, client):
            return objects.put(client, target, data, version=version, new=new)

    def list(self, uri: str) -> list[ObjectInfo]:
        """All objects below a folder."""
        return [
            ObjectInfo(uri=f"{trimmed(uri)}/{name}", size=size, modified=modified)
            for name, size, modified in self._objects(uri)
        ]

    def upload(self, folder: Path, uri: str, *, exclude: tuple[str, ...] = ()) -> None:
        """Copy a folder's files to a folder of the storage."""
        found = uploadable(folder, exclude)
        target, client = parse(uri), self._client
        for name, _ in found:
            join(uri, name)  # Refuses a key that is too long before anything is uploaded.
        if found:
            with explained("written", uri, client):
                s3.put_files(client, target.bucket, target.path, found, part_size=self._part_size)

    def download(self, uri: str, folder: Path, *, exclude: tuple[str, ...] = ()) -> None:
        """Copy all objects below a folder to a local one."""
        found = self._some_objects(uri, exclude)
        _check_file_names(uri, [name for name, *_ in found])
        source, client = parse(uri), self._client
        with (
            files.explained("downloaded", uri),
            files.staged(folder) as stage,
            explained("downloaded", uri, client),
            s3.transfers(client, self._part_size) as manager,
        ):
            pending = []
            for name, *_ in found:
                path = stage / name
                path.parent.mkdir(parents=True, exist_ok=True)
                pending.append(manager.download(source.bucket, _key(source, name), str(path)))
            for future in pending:
                future.result()

    def copy(self, source: str, target: str, *, exclude: tuple[str, ...] = ()) -> None:
        """Have the server copy all objects below a folder to another one."""
        rules.check_copy(source, target)
        found = self._some_objects(source, exclude)
        origin, goal, client = parse(source), parse(target), self._client
        keys = [_key(goal, name) for name, *_ in found]
        with (
            explained("written", target, client),
            s3.removed_on_failure(client, goal.bucket, goal.path, keys),
            s3.transfers(client, self._part_size) as manager,
        ):
            pending = []
            for (name, size, _), key in zip(found, keys, strict=True):
                item = {"Bucket": origin.bucket, "Key": _key(origin, name)}
                extra = (
                    objects.kept(client.head_object(**item)) if size >= self._part_size else None
                )
                pending.append(manager.copy(item, goal.bucket, key, extra))
            for future in pending:
                future.result()

    def delete(self, uri: str) -> int:
        """Remove all objects below a folder, and what an interrupted upload has left there."""
        rules.check_delete(uri, self.base_uri)
        location, client = parse(uri), self._client
        with explained("deleted", uri, client):
            keys = [key for key, *_ in s3.objects_below(client, location.bucket, location.path)]
            s3.delete_keys(client, location.bucket, keys)
            objects.abort_uploads(client, location.bucket, location.path)
        names = [key[len(location.path) + 1 :] for key in keys]
        return sum(_shows(name) for name in names)

    def fingerprint(self, uri: str, *, exclude: tuple[str, ...] = ()) -> tuple[int, str]:
        """Size and hash of all objects below a folder; most hashes are in their metadata."""
        found = self._some_objects(uri, exclude)
        location, client = parse(uri), self._client
        keys = [_key(location, name) for name, *_ in found]
        with explained("read", uri, client), ThreadPoolExecutor(_READERS) as readers:
            hashes = list(
                readers.map(lambda key: objects.sha256_of(client, location.bucket, key), keys)
            )
        return rules.fingerprint_of(
            (name, size, content) for (name, size, _), content in zip(found, hashes, strict=True)
        )

    @property
    def _client(self) -> Any:
        """The client; made anew in a forked process, which must not share its connections."""
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), s3.client(self._environment)
            return self._made[1]

    def _object(self, uri: str) -> tuple[Any, dict[str, str]]:
        location = parse(uri)
        if not location.path:
            raise ObjectNotFoundError(f"{shown(uri)} is a bucket, not an object.")
        return self._client, {"Bucket": location.bucket, "Key": location.path}

    def _objects(self, uri: str, exclude: tuple[str, ...] = ()) -> _Objects:
        """All objects below a folder, by their names there."""
        location, client = parse(uri), self._client
        skip = len(location.path) + 1 if location.path else 0
        with explained("listed", uri, client):
            found = list(s3.objects_below(client, location.bucket, location.path))
        named = [_Object(key[skip:], size, modified) for key, size, modified in found]
        return [
            entry
            for entry in named
            if _shows(entry.name) and not files.excluded(entry.name, exclude)
        ]

    def _some_objects(self, uri: str, exclude: tuple[str, ...]) -> _Objects:
        found = self._objects(uri, exclude)
        if not found:
            raise rules.nothing_below(uri)
        return found

    def _probe(self, client: Any) -> None:
        name = f"{files.RESERVED}check-{os.urandom(8).hex()}"
        location = parse(join(self.base_uri, name))
        target = {"Bucket": location.bucket, "Key": location.path}
        with explained("written to", self.base_uri, client):
            objects.put(client, target, b"", version=None, new=True)
            try:
                conditional = objects.refuses_second(client, target)
            finally:
                client.delete_object(**target)
        if not conditional:
            raise StorageError(
                f"{self.base_uri} cannot hold models: {address(client)} overwrites an object that "
                f"was to be written only if there is none (If-None-Match), so that two clients "
                f"would lose each other's work. Use AWS S3 or a newer MinIO."
            )


def _key(folder: Location, name: str) -> str:
    return f"{folder.path}/{name}" if folder.path else name


def _shows(name: str) -> bool:
    """Whether an object is part of what a folder holds: no marker of a folder, nothing of ours."""
    return bool(name) and not name.endswith("/") and not files.reserved(name)


def _check_file_names(uri: str, names: list[str]) -> None:
    """Refuse to download what local folders cannot hold, before anything is downloaded."""
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    for name in names:
        if not legal_name(name) or name in folders:
            raise StorageError(
                f"{uri} cannot be downloaded: its object {name!r} can be no file, because its name "
                f"is not legal or is a folder's as well. Rename it."
            )
