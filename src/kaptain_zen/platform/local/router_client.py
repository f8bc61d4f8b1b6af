"""What a service's owner asks of its router, over HTTP with a deadline."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from kaptain_zen.exceptions import WorkloadDeploymentError
from kaptain_zen.platform.local.mlserver_settings import HOST

_OK = 200
_ANSWER_TIMEOUT = 5.0


class RouterError(WorkloadDeploymentError):
    """The router did not do what it was asked for."""


@dataclass(frozen=True)
class RouterStatus:
    """What a router says of itself.

    Attributes:
        routes: Weight in percent by revision and port.
        in_flight: Requests under way, by revision.
        answered: Requests answered since the router was started, by revision.
    """

    routes: dict[tuple[str, int], int]
    in_flight: dict[str, int]
    answered: dict[str, int]


@dataclass(frozen=True)
class RouterClient:
    """Talks to one router.

    Attributes:
        port: The router's port on the loopback interface.
        token: The secret in its folder.
    """

    port: int
    token: str

    def __repr__(self) -> str:
        """The port and nothing secret."""
        return f"RouterClient(port={self.port})"

    def status(self, *, timeout: float = _ANSWER_TIMEOUT) -> RouterStatus:
        """Routes and counts.

        Raises:
            RouterError: It does not answer within `timeout` seconds.
        """
        return _status(self._ask("GET", "status", timeout=timeout))

    def switch(self, routes: dict[tuple[str, int], int], *, message: str = "") -> None:
        """Replace all routes in one step.

        Args:
            routes: Weight in percent by revision and port; none to answer nothing.
            message: What clients are told when there is no route.

        Raises:
            RouterError: It did not.
        """
        body = {
            "routes": [
                {"revision": revision, "port": port, "weight": weight}
                for (revision, port), weight in routes.items()
            ],
            "message": message,
        }
        self._ask("PUT", "routes", body=body, timeout=_ANSWER_TIMEOUT)

    def drain(self, revision: str, *, timeout: float) -> int:
        """Wait until a revision that has no route any more has answered everything.

        Args:
            revision: Which.
            timeout: Seconds to wait at most.

        Returns:
            How many requests it has not answered.

        Raises:
            RouterError: The router did not answer.
        """
        query = urlencode({"revision": revision, "timeout": timeout})
        answer = self._ask("GET", f"drain?{query}", timeout=timeout + _ANSWER_TIMEOUT)
        return int(answer["in_flight"])

    def _ask(self, method: str, path: str, *, timeout: float, body: Any = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        try:
            connection.request(
                method,
                f"/.kaptain-zen/{path}",
                body=None if body is None else json.dumps(body).encode(),
                headers={"Authorization": f"Bearer {self.token}"},
            )
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise RouterError(
                f"The router on port {self.port} does not answer ({reason})."
            ) from error
        finally:
            connection.close()
        if response.status != _OK or not isinstance(answer, dict):
            raise RouterError(
                f"The router on port {self.port} refused {method} {path.partition('?')[0]} "
                f"({response.status}): {answer}"
            )
        return answer


def _status(answer: dict[str, Any]) -> RouterStatus:
    try:
        return RouterStatus(
            routes={(r["revision"], r["port"]): r["weight"] for r in answer["routes"]},
            in_flight=answer["in_flight"],
            answered=answer["answered"],
        )
    except (KeyError, TypeError) as error:
        raise RouterError(f"The router's status makes no sense: {answer}") from error
