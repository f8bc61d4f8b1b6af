"""A proxy in front of an API server that does wrong what rules tell it to; see `faults`.

It runs in a thread of the process that tests, so that rules change between two requests of a test.
Every request goes to the server on a connection of its own: what is broken is broken by a rule.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Self

import h11

from devcluster.faults import (
    EXPIRED,
    Answer,
    Delay,
    Drop,
    ExpireWatch,
    Fault,
    Request,
    Rule,
    faults_for,
    status_object,
)
from devcluster.http1 import LONGEST_HEAD, Wire
from devcluster.kubeconfig import Access
from devcluster.relay import DroppedError, Exchange, Relay
from devcluster.tls import Authority, server_context

_ADDRESS = "127.0.0.1"
_START_SECONDS = 10.0
_STOP_SECONDS = 10.0


class FaultProxy:
    """The proxy. Use it in a `with` statement.

    It terminates TLS with an authority of its own, which `access` names. A client that shows the
    token of `access` is to the server who the proxy is; any other token is passed on.

    Args:
        upstream: The server behind it, and as whom it asks it.
        seed: Of the chance that shares are drawn from.
    """

    def __init__(self, upstream: Access, *, seed: int = 0) -> None:
        self._upstream = upstream
        self._authority = Authority.create("fault proxy")
        self._token = secrets.token_urlsafe(32)
        self._relay = Relay(upstream, self._token)
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._rules: tuple[Rule, ...] = ()
        self._server = ""
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._wires: set[Wire] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self.exchanges: list[Exchange] = []

    # Used by tests, from their threads.

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(_START_SECONDS):
            raise TimeoutError(f"the fault proxy does not listen: {self._failures}")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_STOP_SECONDS)
        if self._thread.is_alive():
            raise TimeoutError("the fault proxy does not stop")
        if self._failures:
            raise ExceptionGroup("the fault proxy failed by itself", self._errors())

    def access(self, of: Access | None = None) -> Access:
        """The server through the proxy.

        Args:
            of: A user of the server with a token; the proxy's own user unless given.

        Raises:
            ValueError: That user shows a certificate, which a proxy cannot show in its stead.
        """
        if of is not None and (of.pair or not of.token):
            raise ValueError(
                "only a user with a token, and without a certificate, can be passed on"
            )
        return replace(
            of or self._upstream,
            server=self._server,
            authority=self._authority.pair.certificate,
            pair=None,
            token=of.token if of else self._token,
        )

    def add(
        self,
        fault: Fault,
        *,
        methods: Iterable[str] = (),
        path: str = "",
        user_agent: str = "",
        share: float = 1.0,
        skip: int = 0,
        times: int | None = None,
    ) -> Rule:
        """Have a fault happen from now on; see `Rule` for the arguments.

        Returns:
            The rule, whose counts tell what has come of it.
        """
        rule = Rule(fault, frozenset(methods), path, user_agent, share, skip, times)
        self._rules = (*self._rules, rule)
        return rule

    def clear(self) -> None:
        """Have no fault happen any more. Watches that have begun keep theirs."""
        self._rules = ()

    def break_connections(self) -> None:
        """Break all connections that are open now."""
        asyncio.run_coroutine_threadsafe(self._break(), self._loop).result(_STOP_SECONDS)

    # In the proxy's thread.

    def _errors(self) -> list[Exception]:
        return [e if isinstance(e, Exception) else RuntimeError(repr(e)) for e in self._failures]

    async def _break(self) -> None:
        for wire in self._wires:
            wire.abort()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for the thread
            self._failures.append(error)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        pair = self._authority.issue("fault-proxy", hosts=[_ADDRESS, "localhost"])
        server = await asyncio.start_server(self._connected, _ADDRESS, 0, ssl=server_context(pair))
        self._server = f"https://{_ADDRESS}:{server.sockets[0].getsockname()[1]}"
        self._listening.set()
        await self._stopping.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        task = self._loop.create_task(self._connection(Wire(connection, reader, writer)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, client: Wire) -> None:
        self._wires.add(client)
        try:
            while await self._exchange(client):
                client.protocol.start_next_cycle()
            await client.hang_up()
        except (OSError, EOFError, h11.RemoteProtocolError):
            pass  # broken by a rule, by the client or by the server: it is broken to the client
        except Exception as error:  # noqa: BLE001 - told when the proxy stops
            self._failures.append(error)
        finally:
            self._wires.discard(client)
            client.abort()

    async def _exchange(self, client: Wire) -> bool:
        """Pass on a request and its answer. Whether there may be another."""
        head = await client.receive()
        if not isinstance(head, h11.Request):
            return False
        body = b""
        while isinstance(part := await client.receive(), h11.Data):
            body += part.data
        agent = dict(head.headers).get(b"user-agent", b"").decode("latin-1")
        request = Request(head.method.decode(), head.target.decode(), agent)
        faults = faults_for(request, self._rules, self._chance)
        exchange = Exchange(request, faults)
        self.exchanges.append(exchange)
        for fault in faults:
            if isinstance(fault, Delay):
                await asyncio.sleep(fault.seconds)
        last = faults[-1] if faults else None
        match last:
            case Drop(when="request"):
                raise DroppedError
            case Answer():
                await self._answer(client, exchange, last)
            case ExpireWatch(after=None):
                await self._answer(client, exchange, EXPIRED)
            case _:
                await self._relay.forward(client, exchange, head, body)
        return client.protocol.our_state is h11.DONE and client.protocol.their_state is h11.DONE

    async def _answer(self, client: Wire, exchange: Exchange, answer: Answer) -> None:
        body = json.dumps(status_object(answer)).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if answer.retry_after is not None:
            headers.append(("Retry-After", str(answer.retry_after)))
        exchange.status = answer.status
        await client.send(
            h11.Response(status_code=answer.status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
