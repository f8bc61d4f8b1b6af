"""Starts MLServer for one model, the parts that take long first.

Most of the seconds that MLServer takes to start are imports. This program imports MLServer and a
runtime, then waits to be told which model to serve, so that a client can start it before it has a
model. From then on it is MLServer itself, started as its own command line would start it.

On its control channel it says `{"state": "imported"}`, then `{"state": "loading", "port": …}`, or
`{"error": …}`. It hears `{"serve": {…}}` and `{"adopt": true}`, and ends when the channel does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import logging
import os
import queue
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from kaptain_zen.platform.local.control import ADOPT, CONTROL_FD, Channel

_STACKS = 128 * 1024 * 1024
"""Bytes of address space that threads reserve for stacks after the memory limit is set."""


def main(argv: list[str] | None = None) -> int:
    """Import, wait for a model, serve it."""
    parser = argparse.ArgumentParser(prog="python -m kaptain_zen.platform.local.mlserver_launcher")
    parser.add_argument("--runtime", required=True, help="module of MLServer's runtime")
    parser.add_argument("--preload", action="append", default=[], help="module to import as well")
    parser.add_argument("--home", help="the local platform's folder, to recognise the process by")
    parser.add_argument("--client", help="process id of the client, likewise")
    options = parser.parse_args(argv)
    channel = Channel(socket.socket(fileno=CONTROL_FD))
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, orders), daemon=True).start()
    try:
        importlib.import_module(options.runtime)
    except BaseException as error:
        channel.send({"error": f"{options.runtime} cannot be imported: {_named(error)}"})
        raise
    for module in options.preload:
        # A model that does not need the module will not miss it; one that does will say so.
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    channel.send({"state": "imported"})
    return _serve(orders.get(), channel)


def _listen(channel: Channel, orders: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Hear the client; end with it, at once, unless it has freed this process."""
    while True:
        order = channel.receive()
        if order is None:
            os._exit(0)
        if order.get(ADOPT):
            return
        orders.put(order["serve"])


def _serve(order: dict[str, Any], channel: Channel) -> int:
    from mlserver import ModelSettings, Settings
    from mlserver.logging import configure_logger
    from mlserver.utils import install_uvloop_event_loop

    folder = Path(order["folder"])
    _log_to(folder / order["log"])
    os.chdir(folder)
    # What the model's author put beside it can be imported, but hides nothing.
    sys.path.append(order["artifact"])
    configure_logger()
    failure = _FirstFailure(channel)
    logging.getLogger("mlserver").addHandler(failure)
    install_uvloop_event_loop()
    try:
        _limit_threads(order["threads"])
        _limit_memory(order.get("memory"))
        with _reserved_port() as port:
            settings = Settings.model_validate(
                {**json.loads((folder / "settings.json").read_bytes()), "http_port": port}
            )
            model_settings = ModelSettings.parse_file(str(folder / "model-settings.json"))
            channel.send({"state": "loading", "port": port})
            asyncio.run(_run(settings, model_settings))
    except Exception as error:
        failure.report(_named(error))
        raise
    return 1 if failure.reported else 0


async def _run(settings: Any, model_settings: Any) -> None:
    from mlserver import MLServer

    await MLServer(settings).start([model_settings])


class _FirstFailure(logging.Handler):
    """Tells the client why a model was not loaded; MLServer itself only writes it to its log."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.ERROR)
        self._channel = channel
        self.reported = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self.report(_named(record.exc_info[1]))

    def report(self, reason: str) -> None:
        if not self.reported:
            self.reported = True
            self._channel.send({"error": reason})


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().rstrip(":")


def _log_to(path: Path) -> None:
    """From here on, everything that is printed goes to the model's log."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def _limit_threads(threads: int) -> None:
    """Keep BLAS and OpenMP to so many threads, whatever they were loaded with."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    with contextlib.suppress(ImportError):
        importlib.import_module("threadpoolctl").threadpool_limits(threads)


def _limit_memory(limit: int | None) -> None:
    """Limit what this process may allocate.

    The kernel counts what is reserved, not what is used. What is reserved without being used now,
    and the stacks of the threads that MLServer starts, are allowed on top.

    Args:
        limit: Bytes of memory of its own; None for no limit.

    Raises:
        MemoryError: MLServer alone uses as much.
    """
    if limit is None or not sys.platform.startswith("linux"):
        return
    import resource

    status = Path("/proc/self/status").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    reserved, used = (1024 * int(fields[key].split()[0]) for key in ("VmData", "RssAnon"))
    if used >= limit:
        raise MemoryError(
            f"MLServer and its runtime alone use {used // 10**6} MB, but memory is limited to "
            f"{limit // 10**6} MB; give it at least {2 * used // 10**6} MB"
        )
    bound = limit + (reserved - used) + _STACKS
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or bound <= hard:
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


@contextlib.contextmanager
def _reserved_port() -> Any:
    """A free port that nobody else gets until MLServer listens on it.

    A socket that is bound but does not listen keeps others from being given its port; on Linux
    MLServer's own socket may be bound to it all the same, because both set SO_REUSEADDR. Elsewhere
    that is refused, and the port is free for the moment in between.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        port = reservation.getsockname()[1]
        if not sys.platform.startswith("linux"):
            reservation.close()
        yield port


if __name__ == "__main__":
    sys.exit(main())
