"""What is done with single objects in S3."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from typing import Any

from kaptain_zen.training.s3 import SHA256
from kaptain_zen.training.s3_errors import changed

_WRITE_ID = "kaptain-write"
_HASH = re.compile(r"[0-9a-f]{64}")
_CHUNK = 2**20
_UPLOADS_LISTED = 10_000


def put(client: Any, target: dict[str, str], data: bytes, *, version: str | None, new: bool) -> str:
    """Write an object, if the condition holds.

    Args:
        client: The boto3 client.
        target: Bucket and key, as boto3 wants them.
        data: What.
        version: Only if the object still has this ETag.
        new: Only if there is no such object.

    Returns:
        The new ETag.
    """
    from botocore.exceptions import ClientError

    write_id = os.urandom(16).hex()
    metadata = {SHA256: hashlib.sha256(data).hexdigest(), _WRITE_ID: write_id}
    condition = {"IfNoneMatch": "*"} if new else {"IfMatch": version} if version else {}
    try:
        return str(client.put_object(**target, Body=data, Metadata=metadata, **condition)["ETag"])
    except ClientError as error:
        # When the answer to a write gets lost, the write is sent again, and then it fails because
        # of what it has itself written.
        if changed(error):
            with suppress(ClientError):
                found = client.head_object(**target)
                if found["Metadata"].get(_WRITE_ID) == write_id:
                    return str(found["ETag"])
        raise


def refuses_second(client: Any, target: dict[str, str]) -> bool:
    """Whether an object that is there cannot be written by who wants it to be new."""
    from botocore.exceptions import ClientError

    try:
        client.put_object(**target, Body=b"", IfNoneMatch="*")
    except ClientError as error:
        if changed(error):
            return True
        raise
    return False


def sha256_of(client: Any, bucket: str, key: str) -> str:
    """SHA-256 of an object in hexadecimal: from its metadata, else over its bytes."""
    known = client.head_object(Bucket=bucket, Key=key)["Metadata"].get(SHA256, "")
    if _HASH.fullmatch(known):
        return str(known)
    digest = hashlib.sha256()
    for chunk in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def kept(head: dict[str, Any]) -> dict[str, Any]:
    """What a copy in parts has to be told to keep of the object that it is made from."""
    return {
        "MetadataDirective": "REPLACE",
        "Metadata": head["Metadata"],
        "ContentType": head.get("ContentType", "binary/octet-stream"),
    }


def abort_uploads(client: Any, bucket: str, folder: str) -> None:
    """Remove the parts of uploads to a folder that were killed before they were complete.

    A storage that does not list them, or does not let us, keeps them.
    """
    from botocore.exceptions import ClientError

    with suppress(ClientError):
        # Not asked for by prefix: MinIO then lists the uploads of an object of that very name.
        pages = client.get_paginator("list_multipart_uploads").paginate(
            Bucket=bucket, PaginationConfig={"MaxItems": _UPLOADS_LISTED}
        )
        for page in pages:
            for upload in page.get("Uploads", ()):
                if upload["Key"].startswith(f"{folder}/"):
                    client.abort_multipart_upload(
                        Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
