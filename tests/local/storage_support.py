"""What the tests of the storage share: stores of both kinds, folders, a wire that can be cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from kaptain_zen.config import Config
from kaptain_zen.model.ports import Store
from kaptain_zen.platform.config.provider import ConfigurationProvider
from kaptain_zen.storage.store import open_store

Tree = Mapping[str, bytes]


def store_at(uri: str, provider: ConfigurationProvider | None = None) -> Store:
    """The store of a configuration."""
    return open_store(Config(base_model_storage_uri=uri, storage_config_provider=provider))


def put_tree(folder: Path, tree: Tree) -> Path:
    """Write files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones and all."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Wire:
    """Bytes on their way between a client and a server.

    Attributes:
        url: What the client has to be told.
        requests: First line of every request that went through.
        swallow: Says, from the first line of a request, whether its answer gets lost.
        refuse: Says, from the first line of a request, whether the line is cut before it arrives.
        pause: Seconds that every piece of a request takes.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[str] = []
        self.swallow: Callable[[str], bool] = lambda line: False
        self.refuse: Callable[[str], bool] = lambda line: False
        self.pause = 0.0
        self.seen = threading.Condition()

    def wait_for(self, method: str, timeout: float = 30) -> None:
        """Wait until a request of a kind comes by."""
        with self.seen:
            assert self.seen.wait_for(
                lambda: any(line.startswith(method) for line in self.requests), timeout
            ), self.requests

    def accept(self) -> None:
        """Serve connections until the wire is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Cut it for good."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _connection(self, client: socket.socket) -> None:
        lost = threading.Event()
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            answers = threading.Thread(target=self._answers, args=(server, client, lost))
            answers.start()
            while data := client.recv(64 * 1024):
                first = data.split(b"\r\n", 1)[0].decode("latin-1")
                if first.endswith("HTTP/1.1"):
                    with self.seen:
                        self.requests.append(first)
                        self.seen.notify_all()
                    if self.refuse(first):
                        break
                    if self.swallow(first):
                        lost.set()
                self._closed.wait(self.pause)
                server.sendall(data)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _answers(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(64 * 1024):
                if lost.is_set() and not data.startswith(b"HTTP/1.1 100"):
                    break
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire_to(target: str) -> Iterator[Wire]:
    """A wire to a server, cut after the block."""
    wire = Wire(target)
    thread = threading.Thread(target=wire.accept, daemon=True)
    thread.start()
    try:
        yield wire
    finally:
        wire.close()
        thread.join()


class Once:
    """True for the first line that fits, false ever after."""

    def __init__(self, fits: Callable[[str], bool]) -> None:
        self._fits, self._left = fits, True

    def __call__(self, line: str) -> bool:
        if self._left and self._fits(line):
            self._left = False
            return True
        return False
