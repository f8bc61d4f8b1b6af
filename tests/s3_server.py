"""A real S3-speaking server: moto's, as a process of its own on a free loopback port.

`pytest_plugins` in `tests/conftest.py` makes the fixtures known:

- `s3_server` (whole session): endpoint, bucket, and an `S3ConfigurationProvider` for them;
- `s3_folder` (each test): the URI of a folder that nobody else uses.

To run the same tests against another server, such as MinIO, set KAPTAIN_TEST_S3_ENDPOINT,
KAPTAIN_TEST_S3_ACCESS_KEY and KAPTAIN_TEST_S3_SECRET_KEY.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from kaptain_zen.platform.config.s3 import S3ConfigurationProvider

_START_SECONDS = 60
ACCESS_KEY, SECRET_KEY = "AKIATESTTESTTESTTEST", "not-a-real-secret-key"


@dataclass(frozen=True)
class S3Server:
    """A server and a bucket on it.

    Attributes:
        endpoint: Its URL.
        bucket: The bucket.
        provider: Opens it.
    """

    endpoint: str
    bucket: str
    provider: S3ConfigurationProvider

    @property
    def environment(self) -> dict[str, str]:
        """The variables for a training process, or for `S3Store`."""
        return self.provider.get_secret_body()

    def client(self) -> Any:
        """A boto3 client."""
        from kaptain_zen.training.s3 import client

        return client(self.environment)

    def uri(self, *names: str) -> str:
        """A URI in the bucket."""
        return "/".join((f"s3://{self.bucket}", *names))


@contextmanager
def started(*, requests_without_authentication: int | None = None) -> Iterator[S3Server]:
    """Start moto's server, make a bucket, and stop the server after the block.

    Args:
        requests_without_authentication: From how many requests on signatures are checked; never if
            None.
    """
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOTO_"))
    }
    if requests_without_authentication is not None:
        environ["INITIAL_NO_AUTH_ACTION_COUNT"] = str(requests_without_authentication)
    # The server ends by itself when its standard input does, so it cannot outlive a killed pytest.
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve())],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(_START_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        watchdog.cancel()
        assert port, f"moto's server did not start within {_START_SECONDS} s"
        yield _with_bucket(f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server for the whole session, with a bucket."""
    elsewhere = os.environ.get("KAPTAIN_TEST_S3_ENDPOINT")
    if elsewhere is None:
        with started() as server:
            yield server
        return
    server = _with_bucket(
        elsewhere,
        os.environ["KAPTAIN_TEST_S3_ACCESS_KEY"],
        os.environ["KAPTAIN_TEST_S3_SECRET_KEY"],
    )
    yield server
    _remove_bucket(server)


@pytest.fixture
def s3_folder(s3_server: S3Server) -> str:
    """URI of a folder that no other test uses."""
    return s3_server.uri(f"test-{uuid4().hex[:12]}")


def provider(
    endpoint: str, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY
) -> S3ConfigurationProvider:
    """What opens a server that knows buckets by path."""
    return S3ConfigurationProvider(
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        s3_endpoint=endpoint,
        s3_force_path_style=True,
    )


def _with_bucket(endpoint: str, access_key: str, secret_key: str) -> S3Server:
    server = S3Server(endpoint, "", provider(endpoint, access_key, secret_key))
    server = replace(server, bucket=f"kaptain-{uuid4().hex[:12]}")
    server.client().create_bucket(Bucket=server.bucket)
    return server


def _remove_bucket(server: S3Server) -> None:
    from kaptain_zen.training.s3 import delete_keys, objects_below

    client = server.client()
    delete_keys(client, server.bucket, [key for key, _ in objects_below(client, server.bucket, "")])
    client.delete_bucket(Bucket=server.bucket)


def _serve() -> None:
    """Serve until standard input ends. Runs in the server's process."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    class Handler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"  # Connections are kept, as other servers keep them.

        def log(self, *_: Any, **__: Any) -> None:
            """Keep quiet."""

    moto, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        # moto looks at an object and then replaces it; S3 does both in one step.
        if "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ:
            with lock:
                return moto(environ, start_response)
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
