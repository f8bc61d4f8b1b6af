"""The router's process: binds its port, says which, and serves until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from kaptain_zen.platform.local.control import ADOPT, CONTROL_FD, Channel
from kaptain_zen.platform.local.router.admin import Admin
from kaptain_zen.platform.local.router.client_side import ClientConnection
from kaptain_zen.platform.local.router.exchange import Exchange
from kaptain_zen.platform.local.router.routes import Routes

_HOST = "127.0.0.1"
_BACKLOG = 1024
_END = (signal.SIGTERM, signal.SIGINT)
_GRACE = 5.0
"""Seconds that requests under way get when the router is told to end."""


def main(argv: list[str] | None = None) -> int:
    """Run the router.

    The process says `{"port": …}` on its control channel when it serves, or `{"error": …}`; it
    ends when the channel does, unless it got the order `adopt` before.
    """
    parser = argparse.ArgumentParser(prog="python -m kaptain_zen.platform.local.router")
    parser.add_argument("--folder", type=Path, required=True, help="folder with the token")
    parser.add_argument("--port", type=int, default=0, help="port to serve on; any if 0")
    parser.add_argument("--answer-timeout", type=float, required=True, help="seconds")
    parser.add_argument("--home", help="the local platform's folder, to recognise the process by")
    parser.add_argument("--client", help="process id of the client, likewise")
    options = parser.parse_args(argv)
    channel = Channel(socket.socket(fileno=CONTROL_FD))
    _allow_many_connections()
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    try:
        token = (options.folder / "token").read_text().strip()
        listening = socket.create_server((_HOST, options.port), backlog=_BACKLOG)
    except OSError as error:
        channel.send({"error": f"{error.strerror or error} (port {options.port})"})
        return 1
    asyncio.run(_serve(listening, token, options.answer_timeout, channel))
    return 0


async def _serve(
    listening: socket.socket, token: str, answer_timeout: float, channel: Channel
) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in _END:
        loop.add_signal_handler(number, ending.set)
    routes = Routes()
    admin = Admin(routes, token)
    connections: set[ClientConnection] = set()

    def exchange(client: ClientConnection) -> Exchange:
        return Exchange(client, routes, answer_timeout)

    server = await loop.create_server(
        lambda: ClientConnection(exchange, admin.takes, connections), sock=listening
    )
    _stay_with(channel, ending)
    channel.send({"port": listening.getsockname()[1]})
    # What is here stays for ever, so the collector need not look at it again.
    gc.collect()
    gc.freeze()
    await ending.wait()
    server.close()
    for connection in list(connections):
        connection.close_when_idle()
    if connections:
        await asyncio.wait([connection.closed for connection in connections], timeout=_GRACE)
    for connection in list(connections):
        connection.cut()
    for number in _END:
        # To be told again changes nothing, and the loop is about to be gone.
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def _stay_with(channel: Channel, ending: asyncio.Event) -> None:
    """End when the client that started this process is gone, unless it has freed the process."""
    loop = asyncio.get_running_loop()

    def heard() -> None:
        order: dict[str, Any] | None = channel.receive()
        loop.remove_reader(channel.fileno())
        channel.close()
        if order is None or not order.get(ADOPT):
            ending.set()

    loop.add_reader(channel.fileno(), heard)


def _allow_many_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS names no limit as the hard one and then refuses it.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
