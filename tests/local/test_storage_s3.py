"""What only S3 has: parts, pages, lost answers, interrupted transfers, servers that refuse."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.local.storage_support import Once, Wire, put_tree, store_at, tree_of, wire_to
from tests.s3_server import SECRET_KEY, S3Server, provider, started

from kaptain_zen.exceptions import (
    ConfigurationError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StorageError,
)
from kaptain_zen.platform.config.s3 import S3ConfigurationProvider
from kaptain_zen.storage.s3 import S3Store
from kaptain_zen.storage.uri import join, parse
from kaptain_zen.training.s3 import SHA256, objects_below

MIB = 2**20
PART = 5 * MIB


@pytest.fixture
def store(s3_server: S3Server, s3_folder: str) -> S3Store:
    return S3Store(s3_folder, s3_server.environment, part_size=PART)


def metadata_of(server: S3Server, uri: str) -> dict[str, str]:
    location = parse(uri)
    return server.client().head_object(Bucket=location.bucket, Key=location.path)["Metadata"]


def unfinished_uploads(server: S3Server, uri: str) -> list[str]:
    """Keys of uploads in parts that were neither completed nor aborted."""
    location = parse(uri)
    found = server.client().list_multipart_uploads(Bucket=location.bucket)
    return [u["Key"] for u in found.get("Uploads", ()) if u["Key"].startswith(location.path)]


class TestLargeAndMany:
    def test_large_files_go_in_parts_and_keep_their_hash(
        self, s3_server: S3Server, store: S3Store, tmp_path: Path
    ) -> None:
        data = os.urandom(PART + 1234)
        source = put_tree(tmp_path / "source", {"large": data, "small": b"s"})
        here, there = join(store.base_uri, "here"), join(store.base_uri, "there")
        store.upload(source, here)
        store.copy(here, there)
        for folder in (here, there):
            location = parse(join(folder, "large"))
            head = s3_server.client().head_object(Bucket=location.bucket, Key=location.path)
            assert head["ETag"].endswith('-2"')  # S3's sign of an object in two parts.
            assert len(head["Metadata"][SHA256]) == 64
        assert store.fingerprint(there) == store.fingerprint(here)
        store.download(there, tmp_path / "back")
        assert tree_of(tmp_path / "back") == {"large": data, "small": b"s"}
        assert unfinished_uploads(s3_server, store.base_uri) == []

    def test_more_objects_than_fit_on_a_page(self, store: S3Store, tmp_path: Path) -> None:
        count = 1003
        source = put_tree(tmp_path / "source", {f"{n:04}": b"%d" % n for n in range(count)})
        store.upload(source, store.base_uri)
        assert len(store.list(store.base_uri)) == count
        assert store.delete(store.base_uri) == count
        assert store.list(store.base_uri) == []

    def test_objects_that_somebody_else_made_have_the_same_fingerprint(
        self, s3_server: S3Server, store: S3Store, tmp_path: Path
    ) -> None:
        source = put_tree(tmp_path / "source", {"a": b"1" * 3 * MIB, "b/c": b""})
        location = parse(store.base_uri)
        for name, data in tree_of(source).items():
            s3_server.client().put_object(
                Bucket=location.bucket, Key=f"{location.path}/{name}", Body=data
            )
        foreign = store.fingerprint(store.base_uri)
        store.upload(source, join(store.base_uri, "ours"))
        assert foreign == store.fingerprint(join(store.base_uri, "ours"))

    def test_markers_of_folders_are_no_objects_but_are_deleted(
        self, s3_server: S3Server, store: S3Store
    ) -> None:
        location = parse(store.base_uri)
        for name in ("", "empty/"):
            s3_server.client().put_object(Bucket=location.bucket, Key=f"{location.path}/{name}")
        assert store.list(store.base_uri) == []
        assert store.delete(store.base_uri) == 0
        found = s3_server.client().list_objects_v2(Bucket=location.bucket, Prefix=location.path)
        assert found["KeyCount"] == 0

    @pytest.mark.parametrize("names", [["a", "a/b"], ["x//y"], ["../../../evil"], ["./x"]])
    def test_objects_that_cannot_be_files_are_not_downloaded(
        self, s3_server: S3Server, store: S3Store, tmp_path: Path, names: list[str]
    ) -> None:
        location, client = parse(store.base_uri), s3_server.client()
        keys = [f"{location.path}/{name}" for name in names]
        try:
            for key in keys:
                client.put_object(Bucket=location.bucket, Key=key, Body=b"x")
            if [key for key, *_ in objects_below(client, location.bucket, location.path)] != keys:
                pytest.skip("this server does not list such keys")
            with pytest.raises(StorageError, match="can be no file"):
                store.download(store.base_uri, tmp_path / "target")
        except client.exceptions.ClientError:
            pytest.skip("this server takes no such key")
        finally:
            for key in keys:
                with suppress(client.exceptions.ClientError):
                    client.delete_object(Bucket=location.bucket, Key=key)
        assert list(tmp_path.iterdir()) == []

    def test_a_key_that_is_too_long_is_refused_before_anything_is_uploaded(
        self, store: S3Store, tmp_path: Path
    ) -> None:
        deep = "/".join(["d" * 200] * 6)
        source = put_tree(tmp_path / "source", {"a": b"", f"{deep}/x": b""})
        with pytest.raises(ConfigurationError, match="1024 bytes"):
            store.upload(source, store.base_uri)
        assert store.list(store.base_uri) == []


class TestOneClient:
    def test_a_forked_process_gets_connections_of_its_own(self, store: S3Store) -> None:
        contents = {name: name.encode() * 100_000 for name in ("parent", "child")}
        for name, data in contents.items():
            store.write(join(store.base_uri, name), data)

        def reads_its_own(name: str) -> bool:
            uri = join(store.base_uri, name)
            return all(store.read(uri)[0] == contents[name] for _ in range(30))

        parents = store._client
        child = os.fork()
        if child == 0:
            # Whatever happens, the child must not run pytest's own clean-up.
            try:
                os._exit(0 if reads_its_own("child") and store._client is not parents else 1)
            finally:
                os._exit(2)
        try:
            assert reads_its_own("parent")
        finally:
            _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    def test_nothing_loads_boto3_before_it_is_needed(self, tmp_path: Path) -> None:
        script = (
            "import sys\n"
            "from kaptain_zen.config import Config\n"
            "from kaptain_zen.storage.store import open_store\n"
            "store = open_store(Config(base_model_storage_uri=sys.argv[1]))\n"
            "store.write(sys.argv[1] + '/x', b''); store.list(sys.argv[1]); store.check()\n"
            "open_store(Config(base_model_storage_uri='s3://bucket/x'))\n"
            "loaded = {'boto3', 'botocore', 's3transfer', 'zenml'} & set(sys.modules)\n"
            "assert not loaded, loaded\n"
        )
        subprocess.run([sys.executable, "-c", script, tmp_path.as_uri()], check=True, timeout=60)


@pytest.fixture
def wire(s3_server: S3Server) -> Any:
    with wire_to(s3_server.endpoint) as wire:
        yield wire


@pytest.fixture
def wired(wire: Wire, s3_server: S3Server, s3_folder: str) -> S3Store:
    body = s3_server.environment | {"AWS_ENDPOINT_URL_S3": wire.url}
    return S3Store(s3_folder, body, part_size=PART)


class TestABadWire:
    @pytest.mark.parametrize("condition", ["new", "version"])
    def test_a_write_whose_answer_got_lost_has_succeeded(
        self, wire: Wire, wired: S3Store, store: S3Store, condition: str
    ) -> None:
        uri = join(wired.base_uri, "x")
        how: dict[str, Any] = (
            {"new": True} if condition == "new" else {"version": store.write(uri, b"old")}
        )
        wire.swallow = Once(lambda line: line.startswith("PUT"))
        version = wired.write(uri, b"mine", **how)
        assert sum(line.startswith("PUT") for line in wire.requests) == 2
        assert store.read(uri) == (b"mine", version)

    def test_the_loser_is_told_so_even_when_both_write_the_same(
        self, wired: S3Store, store: S3Store
    ) -> None:
        uri = join(wired.base_uri, "x")
        store.write(uri, b"same", new=True)
        with pytest.raises(PreconditionFailedError):
            wired.write(uri, b"same", new=True)

    def test_a_failed_upload_takes_back_what_it_has_written(
        self, wire: Wire, wired: S3Store, store: S3Store, tmp_path: Path, s3_server: S3Server
    ) -> None:
        store.write(join(store.base_uri, "model/there-before"), b"stays")
        source = put_tree(
            tmp_path / "source", {"a": b"1", "there-before": b"", "z": b"2" * 2 * PART}
        )
        wire.refuse = lambda line: "partNumber=2" in line
        with pytest.raises(StorageError, match="did not answer as it should"):
            wired.upload(source, join(wired.base_uri, "model"))
        left = [info.uri for info in store.list(store.base_uri)]
        assert left == [join(store.base_uri, "model/there-before")]
        assert unfinished_uploads(s3_server, store.base_uri) == []

    def test_a_file_that_changes_meanwhile_is_not_stored_with_a_wrong_hash(
        self, wire: Wire, wired: S3Store, store: S3Store, tmp_path: Path
    ) -> None:
        source = put_tree(tmp_path / "source", {"a": b"1"})

        def change(line: str) -> bool:
            if line.startswith("PUT"):
                (source / "a").write_bytes(b"2")
            return False

        wire.refuse = change
        with pytest.raises(StorageError, match="changed while it was being uploaded"):
            wired.upload(source, wired.base_uri)
        assert store.list(store.base_uri) == []

    def test_a_failed_copy_takes_back_what_it_has_written(
        self, wire: Wire, wired: S3Store, store: S3Store
    ) -> None:
        here, there = join(store.base_uri, "here"), join(store.base_uri, "there")
        for name in "ab":
            store.write(join(here, name), b"")
        wire.refuse = lambda line: line.startswith("PUT") and "/there/b" in line
        with pytest.raises(StorageError):
            wired.copy(here, there)
        assert store.list(there) == []

    def test_a_failed_download_leaves_nothing(
        self, wire: Wire, wired: S3Store, store: S3Store, tmp_path: Path
    ) -> None:
        for name in "ab":
            store.write(join(store.base_uri, name), b"")
        wire.refuse = lambda line: line.startswith("GET") and line.split()[1].endswith("/b")
        before = put_tree(tmp_path / "there", {"mine": b""})
        for folder in (tmp_path / "new" / "folder", before):
            with pytest.raises(StorageError):
                wired.download(store.base_uri, folder)
        assert [path.name for path in tmp_path.iterdir()] == ["there"]
        assert [path.name for path in before.iterdir()] == ["mine"]


UPLOADER = (
    "import sys\n"
    "from pathlib import Path\n"
    "from kaptain_zen.storage.s3 import S3Store\n"
    "from kaptain_zen.platform.config.s3 import S3ConfigurationProvider\n"
    "body = S3ConfigurationProvider.from_env().get_secret_body()\n"
    "store = S3Store(sys.argv[1], body, part_size=5 * 2**20)\n"
    "store.upload(Path(sys.argv[2]), sys.argv[1])\n"
)


class TestAnInterruptedUpload:
    def uploader(self, server: S3Server, wire: Wire, uri: str, folder: Path) -> Any:
        return subprocess.Popen(
            [sys.executable, "-c", UPLOADER, uri, str(folder)],
            env=os.environ | server.environment | {"AWS_ENDPOINT_URL_S3": wire.url},
            stderr=subprocess.PIPE,
            text=True,
        )

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return put_tree(tmp_path / "source", {"a": b"small", "z": bytes(6 * PART)})

    def test_ctrl_c_leaves_nothing(
        self, s3_server: S3Server, wire: Wire, store: S3Store, source: Path
    ) -> None:
        wire.pause = 0.05
        process = self.uploader(s3_server, wire, store.base_uri, source)
        wire.wait_for("PUT /" + "/".join([store.base_uri[5:], "z?"]))
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        wire.pause = 0
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
        assert process.returncode != 0
        assert "KeyboardInterrupt" in errors
        assert store.list(store.base_uri) == []
        assert unfinished_uploads(s3_server, store.base_uri) == []

    def test_after_a_kill_deleting_the_folder_removes_the_parts(
        self, s3_server: S3Server, wire: Wire, store: S3Store, source: Path
    ) -> None:
        wire.pause = 0.05
        process = self.uploader(s3_server, wire, store.base_uri, source)
        wire.wait_for("PUT /" + "/".join([store.base_uri[5:], "z?"]))
        process.kill()
        process.communicate(timeout=30)
        assert unfinished_uploads(s3_server, store.base_uri) == [parse(store.base_uri).path + "/z"]
        store.delete(store.base_uri)
        assert unfinished_uploads(s3_server, store.base_uri) == []
        assert store.list(store.base_uri) == []


def everything_said(error: BaseException) -> str:
    """The error, all that it was chained to, and how Python would show it."""
    shown = [*traceback.format_exception(error)]
    seen: BaseException | None = error
    while seen is not None:
        shown += [repr(seen), repr(vars(seen)) if isinstance(seen, StorageError) else ""]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(shown)


class TestServersThatRefuse:
    def test_nothing_listens_there(self) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
            began = time.monotonic()
            with pytest.raises(StorageError) as caught:
                store_at("s3://bucket/models", provider(endpoint)).check()
        assert time.monotonic() - began < 10
        assert endpoint in str(caught.value)
        assert "Check that it runs" in str(caught.value)
        assert SECRET_KEY not in everything_said(caught.value)

    def test_what_listens_there_never_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
            began = time.monotonic()
            with pytest.raises(StorageError, match=endpoint):
                store_at("s3://bucket/models", provider(endpoint)).check()
        assert time.monotonic() - began < 12

    def test_there_is_no_such_bucket(self, s3_server: S3Server) -> None:
        store = store_at("s3://no-such-bucket/models", s3_server.provider)
        for action in (
            store.check,
            lambda: store.list("s3://no-such-bucket/models"),
            lambda: store.write("s3://no-such-bucket/models/x", b""),
            lambda: store.delete("s3://no-such-bucket/models/x"),
            lambda: store.fingerprint("s3://no-such-bucket/models"),
        ):
            with pytest.raises(
                StorageError, match=r"no bucket 'no-such-bucket'.*Create it"
            ) as info:
                action()
            assert s3_server.endpoint in str(info.value)
            assert SECRET_KEY not in everything_said(info.value)

    def test_a_bucket_is_no_object(self, s3_server: S3Server, store: S3Store) -> None:
        with pytest.raises(ObjectNotFoundError):
            store.read(f"s3://{s3_server.bucket}")

    def test_keys_that_are_not_accepted(self) -> None:
        with started(requests_without_authentication=1) as server:
            unknown = provider(server.endpoint, "AKIAUNKNOWNUNKNOWN00", "an-unknown-secret")
            store = store_at(server.uri("models"), unknown)
            for action in (store.check, lambda: store.read(server.uri("models", "x"))):
                with pytest.raises(StorageError, match="does not accept the credentials") as info:
                    action()
                assert "storage_config_provider" in str(info.value)
                assert "an-unknown-secret" not in everything_said(info.value)

    def test_no_keys_at_all(
        self, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server, tmp_path: Path
    ) -> None:
        for name in os.environ:
            if name.startswith("AWS_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(StorageError, match="no complete credentials"):
            store_at(s3_server.uri("x")).check()

    def test_without_a_provider_the_variables_of_the_process_are_used(
        self, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server, s3_folder: str
    ) -> None:
        for name, value in s3_server.environment.items():
            monkeypatch.setenv(name, value)
        store_at(s3_folder).check()

    def test_a_provider_is_not_mixed_with_the_variables_of_the_process(
        self, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server, s3_folder: str
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "of-somebody-else")
        store_at(s3_folder, s3_server.provider).check()
        aws = S3ConfigurationProvider("key", "secret", region_name="eu-west-1").get_secret_body()
        store = S3Store(s3_folder, aws)
        assert store._client.meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"

    def test_keys_that_cannot_be_sent_are_not_shown(self, s3_server: S3Server) -> None:
        body = s3_server.environment | {"AWS_SESSION_TOKEN": "secret-token\n"}
        with pytest.raises(ConfigurationError, match="AWS_SESSION_TOKEN") as caught:
            S3Store(s3_server.uri("x"), body).check()
        assert "secret-token" not in everything_said(caught.value)

    def test_one_key_without_the_other(self) -> None:
        with pytest.raises(ConfigurationError, match="only one is set"):
            S3Store("s3://bucket/x", {"AWS_ACCESS_KEY_ID": "x"}).check()
