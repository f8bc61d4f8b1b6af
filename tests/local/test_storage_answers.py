"""What is said about answers that moto never gives, and AWS documents."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.local.storage_support import store_at
from tests.s3_server import provider

from kaptain_zen.exceptions import PreconditionFailedError, StorageError
from kaptain_zen.platform.config.s3 import S3ConfigurationProvider

Answer = tuple[int, str]


@contextmanager
def answering(answer: Callable[[str], Answer]) -> Iterator[str]:
    """An HTTP server that gives one answer per method: a status and a body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answer(self.command)
            self.send_response(status)
            self.send_header("ETag", '"0"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = do_POST = do_DELETE = respond  # noqa: N815 - names of http.server

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def error(status: int, code: str) -> Answer:
    return status, code and f"<Error><Code>{code}</Code><Message>m</Message></Error>"


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (301, "PermanentRedirect", "another region.*Set region_name"),
        (400, "AuthorizationHeaderMalformed", "another region.*Set region_name"),
        (403, "AccessDenied", "does not allow it.*ask for the permission"),
        (403, "RequestTimeTooSkewed", "Set the clock"),
        (403, "SignatureDoesNotMatch", "does not accept the credentials"),
        (400, "ExpiredToken", "does not accept the credentials.*AWS_SESSION_TOKEN"),
        (501, "NotImplemented", r"does not know this kind of request \(PutObject\)"),
        (404, "", "does not speak S3.*Correct the endpoint"),
        (400, "EntityTooLarge", "answered EntityTooLarge to PutObject"),
    ],
)
def test_an_error_says_what_to_do(status: int, code: str, advice: str) -> None:
    with answering(lambda _: error(status, code)) as endpoint:
        store = store_at("s3://bucket/models", provider(endpoint))
        for action in (store.check, lambda: store.write("s3://bucket/models/x", b"")):
            with pytest.raises(StorageError, match=advice):
                action()


def test_a_signature_version_that_is_none_is_named() -> None:
    unknown = S3ConfigurationProvider("key", "secret", s3_signature_version="v0")
    with pytest.raises(StorageError, match=r"signature version is not known.*s3v4"):
        store_at("s3://bucket/models", unknown).check()


def test_writers_at_the_same_moment_conflict() -> None:
    with answering(lambda _: error(409, "ConditionalRequestConflict")) as endpoint:
        store = store_at("s3://bucket/models", provider(endpoint))
        with pytest.raises(PreconditionFailedError):
            store.write("s3://bucket/models/x", b"", new=True)


def test_a_storage_that_ignores_conditions_does_not_pass_the_check() -> None:
    with answering(lambda _: (200, "")) as endpoint:
        store = store_at("s3://bucket/models", provider(endpoint))
        with pytest.raises(StorageError, match="would lose each other's work"):
            store.check()


def test_objects_that_could_not_be_deleted_are_named() -> None:
    key = "<Key>models/a</Key>"
    rest = "<Size>1</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
    answers = {
        "GET": f"<ListBucketResult><Contents>{key}{rest}</Contents></ListBucketResult>",
        "POST": f"<DeleteResult><Error>{key}<Code>AccessDenied</Code></Error></DeleteResult>",
    }
    with answering(lambda method: (200, answers[method])) as endpoint:
        store = store_at("s3://bucket/models", provider(endpoint))
        with pytest.raises(StorageError, match=r"models/a.*AccessDenied"):
            store.delete("s3://bucket/models")
