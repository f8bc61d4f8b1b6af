"""The connections to one revision's server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from kaptain_zen.platform.local.router.http1 import (
    LAST_CHUNK,
    REVISION_HEADER,
    Headers,
    chunk,
    framing,
    passed_on,
    response_head,
    tokens,
)

if TYPE_CHECKING:
    from kaptain_zen.platform.local.router.exchange import Exchange

_HOST = "127.0.0.1"
_IDLE_LIMIT = 4.0
"""Seconds after which an idle connection is not used again: uvicorn closes them after 5."""
_CONNECT_TIMEOUT = 5.0
_CONTINUE, _NO_CONTENT, _NOT_MODIFIED, _FIRST_FINAL = 100, 204, 304, 200


class Upstream:
    """One revision's server, and the idle connections to it.

    Attributes:
        revision: Which revision answers there.
        port: Its port on the loopback interface.
        in_flight: Requests that were given to it and not answered yet.
    """

    def __init__(self, revision: str, port: int) -> None:
        self.revision = revision
        self.port = port
        self.in_flight = 0
        self._idle: list[tuple[float, UpstreamConnection]] = []
        self._waiting: list[asyncio.Future[None]] = []

    def idle(self) -> UpstreamConnection | None:
        """An open connection that nobody uses; the one that was used last, if there are several."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, connection = self._idle.pop()
            if connection.open and now - since < _IDLE_LIMIT:
                return connection
            connection.close()
        return None

    async def connect(self) -> UpstreamConnection:
        """Open a connection.

        Raises:
            OSError: Nothing listens there.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self), _HOST, self.port
            )
        return connection

    def keep(self, connection: UpstreamConnection) -> None:
        """Take back a connection that can be used again."""
        self._idle.append((asyncio.get_running_loop().time(), connection))

    def enter(self) -> None:
        """A request was given to it."""
        self.in_flight += 1

    def leave(self) -> None:
        """A request ended."""
        self.in_flight -= 1
        if not self.in_flight:
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)
            self._waiting.clear()

    async def empty(self) -> None:
        """Wait until no request is under way."""
        if self.in_flight:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[1].close()


class UpstreamConnection(asyncio.Protocol):
    """One connection; it carries one exchange at a time."""

    _transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._exchange: Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._out: list[bytes] = []
        self._request_sent = False
        self._paused = False
        self.congested = False
        self._reset()

    def _reset(self) -> None:
        self._reason = b""
        self._headers: Headers = []
        self._status = 0
        self._chunked_out = False
        self._until_end = False

    @property
    def open(self) -> bool:
        """Whether it can be used."""
        return not self._transport.is_closing()

    def close(self) -> None:
        """Close it; nobody uses it."""
        self._transport.close()

    def abort(self) -> None:
        """Cut it; whatever it carried has been given up."""
        self._exchange = None
        self._transport.abort()

    # --- the request, on its way out ---

    def carry(self, exchange: Exchange, data: bytes, *, complete: bool) -> None:
        """Begin an exchange.

        Args:
            exchange: What gets the response.
            data: The request, as far as it is known.
            complete: Whether that is all of it.
        """
        self._exchange = exchange
        self._request_sent = complete
        self._reset()
        self._transport.write(data)

    def send(self, data: bytes, *, complete: bool) -> None:
        """Send more of the request."""
        self._request_sent = complete
        self._transport.write(data)

    def pause(self) -> None:
        """Take no more of the response: the client is slower than the server."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on taking the response."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    # --- asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        """Called by asyncio: the server is slower than the client."""
        self.congested = True
        if self._exchange:
            self._exchange.throttle()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self.congested = False
        if self._exchange:
            self._exchange.throttle()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._exchange is None:
            # A server that speaks without having been asked, for example to say 408.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._flush()
            self._give_up(f"its answer is not HTTP/1.1 ({error})")
            return
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if self._exchange is None:
            return
        if self._until_end and exc is None:
            self._complete(reusable=False)
            return
        self._give_up("it closed the connection before it had answered")

    # --- httptools ---

    def on_status(self, reason: bytes) -> None:
        """Called by the parser."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._headers.append((name.lower(), name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        exchange = self._exchange
        status = self._status = self._parser.get_status_code()
        if exchange is None or status < _FIRST_FINAL:
            return
        bodiless = exchange.head_only or status in (_NO_CONTENT, _NOT_MODIFIED)
        length = next((v for lower, _, v in self._headers if lower == b"content-length"), None)
        chunked = b"chunked" in tokens(self._headers, b"transfer-encoding")
        self._until_end = not bodiless and length is None and not chunked
        lines = passed_on(self._headers)
        lines.append(b"%b: %b\r\n" % (REVISION_HEADER, self._upstream.revision.encode()))
        if length is not None and not chunked:
            lines.append(framing(int(length)))
        elif not bodiless:
            # A client of HTTP/1.0 knows no chunks; for it the body ends with the connection.
            self._chunked_out = exchange.modern
            if exchange.modern:
                lines.append(framing(None))
            else:
                exchange.keep_alive = False
        lines.append(exchange.connection_line())
        exchange.answering()
        self._out.append(response_head(status, self._reason, lines))
        if exchange.head_only:
            # The parser cannot be told that no body follows, so it is of no further use.
            self._complete(reusable=False)

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        if self._exchange:
            self._out.append(chunk(data) if self._chunked_out else data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._exchange is None:
            return
        if self._status < _FIRST_FINAL:
            self._reset()
            return
        self._complete(reusable=self._parser.should_keep_alive() and self._request_sent)

    # --- the end ---

    def _flush(self) -> None:
        if self._out and self._exchange:
            self._exchange.forward(b"".join(self._out))
        self._out.clear()

    def _complete(self, *, reusable: bool) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if self._chunked_out:
            self._out.append(LAST_CHUNK)
        self._flush()
        self._exchange = None
        if reusable and self.open:
            self.resume()
            self._upstream.keep(self)
        else:
            self._transport.abort()
        exchange.complete()

    def _give_up(self, reason: str) -> None:
        exchange, self._exchange = self._exchange, None
        self._transport.abort()
        if exchange:
            exchange.lost(reason)
