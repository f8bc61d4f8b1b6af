"""What the tests of the router share: real upstream servers, a real router, a socket."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaptain_zen.platform.local.router_client import RouterClient
from kaptain_zen.platform.local.serving_process import Child, start_router

# A server of the standard library that does, by path, what servers do on good and on bad days.
UPSTREAM = r"""
import hashlib, json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def answer(self, value, status=200, **headers):
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do(self):
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if url.path == "/early":
            self.answer({"error": "too large"}, 413)
            self.wfile.flush()
            self.body()
            return
        if url.path == "/stall":
            time.sleep(30)
        body = self.body()
        if url.path == "/slow":
            time.sleep(float(query["s"]))
        if url.path == "/drop":
            self.close_connection = True
        elif url.path == "/half":
            self.send_response(200)
            self.send_header("content-length", "100")
            self.end_headers()
            self.wfile.write(b"half")
            self.close_connection = True
        elif url.path == "/chunked":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for piece in ("first,", "second,", "third"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece.encode()))
                self.wfile.flush()
                time.sleep(0.01)
            self.wfile.write(b"0\r\n\r\n")
        elif url.path == "/until-close":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"all of it")
            self.close_connection = True
        elif url.path == "/big":
            size, sent = int(query["n"]), 0
            self.send_response(200)
            self.send_header("content-length", str(size))
            self.end_headers()
            while sent < size:
                self.wfile.write(b"x" * 65536)
                sent += 65536
        elif url.path == "/empty":
            self.send_response(204)
            self.end_headers()
        elif url.path == "/forgetful":
            # Says that the connection stays open, and closes it.
            self.answer({"port": self.server.server_port})
            self.close_connection = True
        else:
            self.answer({
                "port": self.server.server_port, "method": self.command, "path": self.path,
                "headers": {k.lower(): v for k, v in self.headers.items()},
                "size": len(body), "sha": hashlib.sha256(body).hexdigest(),
            }, x_hop="1", connection="keep-alive, x-hop", x_kept="2")

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = do_OPTIONS = do

server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def upstream_server() -> Iterator[int]:
    """A server in a process of its own.

    Yields:
        Its port.
    """
    process = subprocess.Popen([sys.executable, "-c", UPSTREAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@dataclass
class Router:
    """A router under test."""

    child: Child
    client: RouterClient
    log: Path

    @property
    def port(self) -> int:
        return self.client.port

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(
        self, path: str, body: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """One request over a connection of its own: status, headers, JSON or bytes."""
        connection = self.connect()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method or ("GET" if body is None else "POST"), path, body, named)
            return read(connection)
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """Send bytes, end the sending side, and read until the router closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


def read(connection: http.client.HTTPConnection) -> tuple[int, dict[str, str], Any]:
    """The answer on a connection."""
    response = connection.getresponse()
    data = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    try:
        return response.status, headers, json.loads(data)
    except ValueError:
        return response.status, headers, data


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    return data


@contextmanager
def running_router(folder: Path, *, port: int = 0, answer_timeout: float = 20) -> Iterator[Router]:
    """A router in a process of its own; it says nothing unexpected until its end."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text("secret")
    log = folder / "router.log"
    child = start_router(folder, home=folder, port=port, log=log, answer_timeout=answer_timeout)
    try:
        said = child.channel.receive(timeout=20)
        assert said is not None
        assert "port" in said, said
        yield Router(child, RouterClient(said["port"], "secret"), log)
    finally:
        child.stop()
    printed = log.read_text()
    assert printed == "", f"the router printed: {printed}"
