"""What a proxy in front of the API server may do wrong, to which requests; see `proxy`.

Pure: which faults befall a request is decided from the request, the rules and a source of chance.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Delay:
    """The request reaches the server late.

    Attributes:
        seconds: How late.
    """

    seconds: float


@dataclass(frozen=True)
class Drop:
    """The connection breaks.

    Attributes:
        when: `request`: before the server has seen the request. `answer`: after the server has done
            it and answered, so the client cannot know.
    """

    when: Literal["request", "answer"] = "request"


@dataclass(frozen=True)
class Answer:
    """The proxy answers in the server's stead, as the server would; that never sees the request.

    Attributes:
        status: HTTP status code of an error.
        retry_after: Seconds in the Retry-After header, if any.
        reason: Reason in the Status object; the usual one for the code unless given.
        message: Message in the Status object.
    """

    status: int
    retry_after: int | None = None
    reason: str = ""
    message: str = "a fault that was asked for"


@dataclass(frozen=True)
class CutWatch:
    """A watch ends early. Other requests pass.

    Attributes:
        after: Seconds from its beginning.
        cleanly: Whether it ends like one whose time is up; else the connection breaks.
    """

    after: float
    cleanly: bool = False


@dataclass(frozen=True)
class ExpireWatch:
    """A watch is told that its resourceVersion is too old. Other requests pass.

    Attributes:
        after: Seconds from its beginning until an ERROR event comes and it ends. None: it does not
            begin, and the answer is 410 Gone.
    """

    after: float | None = None


Fault = Delay | Drop | Answer | CutWatch | ExpireWatch

_REASONS: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "BadRequest",
    HTTPStatus.UNAUTHORIZED: "Unauthorized",
    HTTPStatus.FORBIDDEN: "Forbidden",
    HTTPStatus.NOT_FOUND: "NotFound",
    HTTPStatus.CONFLICT: "Conflict",
    HTTPStatus.GONE: "Expired",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Invalid",
    HTTPStatus.TOO_MANY_REQUESTS: "TooManyRequests",
    HTTPStatus.INTERNAL_SERVER_ERROR: "InternalError",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailable",
    HTTPStatus.GATEWAY_TIMEOUT: "Timeout",
}
EXPIRED = Answer(HTTPStatus.GONE, message="too old resource version: 1 (2)")


@dataclass(frozen=True)
class Request:
    """A request as rules see it.

    Attributes:
        method: Such as GET.
        target: Path and query.
        user_agent: What the client calls itself.
    """

    method: str
    target: str
    user_agent: str = ""

    @property
    def is_watch(self) -> bool:
        """Whether its answer is a stream of events."""
        parts = urlsplit(self.target)
        asked = parse_qs(parts.query).get("watch", ["false"])[0]
        return self.method == "GET" and asked.lower() in {"true", "1"}


@dataclass
class Rule:
    """Which requests a fault befalls, and how many it has befallen.

    Attributes:
        fault: What happens to them.
        methods: Only these methods; all if empty.
        path: Only targets (path and query) in which this regular expression is found.
        user_agent: Only clients whose name this regular expression is found in.
        share: The part of the matching requests that it befalls, from 0 to 1.
        skip: So many matching requests pass first.
        times: It befalls so many at most; None is without end.
        matched: Requests that matched so far.
        applied: Requests that it has befallen so far.
    """

    fault: Fault
    methods: frozenset[str] = frozenset()
    path: str = ""
    user_agent: str = ""
    share: float = 1.0
    skip: int = 0
    times: int | None = None
    matched: int = field(default=0, init=False)
    applied: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}, not between 0 and 1")
        # A mistake in an expression is told where it was made, not in the proxy.
        self._path, self._user_agent = re.compile(self.path), re.compile(self.user_agent)

    def matches(self, request: Request) -> bool:
        """Whether this is about a request."""
        only_watches = isinstance(self.fault, CutWatch | ExpireWatch)
        return (
            (not self.methods or request.method in self.methods)
            and (request.is_watch or not only_watches)
            and self._path.search(request.target) is not None
            and self._user_agent.search(request.user_agent) is not None
        )

    def befalls(self, request: Request, chance: random.Random) -> bool:
        """Whether the fault happens to a request; counts it."""
        if not self.matches(request):
            return False
        self.matched += 1
        if self.matched <= self.skip or self.applied == self.times:
            return False
        # Chance is asked of every match, so that the same seed gives the same run.
        if chance.random() >= self.share:
            return False
        self.applied += 1
        return True


def faults_for(request: Request, rules: Iterable[Rule], chance: random.Random) -> list[Fault]:
    """What happens to a request: delays, and at most one other fault, the first.

    Args:
        request: The request.
        rules: In the order in which they are asked; they count.
        chance: What shares are drawn from.
    """
    found: list[Fault] = []
    for rule in rules:
        if rule.befalls(request, chance):
            found.append(rule.fault)
            if not isinstance(rule.fault, Delay):
                break
    return found


def status_object(answer: Answer) -> dict[str, object]:
    """The Status object by which the API server says no."""
    body: dict[str, object] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": answer.message,
        "reason": answer.reason or _REASONS.get(answer.status, ""),
        "code": answer.status,
    }
    if answer.retry_after is not None:
        body["details"] = {"retryAfterSeconds": answer.retry_after}
    return body


def expired_event() -> bytes:
    """The event, a line, by which a watch is told that its resourceVersion is too old."""
    event = {"type": "ERROR", "object": status_object(EXPIRED)}
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
