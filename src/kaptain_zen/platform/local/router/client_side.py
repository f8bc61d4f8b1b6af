"""The connections of clients: requests come in, one at a time goes on, answers go out in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from kaptain_zen.platform.local.router.exchange import BUFFERED, Exchange
from kaptain_zen.platform.local.router.http1 import CONTINUE, answer, without_offers

_HEAD_LIMIT = 64 * 1024
_LINGER = 1.0
_QUEUE_LIMIT = 16
"""Requests that a client may send ahead of the answers before it is not listened to."""

MakeExchange = Callable[["ClientConnection"], Exchange]
Administer = Callable[[Exchange], bool]


class ClientConnection(asyncio.Protocol):
    """One client's connection.

    Requests that a client sends ahead of the answers (RFC 9112, section 9.3.2) wait here, so that
    each is given to a revision only when the one before it is answered.

    Attributes:
        closed: Done when the connection has ended.
        congested: Whether the client takes its answers more slowly than they come.
    """

    _transport: asyncio.Transport
    closed: asyncio.Future[None]

    def __init__(
        self,
        make: MakeExchange,
        administer: Administer,
        connections: set[ClientConnection],
    ) -> None:
        """Wait for requests.

        Args:
            make: Makes the exchange for a new request.
            administer: Takes a request if it is for the router itself.
            connections: All open connections; this one keeps itself in it while it is open.
        """
        self._make = make
        self._administer = administer
        self._connections = connections
        self._queue: deque[Exchange] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self._in_head = False
        self._broken = False
        self._closing = False
        self._advancing = False
        self._reading = True
        self.congested = False

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._broken:
            return
        if self._in_head:
            self._head_bytes += len(data)
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError as error:
                self._refuse(400, f"The request is not HTTP/1.1: {error}.")
                break
        if self._in_head and self._head_bytes > _HEAD_LIMIT:
            self._refuse(431, f"The request's head is larger than {_HEAD_LIMIT // 1024} KiB.")
        self.advance()

    def eof_received(self) -> bool:
        """Called by asyncio: a client may end its side and still wait for its answer."""
        self._closing = True
        if self._queue and not (self._queue[-1].received or self._queue[-1].refusal):
            # It went away in the middle of a request.
            return False
        return bool(self._queue)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by asyncio."""
        self._connections.discard(self)
        for exchange in self._queue:
            exchange.abandon()
        self._queue.clear()
        self.closed.set_result(None)

    def pause_writing(self) -> None:
        """Called by asyncio: the client is slower than the server."""
        self.congested = True
        self._pace()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self.congested = False
        self._pace()

    # --- httptools ---

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._in_head = True
        self._head_bytes = 0
        self._queue.append(self._make(self))

    def on_url(self, target: bytes) -> None:
        """Called by the parser."""
        self._queue[-1].target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._queue[-1].headers.append((name.lower(), name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head = False
        self._queue[-1].head_complete(self._parser.get_method(), self._parser.get_http_version())

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._queue[-1].add_body(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._queue[-1].all_received()

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Go on as if no other protocol had been offered, as RFC 9110, section 7.8, allows.

        The parser takes what follows an offer for the other protocol, even the request's own body,
        so it gets the request once more, without the offer.
        """
        exchange = self._queue[-1]
        if exchange.method == b"CONNECT":
            self._broken = True
            exchange.refusal = (501, "This is no proxy for other servers.")
            return b""
        self._queue.pop()
        self._parser = httptools.HttpRequestParser(self)
        return without_offers(exchange.method, exchange.target, exchange.headers) + rest

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what cannot be read, once everything before it has been answered."""
        self._broken = True
        self._in_head = False
        if not self._queue or self._queue[-1].received:
            self._queue.append(self._make(self))
        exchange = self._queue[-1]
        exchange.refusal = (status, reason)
        if exchange.begun:
            # Half of its body has gone out already; the server must not take it for the whole.
            self.cut()

    # --- answers ---

    def write(self, data: bytes) -> None:
        """Send a piece of the answer to the oldest request."""
        self._transport.write(data)

    def write_answer(self, exchange: Exchange, status: int, value: object) -> None:
        """Send a whole answer."""
        lines = [exchange.connection_line()]
        self.write(answer(status, value, lines=lines, body=not exchange.head_only))

    def advance(self) -> None:
        """Begin the oldest request when it can be begun; drop it when it is answered."""
        if self._advancing:
            return
        self._advancing = True
        # A loop, not a recursion: a client may have sent thousands of requests ahead.
        while self._queue:
            exchange = self._queue[0]
            if exchange.ended and exchange.received:
                self._queue.popleft()
                if not exchange.keep_alive:
                    self._close()
                continue
            if exchange.begun:
                break
            if exchange.expects_continue and not exchange.received:
                exchange.expects_continue = False
                self.write(CONTINUE)
            if not exchange.ready:
                break
            if exchange.refusal or not self._administer(exchange):
                exchange.begin()
        self._advancing = False
        if self._closing and not self._queue:
            self._transport.close()
        else:
            self.update_reading()

    def cut(self) -> None:
        """End the connection at once, so that the client sees that its answer is not complete."""
        self._transport.abort()

    def close_when_idle(self) -> None:
        """End the connection after the requests that are here."""
        self._closing = True
        for exchange in self._queue:
            exchange.keep_alive = False
        if not self._queue:
            self._transport.close()

    def _close(self) -> None:
        for exchange in self._queue:
            exchange.abandon()
        self._queue.clear()
        if self._broken and not self._closing:
            # The client may still be sending. Closing now would reset the connection, and the
            # reset might overtake the answer that says what is wrong.
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(_LINGER, self._transport.close)
        else:
            self._closing = True
        self._broken = True

    # --- pace ---

    def update_reading(self) -> None:
        """Listen to the client, unless it is faster than what comes after it."""
        head = self._queue[0] if self._queue else None
        waiting = sum(e.buffered for e in self._queue) if len(self._queue) > 1 else 0
        listen = not (
            (head and head.throttled) or len(self._queue) > _QUEUE_LIMIT or waiting > 2 * BUFFERED
        )
        if listen != self._reading and not self._closing and not self._transport.is_closing():
            self._reading = listen
            if listen:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _pace(self) -> None:
        if self._queue:
            self._queue[0].pace(congested=self.congested)
