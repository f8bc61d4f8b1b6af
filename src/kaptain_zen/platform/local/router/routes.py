"""Which revision answers the next request, and how many requests each has under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kaptain_zen.platform.local.router.split import Split
from kaptain_zen.platform.local.router.upstream import Upstream

_COUNTS_KEPT = 64
_PORTS = range(1, 65536)
NOTHING_SERVES = "No model is served here yet. Wait until its deployment is ready."


class BadRoutesError(ValueError):
    """A change of routes was asked for that makes no sense; nothing was changed."""


class Routes:
    """The upstreams that requests go to, those that are on their way out, and the counts."""

    def __init__(self, make: Callable[[str, int], Upstream] = Upstream) -> None:
        """Start with no routes.

        Args:
            make: Makes an upstream of a revision and a port.
        """
        self.message = NOTHING_SERVES
        self._make = make
        self._upstreams: list[Upstream] = []
        self._weights: list[int] = []
        self._split: Split | None = None
        self._retired: list[Upstream] = []
        self._answered: dict[str, int] = {}

    def choose(self, tried: tuple[Upstream, ...] = ()) -> Upstream | None:
        """The upstream for a request.

        Args:
            tried: Those that did not take it.

        Returns:
            The next one by share; with some tried, any other one; None when there is none.
        """
        if tried:
            return next((u for u in self._upstreams if u not in tried), None)
        return self._upstreams[self._split.choose()] if self._split else None

    def switch(self, wanted: Any) -> None:
        """Replace all routes in one step; requests under way end where they are.

        Args:
            wanted: `{"routes": [{"revision": …, "port": …, "weight": …}, …], "message": …}`; the
                weights sum to 100, or there is no route and the message tells clients why.

        Raises:
            BadRoutesError: It is something else.
        """
        routes, message = _checked(wanted)
        try:
            split = Split([weight for _, _, weight in routes]) if routes else None
        except ValueError as error:
            raise BadRoutesError(f"{error}.") from error
        known = {(u.revision, u.port): u for u in (*self._upstreams, *self._retired)}
        upstreams = [
            known.get((revision, port)) or self._make(revision, port)
            for revision, port, _ in routes
        ]
        leaving = [u for u in known.values() if u not in upstreams]
        self._upstreams, self._split = upstreams, split
        self._weights = [weight for _, _, weight in routes]
        self._retired = [u for u in leaving if u.in_flight]
        self.message = message or NOTHING_SERVES
        for upstream in leaving:
            upstream.close_idle()

    def count(self, revision: str) -> None:
        """A revision answered a request."""
        self._answered[revision] = self._answered.get(revision, 0) + 1
        if len(self._answered) > _COUNTS_KEPT:
            serving = {u.revision for u in self._upstreams}
            oldest = next(r for r in self._answered if r not in serving)
            del self._answered[oldest]

    async def drained(self, revision: str, timeout: float) -> int:
        """Wait until a retired revision has answered all requests that it was given.

        Args:
            revision: Which.
            timeout: Seconds to wait at most.

        Returns:
            How many it has not answered.
        """
        waiting = [u for u in self._retired if u.revision == revision]
        try:
            async with asyncio.timeout(timeout):
                for upstream in waiting:
                    await upstream.empty()
        except TimeoutError:
            pass
        self._retired = [u for u in self._retired if u.in_flight]
        return sum(u.in_flight for u in waiting)

    def status(self) -> dict[str, Any]:
        """Everything, as plain data."""
        in_flight: dict[str, int] = {}
        for upstream in (*self._upstreams, *self._retired):
            in_flight[upstream.revision] = in_flight.get(upstream.revision, 0) + upstream.in_flight
        return {
            "routes": [
                {"revision": u.revision, "port": u.port, "weight": weight}
                for u, weight in zip(self._upstreams, self._weights, strict=True)
            ],
            "in_flight": in_flight,
            "answered": dict(self._answered),
        }


def _checked(wanted: Any) -> tuple[list[tuple[str, int, int]], str]:
    try:
        message = wanted.get("message") or ""
        routes = [(r["revision"], r["port"], r["weight"]) for r in wanted["routes"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise BadRoutesError(f"they have another shape ({error!r}).") from error
    if not isinstance(message, str):
        raise BadRoutesError("the message is no text.")
    for revision, port, _ in routes:
        if not isinstance(revision, str) or not isinstance(port, int) or port not in _PORTS:
            raise BadRoutesError(f"{revision!r} on {port!r} is no revision on a port.")
    if len({revision for revision, _, _ in routes}) != len(routes):
        raise BadRoutesError("a revision is named twice.")
    return routes, message
