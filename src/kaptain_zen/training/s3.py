"""S3 for a training process and for the store alike: the client, listing, and moving files.

boto3 is loaded when a client is made, not before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from kaptain_zen.exceptions import ConfigurationError, StorageError
from kaptain_zen.training.files import sha256_of

SHA256 = "kaptain-sha256"
"""Metadata of an object: SHA-256 of its content in hexadecimal."""
PART_SIZE = 16 * 2**20
"""Files and objects from this size on, in bytes, are moved in parts of this size."""

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_VARIABLES = (
    *_KEYS,
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "KAPTAIN_S3_SIGNATURE_VERSION",
    "KAPTAIN_S3_FORCE_PATH_STYLE",
)
_TRUE = ("true", "1", "yes", "on")
_CONCURRENCY = 8
_DELETED_AT_ONCE = 1000
_shared: dict[tuple[Any, ...], Any] = {}


def client(
    environ: Mapping[str, str] | None = None,
    *,
    connect_timeout: float = 5,
    read_timeout: float = 30,
    attempts: int = 4,
) -> Any:
    """Make a boto3 client.

    Args:
        environ: The variables that `S3ConfigurationProvider.get_secret_body` gives. When there are
            none, those of the process, and whatever else boto3 finds credentials in.
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for the next bytes of an answer.
        attempts: How often a request is sent at most, when it may be sent again.

    Returns:
        The client; it may be used by several threads, and by this process only.

    Raises:
        ConfigurationError: The variables make no sense.
    """
    given = environ or os.environ
    _check_keys(given)
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    endpoint = given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL") or None
    path_style = given.get("KAPTAIN_S3_FORCE_PATH_STYLE", "").strip().lower() in _TRUE
    options: dict[str, Any] = {
        "connect_timeout": connect_timeout,
        "read_timeout": read_timeout,
        "retries": {"mode": "standard", "total_max_attempts": attempts},
        "max_pool_connections": 2 * _CONCURRENCY,
        "s3": {"addressing_style": "path" if path_style else "auto"},
        # A configuration that names no endpoint means AWS's own, whatever this process's
        # environment says.
        "ignore_configured_endpoint_urls": given is not os.environ,
        "signature_version": given.get("KAPTAIN_S3_SIGNATURE_VERSION") or None,
    }
    if endpoint:
        # Other servers than AWS's do not all know the checksums that are sent by default.
        options["request_checksum_calculation"] = "when_required"
        options["response_checksum_validation"] = "when_required"
    try:
        session = Session(
            aws_access_key_id=given.get("AWS_ACCESS_KEY_ID") or None,
            aws_secret_access_key=given.get("AWS_SECRET_ACCESS_KEY") or None,
            aws_session_token=given.get("AWS_SESSION_TOKEN") or None,
            region_name=given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or None,
        )
        return session.client("s3", endpoint_url=endpoint, config=Config(**options))
    except (BotoCoreError, ValueError) as error:
        # The text may hold an endpoint with a password in it.
        raise ConfigurationError(
            f"The S3 configuration cannot be used ({type(error).__name__}). Check the endpoint, "
            f"the region and AWS_PROFILE."
        ) from None


def shared_client(environ: Mapping[str, str]) -> Any:
    """The client of this process for these variables; made once, because that takes a while."""
    key = (os.getpid(), *(environ.get(name) for name in _VARIABLES))
    if key not in _shared:
        _shared[key] = client(environ)
    return _shared[key]


def objects_below(client: Any, bucket: str, folder: str) -> Iterator[tuple[str, int, datetime]]:
    """Key, size and last change of all objects below a folder, in the order of the keys."""
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=f"{folder}/" if folder else ""
    )
    for page in pages:
        for entry in page.get("Contents", ()):
            yield entry["Key"], entry["Size"], entry["LastModified"]


def delete_keys(client: Any, bucket: str, keys: Sequence[str]) -> None:
    """Remove objects, as many at a time as S3 takes.

    Raises:
        StorageError: Some could not be removed.
    """
    for start in range(0, len(keys), _DELETED_AT_ONCE):
        batch = keys[start : start + _DELETED_AT_ONCE]
        answer = client.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
        )
        refused = answer.get("Errors", ())
        if refused:
            first = refused[0]
            raise StorageError(
                f"{len(refused)} of {len(batch)} objects could not be deleted; the first is "
                f"s3://{bucket}/{first.get('Key')} ({first.get('Code')}). Ask for the permission "
                f"to delete objects there."
            )


def put_files(
    client: Any,
    bucket: str,
    folder: str,
    files: Sequence[tuple[str, Path]],
    *,
    part_size: int = PART_SIZE,
) -> None:
    """Upload files, large ones in parts, each with its hash as metadata.

    When it fails or is interrupted, unfinished parts are aborted and objects that were not there
    before are removed.

    Args:
        client: The boto3 client.
        bucket: Where to.
        folder: Key of the folder.
        files: Name below the folder, and path, of each.
        part_size: Bytes from which on, and in which, a file is split.

    Raises:
        StorageError: A file changed while it was read.
    """
    keyed = [(f"{folder}/{name}" if folder else name, path) for name, path in files]
    with (
        removed_on_failure(client, bucket, folder, [key for key, _ in keyed]),
        transfers(client, part_size) as manager,
    ):
        pending = []
        for key, path in keyed:
            state = _state(path)
            extra = {"Metadata": {SHA256: sha256_of(path)}}
            pending.append((path, state, manager.upload(str(path), bucket, key, extra)))
        for path, state, future in pending:
            _finish(path, state, future)


@contextmanager
def removed_on_failure(
    client: Any, bucket: str, folder: str, keys: Iterable[str]
) -> Iterator[None]:
    """Remove objects again that the block has made, when it fails.

    Args:
        client: The boto3 client.
        bucket: Where they are.
        folder: Key of the folder that they are in.
        keys: Of all objects that the block may make or replace.
    """
    before = {key for key, *_ in objects_below(client, bucket, folder)}
    try:
        yield
    except BaseException:
        # What went wrong first is what the caller has to know.
        with suppress(Exception):
            delete_keys(client, bucket, [key for key in keys if key not in before])
        raise


def transfers(client: Any, part_size: int = PART_SIZE) -> Any:
    """A manager that moves objects in several threads, and cancels all when its block fails."""
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    config = TransferConfig(
        multipart_threshold=part_size,
        multipart_chunksize=part_size,
        max_concurrency=_CONCURRENCY,
        preferred_transfer_client="classic",
    )
    return create_transfer_manager(client, config)


def _finish(path: Path, state: tuple[int, int, int], future: Any) -> None:
    """Wait for an upload. A file that changes is refused by some servers, and stored by others."""
    cause = None
    try:
        future.result()
    except Exception as error:
        if _state(path) == state:
            raise
        cause = error
    if _state(path) != state:
        raise StorageError(
            f"{path} changed while it was being uploaded. Upload it when it is complete."
        ) from cause


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _check_keys(environ: Mapping[str, str]) -> None:
    """Refuse keys that cannot be sent, before a library shows them in an error of its own."""
    for name in _KEYS:
        value = environ.get(name)
        if value and not all("!" <= character <= "~" for character in value):
            raise ConfigurationError(
                f"{name} holds a blank, a line end or another character that a key cannot hold. "
                f"Copy it again."
            )
    if bool(environ.get(_KEYS[0])) != bool(environ.get(_KEYS[1])):
        raise ConfigurationError(f"Of {_KEYS[0]} and {_KEYS[1]} only one is set. Set both.")
