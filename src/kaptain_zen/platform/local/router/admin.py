"""What the router does for its owner, under a reserved path of the port that it serves on.

GET  /.kaptain-zen/status                             routes, requests under way, counts
PUT  /.kaptain-zen/routes                             replace all routes in one step
GET  /.kaptain-zen/drain?revision=…&timeout=…         wait for a retired revision's last answer
"""

from __future__ import annotations

import asyncio
import hmac
import json
from urllib.parse import parse_qs, urlsplit

from kaptain_zen.platform.local.router.exchange import Exchange
from kaptain_zen.platform.local.router.routes import BadRoutesError, Routes

PREFIX = b"/.kaptain-zen/"
_LONGEST_DRAIN = 3600.0


class Admin:
    """Answers the owner's requests."""

    def __init__(self, routes: Routes, token: str) -> None:
        """Take orders for some routes.

        Args:
            routes: What to show and change.
            token: What the owner sends as a bearer token.
        """
        self._routes = routes
        self._authorization = f"Bearer {token}".encode()
        self._waiting: set[asyncio.Task[None]] = set()

    def takes(self, exchange: Exchange) -> bool:
        """Answer a request if it is for the router itself; say whether it was."""
        if not exchange.target.startswith(PREFIX):
            return False
        exchange.begun = True
        given = next((v for name, _, v in exchange.headers if name == b"authorization"), b"")
        if not hmac.compare_digest(given, self._authorization):
            exchange.refuse(401, "The token is missing or wrong.")
        elif not exchange.received:
            exchange.refuse(413, "The request is too large.")
        else:
            self._answer(exchange)
        return True

    def _answer(self, exchange: Exchange) -> None:
        url = urlsplit(exchange.target.removeprefix(PREFIX).decode("latin-1"))
        match exchange.method, url.path:
            case b"GET", "status":
                exchange.reply(200, self._routes.status())
            case b"PUT", "routes":
                try:
                    self._routes.switch(json.loads(b"".join(exchange.body)))
                except (BadRoutesError, ValueError) as error:
                    exchange.refuse(400, f"The routes were not changed: {error}")
                else:
                    exchange.reply(200, self._routes.status())
            case b"GET", "drain":
                query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                try:
                    timeout = min(float(query.get("timeout", "0")), _LONGEST_DRAIN)
                except ValueError:
                    exchange.refuse(400, "timeout is no number of seconds.")
                    return
                task = asyncio.ensure_future(
                    self._drain(exchange, query.get("revision", ""), timeout)
                )
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)
            case _:
                exchange.refuse(404, "There is no such order.")

    async def _drain(self, exchange: Exchange, revision: str, timeout: float) -> None:
        exchange.reply(200, {"in_flight": await self._routes.drained(revision, timeout)})
