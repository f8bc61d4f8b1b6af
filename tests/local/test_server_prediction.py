"""Asking for predictions over HTTP, of servers on good and on bad days."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from tests.local.router_support import closed_port
from tests.local.server_support import new_record

from kaptain_zen.exceptions import ModelValidationException, PredictionError
from kaptain_zen.model import states
from kaptain_zen.model.ports import Service
from kaptain_zen.platform.prediction import post, predict

ANSWER = {"outputs": [{"name": "p", "shape": [2, 1], "datatype": "INT64", "data": [7, 8]}]}


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.server.received = json.loads(  # type: ignore[attr-defined]  # a place to look at
            self.rfile.read(int(self.headers["content-length"]))
        )
        name = self.path.split("/")[3]
        status, body = {
            "good": (200, json.dumps(ANSWER).encode()),
            "slow": (200, b""),
            "drip": (200, b""),
            "text": (200, b"<html>hello</html>"),
            "empty": (200, b'{"outputs": []}'),
            "shape": (400, b'{"error": "expected 64 features"}'),
            "broken": (500, b"Internal Server Error"),
            "stopped": (503, b'{"error": "This service is stopped."}'),
            "teapot": (418, b""),
        }[name]
        if name == "slow":
            time.sleep(1)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)
        if name == "drip":
            for _ in range(30):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _service(port: int, name: str) -> Service:
    revision = uuid4().hex
    record = states.deployed(
        new_record(), revision=revision, now=datetime.now(UTC), uri="file:///m"
    )
    return Service(
        model_id="m",
        name=name,
        backend="local",
        url=f"http://127.0.0.1:{port}",
        record=record,
        resource_version="1",
        ready=True,
    )


def _ask(server: ThreadingHTTPServer, name: str, inputs: Any = ((1.0,), (2.0,)), **kw: Any) -> Any:
    return predict(_service(server.server_port, name), inputs, **{"timeout": 10, **kw})


def test_an_answer_becomes_an_array(server: ThreadingHTTPServer) -> None:
    answer = _ask(server, "good")

    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == [7, 8]
    assert server.received["inputs"][0]["shape"] == [2, 1]  # type: ignore[attr-defined]


def test_predictions_do_not_fill_the_log_unless_somebody_wants_them(
    server: ThreadingHTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("httpx")
    before = logger.level
    try:
        logger.setLevel(logging.NOTSET)
        with caplog.at_level(logging.INFO):
            _ask(server, "good")
        assert "HTTP Request" not in caplog.text
        logger.setLevel(logging.INFO)
        with caplog.at_level(logging.INFO):
            _ask(server, "good")
        assert "HTTP Request" in caplog.text
    finally:
        logger.setLevel(before)


def test_a_complete_request_gets_the_complete_response(server: ThreadingHTTPServer) -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}

    assert _ask(server, "good", {"inputs": [tensor]}) == ANSWER
    assert server.received == {"inputs": [tensor]}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shape", ["answered with 400: expected 64 features", "shape and the types"]),
        ("broken", ["answered with 500: Internal Server Error", "logs"]),
        ("stopped", ["answered with 503: This service is stopped.", "status()"]),
        ("teapot", ["answered with 418: I'm a Teapot", "logs"]),
        ("text", ["not in JSON", "Open Inference Protocol"]),
        ("empty", ["no outputs"]),
    ],
)
def test_an_answer_that_is_no_prediction_says_what_and_where(
    server: ThreadingHTTPServer, name: str, said: list[str]
) -> None:
    with pytest.raises(PredictionError) as caught:
        _ask(server, name)

    for words in said:
        assert words in str(caught.value)
    if name != "empty":
        assert f"POST http://127.0.0.1:{server.server_port}/v2/models/{name}/infer" in str(
            caught.value
        )


@pytest.mark.parametrize("name", ["slow", "drip"])
def test_an_answer_that_is_not_there_in_time_is_given_up(
    server: ThreadingHTTPServer, name: str
) -> None:
    began = time.monotonic()

    with pytest.raises(PredictionError, match=r"within 0\.3 s"):
        _ask(server, name, timeout=0.3)

    assert time.monotonic() - began < 0.9


def test_a_service_that_is_not_there_is_named(server: ThreadingHTTPServer) -> None:
    port = closed_port()

    with pytest.raises(PredictionError, match=f"127.0.0.1:{port}.*not answered.*status"):
        predict(_service(port, "gone"), [[1.0]], timeout=5)


def test_no_proxy_is_asked_for_this_machine(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")

    assert _ask(server, "good").tolist() == [7, 8]


def test_what_cannot_be_sent_is_refused_before_it_is(server: ThreadingHTTPServer) -> None:
    with pytest.raises(ModelValidationException):
        _ask(server, "good", [[float("nan")]])
    with pytest.raises(ModelValidationException, match="JSON"):
        post(f"http://127.0.0.1:{server.server_port}/v2/models/good/infer", {"a": {1}}, timeout=1)
