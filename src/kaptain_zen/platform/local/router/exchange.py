"""One request of a client, on its way to a revision and back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kaptain_zen.platform.local.router.http1 import (
    LAST_CHUNK,
    Headers,
    chunk,
    framing,
    origin_form,
    request_head,
    tokens,
)

if TYPE_CHECKING:
    from kaptain_zen.platform.local.router.client_side import ClientConnection
    from kaptain_zen.platform.local.router.routes import Routes
    from kaptain_zen.platform.local.router.upstream import Upstream, UpstreamConnection

BUFFERED = 1024 * 1024
"""Bytes of a body that are collected before it is passed on.

A request that is here as a whole is sent in one piece, does not occupy a server while a slow client
is still sending, and can be sent again when an idle connection turns out to be closed. A longer one
is passed on as it comes, over a new connection.
"""


class Exchange:
    """A request, its response, and who is to get it.

    An inference has no side effects, so a request that went out over an idle connection which the
    server closed at that moment (RFC 9112, section 9.3.1) is sent once more, over a new one, unless
    a byte of the answer has arrived. A server that cannot be reached at all never saw the request,
    so another revision gets it.
    """

    def __init__(self, client: ClientConnection, routes: Routes, timeout: float) -> None:
        """Begin with a request's first byte.

        Args:
            client: Who sends it.
            routes: Where it may go.
            timeout: Seconds that a server may take to begin its answer.
        """
        self.client = client
        self.method = b""
        self.target = b""
        self.headers: Headers = []
        self.modern = True
        self.keep_alive = True
        self.head_only = False
        self.expects_continue = False
        self.refusal: tuple[int, str] | None = None
        self.body: list[bytes] = []
        self.buffered = 0
        self.received = False
        self.begun = False
        self.ended = False
        self._routes = routes
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self._length: int | None = None
        self._streamed = False
        self._upstream: Upstream | None = None
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tried: tuple[Upstream, ...] = ()
        self._pooled = False
        self._resent = False
        self._answering = False

    # --- what the client sends ---

    def head_complete(self, method: bytes, version: str) -> None:
        """All headers are here."""
        self.method = method
        self.target = origin_form(self.target)
        self.head_only = method == b"HEAD"
        self.modern = version == "1.1"
        connection = tokens(self.headers, b"connection")
        self.keep_alive = b"close" not in connection if self.modern else b"keep-alive" in connection
        self.expects_continue = self.modern and b"100-continue" in tokens(self.headers, b"expect")
        length = next((v for lower, _, v in self.headers if lower == b"content-length"), None)
        self._length = int(length) if length is not None else None

    @property
    def ready(self) -> bool:
        """Whether enough of it is here to begin."""
        return self.received or self.refusal is not None or self.large

    @property
    def large(self) -> bool:
        """Whether it is passed on as it comes."""
        return (self._length or 0) > BUFFERED or self.buffered > BUFFERED

    @property
    def throttled(self) -> bool:
        """Whether the client should send no more of it for now."""
        if not self.begun or self.received or self.ended:
            return False
        return self._connection is None or self._connection.congested

    def add_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self.ended:
            return
        if self._connection:
            self._connection.send(self._framed(data), complete=False)
        else:
            self.body.append(data)
            self.buffered += len(data)

    def all_received(self) -> None:
        """The request is here as a whole."""
        self.received = True
        if self._connection and not self.ended:
            self._connection.send(LAST_CHUNK if self._length is None else b"", complete=True)

    def throttle(self) -> None:
        """The server takes data, or no longer."""
        self.client.update_reading()

    # --- to the server ---

    def begin(self) -> None:
        """Give it to a revision."""
        self.begun = True
        if self.refusal:
            # What follows in the connection cannot be told from the body of this request.
            self.keep_alive = False
            self.received = True
            self.refuse(*self.refusal)
            return
        self._streamed = not self.received
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._timed_out)
        upstream = self._routes.choose()
        if upstream is None:
            self.refuse(503, self._routes.message)
            return
        self._try(upstream)

    def _try(self, upstream: Upstream, *, fresh: bool = False) -> None:
        self._upstream = upstream
        upstream.enter()
        connection = None if fresh or self._streamed else upstream.idle()
        self._pooled = connection is not None
        if connection:
            self._carry_by(connection)
        else:
            self._connecting = asyncio.ensure_future(self._connect(upstream))

    async def _connect(self, upstream: Upstream) -> None:
        try:
            connection = await upstream.connect()
        except OSError as error:
            self._leave()
            if self.ended:
                return
            self._tried += (upstream,)
            # A request that a server has died of is not tried on the next one.
            other = None if self._resent else self._routes.choose(self._tried)
            if other:
                self._try(other)
            else:
                self.refuse(502, self._unreachable(upstream, str(error) or "timed out"))
            return
        if self.ended:
            connection.close()
            return
        self._carry_by(connection)
        self.client.update_reading()

    def _carry_by(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self.pace(congested=self.client.congested)
        body = b"".join(self.body)
        if self.received:
            has_body = body or self._length is not None
            frame = framing(len(body)) if has_body else b""
        else:
            frame = framing(self._length)
            body = self._framed(body)
            self.body.clear()
        head = request_head(self.method, self.target, self.headers, frame)
        connection.carry(self, head + body, complete=self.received)

    def _framed(self, data: bytes) -> bytes:
        return chunk(data) if self._length is None and data else data

    # --- from the server ---

    def answering(self) -> None:
        """The head of the answer is here."""
        self._answering = True
        self._stop_timer()

    def connection_line(self) -> bytes:
        """The header that tells the client whether it can send another request."""
        if self.keep_alive:
            return b"" if self.modern else b"connection: keep-alive\r\n"
        return b"connection: close\r\n"

    def forward(self, data: bytes) -> None:
        """A piece of the answer, as it goes to the client."""
        self.client.write(data)

    def pace(self, *, congested: bool) -> None:
        """The client takes more of the answer, or no longer."""
        if self._connection and congested:
            self._connection.pause()
        elif self._connection:
            self._connection.resume()

    def complete(self) -> None:
        """The answer has gone out as a whole."""
        if self._upstream:
            self._routes.count(self._upstream.revision)
        self._end()

    def lost(self, reason: str) -> None:
        """The connection ended before the answer did."""
        upstream, self._connection = self._upstream, None
        if upstream is None:
            return
        self._leave()
        if self._answering:
            # The client must not take what it has for the whole.
            self._end(cut=True)
        elif self._pooled and not self._resent:
            self._resent = True
            self._try(upstream, fresh=True)
        else:
            self.refuse(502, self._unreachable(upstream, reason))

    def refuse(self, status: int, reason: str) -> None:
        """Answer without a server."""
        self.reply(status, {"error": reason})

    def reply(self, status: int, value: object) -> None:
        """Answer with a value of the router's own."""
        if self.ended:
            return
        self.client.write_answer(self, status, value)
        self._end()

    def abandon(self) -> None:
        """The client is gone."""
        if self._connection:
            self._connection.abort()
            self._connection = None
        self.ended = True
        self._leave()
        self._stop_timer()

    def _timed_out(self) -> None:
        upstream, connection = self._upstream, self._connection
        self._connection = None
        if connection:
            connection.abort()
        self._leave()
        if self._connecting:
            self._connecting.cancel()
        name = upstream.revision if upstream else "no revision"
        self.refuse(
            504,
            f"Revision {name} did not begin to answer within {self._timeout:g} s. Send smaller "
            f"requests, or look at its log.",
        )

    def _unreachable(self, upstream: Upstream, reason: str) -> str:
        return (
            f"Revision {upstream.revision} did not answer: {reason}. Look at its log, and deploy "
            f"or start the model again if its server has ended."
        )

    def _leave(self) -> None:
        if self._upstream:
            self._upstream.leave()
            self._upstream = None

    def _end(self, *, cut: bool = False) -> None:
        self.ended = True
        self._connection = None
        self._leave()
        self._stop_timer()
        self.body.clear()
        if cut:
            self.client.cut()
        else:
            self.client.advance()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
