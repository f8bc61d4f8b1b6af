"""What the fault proxy does with a request that reaches the server, and with the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import h11

from devcluster.faults import CutWatch, Drop, ExpireWatch, Fault, Request, expired_event
from devcluster.http1 import LONGEST_HEAD, Wire, join
from devcluster.kubeconfig import Access
from devcluster.tls import client_context


@dataclass
class Exchange:
    """A request that came to the proxy, and what became of it.

    Attributes:
        request: The request.
        faults: What befell it.
        status: What the client was answered; None if nothing (yet).
    """

    request: Request
    faults: list[Fault]
    status: int | None = None


class DroppedError(ConnectionError):
    """A rule wants the connection to break."""


class Relay:
    """Asks the server behind the proxy.

    Args:
        upstream: The server, and as whom the proxy asks it.
        token: What a client shows to be to the server who the proxy is. Whoever shows another
            token, or none, is to the server whoever that makes him.
    """

    def __init__(self, upstream: Access, token: str) -> None:
        parts = urlsplit(upstream.server)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._host_header = parts.netloc.encode()
        self._prefix = parts.path.rstrip("/").encode()
        self._token = upstream.token
        self._own = f"Bearer {token}".encode()
        self._as_itself = client_context(upstream.authority, upstream.pair)
        self._as_nobody = client_context(upstream.authority)

    async def forward(
        self, client: Wire, exchange: Exchange, head: h11.Request, body: bytes
    ) -> None:
        """Pass on a request and its answer.

        Args:
            client: Who is answered.
            exchange: What faults befall it; is told the status.
            head: The request.
            body: All of its body.

        Raises:
            OSError: The server or the client hung up, or a fault wants that.
        """
        shown = dict(head.headers).get(b"authorization")
        server = await self._connect(as_itself=shown == self._own)
        try:
            target = self._prefix + head.target
            await server.send(
                h11.Request(method=head.method, target=target, headers=self._headers(head)),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
            # A client that goes away takes its watch with it.
            if await _either(self._relay(client, server, exchange), client.closed()):
                await join(client, server)
        finally:
            server.abort()

    async def _connect(self, *, as_itself: bool) -> Wire:
        context = self._as_itself if as_itself else self._as_nobody
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=context)
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
        return Wire(connection, reader, writer)

    def _headers(self, head: h11.Request) -> list[tuple[bytes, bytes]]:
        headers = []
        for name, value in head.headers.raw_items():
            if name.lower() == b"host":
                headers.append((name, self._host_header))
            elif name.lower() != b"authorization" or value != self._own:
                headers.append((name, value))
            elif self._token:
                headers.append((name, f"Bearer {self._token}".encode()))
        return headers

    async def _relay(self, client: Wire, server: Wire, exchange: Exchange) -> bool:
        """Pass on the answer. Whether both sides switch to another protocol with it."""
        head = await server.receive()
        while isinstance(head, h11.InformationalResponse):
            if head.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                exchange.status = head.status_code
                await client.send(head)
                return True
            head = await server.receive()
        if not isinstance(head, h11.Response):
            raise ConnectionError("the server hung up")
        fault = exchange.faults[-1] if exchange.faults else None
        if isinstance(fault, Drop):
            while isinstance(await server.receive(), h11.Data):
                pass
            raise DroppedError
        exchange.status = head.status_code
        await client.send(head)
        await self._stream(client, server, fault, is_json=_is_json(head))
        return False

    async def _stream(
        self, client: Wire, server: Wire, fault: Fault | None, *, is_json: bool
    ) -> None:
        """Pass on a body as it comes, until it ends or a fault ends it."""
        after = fault.after if isinstance(fault, CutWatch | ExpireWatch) else None
        end = None if after is None else asyncio.get_running_loop().time() + after
        between_events = True
        while True:
            try:
                if between_events and end is not None and asyncio.get_running_loop().time() >= end:
                    raise TimeoutError  # noqa: TRY301 - as when it comes to it while waiting
                async with asyncio.timeout_at(end if between_events else None):
                    event = await server.receive()
            except TimeoutError:
                await self._end_watch(client, fault)
                return
            if isinstance(event, h11.Data):
                # JSON events are lines; the frames of other formats are written whole.
                between_events = not is_json or event.data.endswith(b"\n")
                await client.send(event)
            elif isinstance(event, h11.EndOfMessage):
                await client.send(event)
                return
            else:
                raise ConnectionError("the server hung up")

    async def _end_watch(self, client: Wire, fault: Fault | None) -> None:
        match fault:
            case ExpireWatch():
                await client.send(h11.Data(data=expired_event()), h11.EndOfMessage())
            case CutWatch(cleanly=True):
                await client.send(h11.EndOfMessage())
            case _:
                raise DroppedError


def _is_json(head: h11.Response) -> bool:
    return dict(head.headers).get(b"content-type", b"").startswith(b"application/json")


async def _either(work: Coroutine[Any, Any, bool], ends: Coroutine[Any, Any, None]) -> bool:
    """Do the work until it is done, or until the other one ends, which is an error."""
    working, ending = asyncio.ensure_future(work), asyncio.ensure_future(ends)
    try:
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ConnectionError("the client hung up")
    finally:
        for task in (working, ending):
            task.cancel()
        await asyncio.gather(working, ending, return_exceptions=True)
