"""A training script that hands its model and metrics over to S3."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.local.storage_support import put_tree, tree_of, wire_to
from tests.s3_server import S3Server

from kaptain_zen.exceptions import StorageError
from kaptain_zen.storage.s3 import S3Store
from kaptain_zen.storage.uri import join, parse
from kaptain_zen.training.export import UPLOAD_PATH, ModelExportUtil


@pytest.fixture
def store(s3_server: S3Server, s3_folder: str) -> S3Store:
    return S3Store(s3_folder, s3_server.environment)


SCRIPT = textwrap.dedent(
    """
    from pathlib import Path
    from kaptain_zen.platform.metadata_util import MetadataUtil
    from kaptain_zen.platform.model_export_util import ModelExportUtil

    Path("model.joblib").write_bytes(b"weights")
    print(ModelExportUtil().upload_model("model.joblib"))
    MetadataUtil.record_metrics({"loss": 0.25})
    MetadataUtil.record_metrics({"accuracy": 0.9688, "loss": 0.125})
    """
)


def train(server: S3Server, uri: str, folder: Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=os.environ | server.environment | {UPLOAD_PATH: uri} | more,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_a_model_and_its_metrics_reach_the_storage(
    s3_server: S3Server, store: S3Store, tmp_path: Path
) -> None:
    printed = train(s3_server, store.base_uri, tmp_path)
    assert printed.splitlines() == [
        join(store.base_uri, "model.joblib"),
        "loss=0.25",
        "accuracy=0.9688",
        "loss=0.125",
    ]
    assert store.read(join(store.base_uri, "model.joblib"))[0] == b"weights"
    metrics = json.loads(store.read(join(store.base_uri, "metrics.json"))[0])
    assert metrics == {"accuracy": 0.9688, "loss": 0.125}
    location = parse(join(store.base_uri, "model.joblib"))
    head = s3_server.client().head_object(Bucket=location.bucket, Key=location.path)
    assert head["Metadata"]["kaptain-sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_only_rank_0_writes(s3_server: S3Server, store: S3Store, tmp_path: Path) -> None:
    printed = train(s3_server, store.base_uri, tmp_path, RANK="1")
    assert printed.startswith(join(store.base_uri, "model.joblib"))
    assert store.list(store.base_uri) == []


def test_the_trained_model_has_the_fingerprint_of_the_folder(
    s3_server: S3Server, store: S3Store, tmp_path: Path
) -> None:
    source = put_tree(tmp_path / "model", {"saved_model.pb": b"1", "variables/v.data": b"2"})
    environ = s3_server.environment | {UPLOAD_PATH: store.base_uri}
    assert ModelExportUtil(environ).upload_model(source) == store.base_uri
    store.download(store.base_uri, tmp_path / "back")
    assert tree_of(tmp_path / "back") == tree_of(source)
    store.upload(source, join(store.base_uri, "by-the-store"))
    assert store.fingerprint(store.base_uri, exclude=("by-the-store",)) == (
        store.fingerprint(join(store.base_uri, "by-the-store"))
    )


def test_a_failed_upload_leaves_no_part_of_a_model(
    s3_server: S3Server, store: S3Store, tmp_path: Path
) -> None:
    source = put_tree(tmp_path / "model", {"a": b"1", "b": b"2"})
    with wire_to(s3_server.endpoint) as wire:
        wire.refuse = lambda line: line.startswith("PUT") and line.split()[1].endswith("/b")
        environ = s3_server.environment | {
            UPLOAD_PATH: store.base_uri,
            "AWS_ENDPOINT_URL_S3": wire.url,
        }
        with pytest.raises(StorageError, match=wire.url):
            ModelExportUtil(environ).upload_model(source)
    assert store.list(store.base_uri) == []


def test_metrics_that_somebody_broke_are_not_overwritten(
    s3_server: S3Server, store: S3Store, tmp_path: Path
) -> None:
    store.write(join(store.base_uri, "metrics.json"), b"[broken")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        train(s3_server, store.base_uri, tmp_path)
    assert "no JSON object of metrics. Remove it." in caught.value.stderr
    assert store.read(join(store.base_uri, "metrics.json"))[0] == b"[broken"
