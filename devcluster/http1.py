"""One side of an HTTP/1.1 connection: h11 on top of asyncio's streams."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import h11

_AT_ONCE = 65536
_GOODBYE_SECONDS = 5.0
# Tokens and long selectors are headers and targets.
LONGEST_HEAD = 65536


@dataclass(eq=False)
class Wire:
    """A connection.

    Attributes:
        protocol: What has been said on it.
        reader: What comes in.
        writer: What goes out.
    """

    protocol: h11.Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def receive(self) -> h11.Event | type[h11.PAUSED]:
        """Wait for what comes next; of a body, what has arrived so far.

        May be cancelled without a loss.
        """
        while True:
            event = self.protocol.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # h11's sentinel is a class of its own
            self.protocol.receive_data(await self.reader.read(_AT_ONCE))

    async def send(self, *events: h11.Event) -> None:
        """Send, and wait while the other side does not take it."""
        for event in events:
            self.writer.write(self.protocol.send(event) or b"")
        await self.writer.drain()

    async def closed(self) -> None:
        """Wait until the other side hangs up. What it says until then is kept for later."""
        while data := await self.reader.read(_AT_ONCE):
            self.protocol.receive_data(data)

    async def hang_up(self) -> None:
        """End the connection after all that was sent has arrived."""
        self.writer.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), _GOODBYE_SECONDS)

    def abort(self) -> None:
        """Break the connection off; what was sent last may be lost."""
        self.writer.transport.abort()


async def join(one: Wire, other: Wire) -> None:
    """Pass on bytes both ways, after both sides have switched to another protocol."""
    for source, sink in ((one, other), (other, one)):
        sink.writer.write(source.protocol.trailing_data[0])
    copies = [
        asyncio.create_task(_copy(source.reader, sink.writer))
        for source, sink in ((one, other), (other, one))
    ]
    try:
        done, _ = await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in copies:
            task.cancel()
        await asyncio.gather(*copies, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_AT_ONCE):
        writer.write(data)
        await writer.drain()
