"""Waiting until started servers answer, and noticing at once when one never will."""

from __future__ import annotations

import http.client
import selectors
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaptain_zen.exceptions import WorkloadDeploymentError, WorkloadTimeoutError
from kaptain_zen.platform.local.mlserver_settings import HOST
from kaptain_zen.platform.local.serving_process import Child, tail

_TAIL = 15
_OK = 200
_ASK_AGAIN = 0.02
_ASK_TIMEOUT = 0.25


@dataclass
class Starting:
    """A revision's server that does not answer yet.

    Attributes:
        name: Of the model.
        revision: Which revision.
        child: Its process.
        log: What it prints goes there.
        port: Where it will answer; 0 until it says so.
        phase: What it is doing.
    """

    name: str
    revision: str
    child: Child
    log: Path
    port: int = 0
    phase: str = field(default="importing MLServer and its runtime")

    def hear(self) -> None:
        """Take all messages of its process that have arrived.

        Raises:
            WorkloadDeploymentError: It says that it failed, or it has ended.
        """
        self._take(self.child.channel.receive(timeout=1))
        while self.child.channel.has_more:
            self._take(self.child.channel.receive())

    def _take(self, message: dict[str, Any] | None) -> None:
        if message is None:
            raise self._failure(self.child.ended())
        if "error" in message:
            raise self._failure(message["error"])
        if message.get("state") == "loading":
            self.port = message["port"]
            self.phase = "loading the model"

    def answers(self) -> bool:
        """Whether the model's own ready endpoint says yes."""
        if not self.port:
            return False
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_ASK_TIMEOUT)
        try:
            # With its version, so that no other server can answer in its place.
            connection.request("GET", f"/v2/models/{self.name}/versions/{self.revision}/ready")
            return connection.getresponse().status == _OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def too_slow(self, timeout: float) -> WorkloadTimeoutError:
        """The error that says that it did not answer in time."""
        return WorkloadTimeoutError(
            f"Revision {self.revision} of {self.name} did not answer within {timeout:g} s; it was "
            f"still {self.phase}. Give it a longer timeout, or look at what it printed."
            f"{self._last_lines()}"
        )

    def _failure(self, reason: str) -> WorkloadDeploymentError:
        return WorkloadDeploymentError(
            f"Revision {self.revision} of {self.name} did not start: {reason}.{self._last_lines()}"
        )

    def _last_lines(self) -> str:
        lines = tail(self.log, _TAIL)
        return "\nIts last lines:\n" + "\n".join(lines) if lines else ""


def wait_until_ready(servers: Sequence[Starting], *, deadline: float, timeout: float) -> None:
    """Wait until all of some servers answer.

    Args:
        servers: Which.
        deadline: Time of `time.monotonic` until which they may take.
        timeout: How many seconds that was, for the error.

    Raises:
        WorkloadDeploymentError: One of them ended, or could not load its model.
        WorkloadTimeoutError: One of them did not answer in time.
    """
    waiting = list(servers)
    with selectors.DefaultSelector() as selector:
        for server in waiting:
            selector.register(server.child.channel, selectors.EVENT_READ, server)
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise waiting[0].too_slow(timeout)
            # An HTTP server cannot tell that it listens, so it is asked every now and then; but
            # only after its process has said that it is about to.
            loading = any(server.port for server in waiting)
            for key, _ in selector.select(min(_ASK_AGAIN, left) if loading else left):
                with suppress(TimeoutError):
                    key.data.hear()
            for server in [server for server in waiting if server.answers()]:
                selector.unregister(server.child.channel)
                waiting.remove(server)
