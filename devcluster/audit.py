"""Which requests the API server has answered, by its audit log."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster import api as _api
from devcluster.errors import DevclusterError

_SETTLED_SECONDS = 10.0
_LOOK_AGAIN = 0.02


@dataclass(frozen=True)
class AuditEvent:
    """One request.

    Attributes:
        user: Who asked.
        user_agent: By which program.
        verb: What for, in the words of Kubernetes: get, list, watch, create, update, patch, ...
        uri: Path and query.
        resource: Such as pods, or pods/status; blank for what is not about a resource.
        namespace: Of the object; blank if it has none.
        name: Of the object; blank if none was named.
        code: HTTP status code of the answer.
        id: One request has one id, and may have several events, such as the begin and the end of a
            watch.
    """

    user: str
    user_agent: str
    verb: str
    uri: str
    resource: str
    namespace: str
    name: str
    code: int
    id: str

    @classmethod
    def parse(cls, line: str | bytes) -> AuditEvent:
        """From a line of the log."""
        event: dict[str, Any] = json.loads(line)
        about = event.get("objectRef", {})
        names = [about.get("resource", ""), about.get("subresource", "")]
        return cls(
            user=event["user"].get("username", ""),
            user_agent=event.get("userAgent", ""),
            verb=event["verb"],
            uri=event["requestURI"],
            resource="/".join(part for part in names if part),
            namespace=about.get("namespace", ""),
            name=about.get("name", ""),
            code=event.get("responseStatus", {}).get("code", 0),
            id=event["auditID"],
        )


class AuditLog:
    """What has been added to an audit log since some moment.

    Args:
        path: The log.
        api: The server that writes it; used by `settle`.
    """

    def __init__(self, path: Path, api: _api.Api) -> None:
        self._path = path
        self._api = api
        self._offset = path.stat().st_size

    def __iter__(self) -> Iterator[AuditEvent]:
        """The events that are written by now."""
        with self._path.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if line.endswith(b"\n"):  # else it is being written
                    yield AuditEvent.parse(line)

    def settle(self) -> None:
        """Wait until what has been answered is in the log as well.

        An event is written while its answer is on its way. A request of our own tells how far the
        log has come.
        """
        mark = f"/healthz/ping?mark={uuid.uuid4().hex}"
        self._api.request("GET", mark)
        deadline = time.monotonic() + _SETTLED_SECONDS
        while not any(event.uri == mark for event in self):
            if time.monotonic() > deadline:
                raise DevclusterError(
                    f"{self._path} lacks what was answered {_SETTLED_SECONDS:g} s ago."
                )
            # A file tells nobody that it grows.
            time.sleep(_LOOK_AGAIN)

    def requests(self, user_agent: str = "") -> list[AuditEvent]:
        """All requests that have been answered since, or whose answer has begun, each once.

        Those that this module and its like send are left out.

        Args:
            user_agent: Only those of programs in whose name this is.
        """
        self.settle()
        first = {event.id: event for event in reversed(list(self))}
        return [
            event
            for event in reversed(first.values())
            if user_agent in event.user_agent and event.user_agent != _api.USER_AGENT
        ]
