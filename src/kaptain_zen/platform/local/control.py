"""The line between a client and a process that it starts, until the process stands by itself.

A server or a router must outlive the client that starts it, and must not outlive a client that is
killed before it has noted down what it started. So a new process begins as a dependant: it holds
one end of a socket pair, and when the other end goes away it ends. Only the order `adopt` frees it.

Both ends speak JSON, one value per line. This module is used by processes that import as little as
they can; it needs the standard library only.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

CONTROL_FD = 3
"""Descriptor under which a new process finds its end."""
ADOPT = "adopt"
"""Order that frees a process."""


class Channel:
    """One end of the line."""

    def __init__(self, end: socket.socket) -> None:
        """Take over one end; the channel closes it."""
        self._socket = end
        self._received = b""

    def fileno(self) -> int:
        """The descriptor, to wait for several channels at once."""
        return self._socket.fileno()

    @property
    def has_more(self) -> bool:
        """Whether another message has arrived already; the descriptor does not tell any more."""
        return b"\n" in self._received

    def send(self, message: dict[str, Any]) -> bool:
        """Send one message.

        Returns:
            Whether the other end still exists.
        """
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Wait for one message.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The message; None when the other end is gone.

        Raises:
            TimeoutError: There was none in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._received:
            # A timeout of zero would mean "do not block" and raise another error.
            left = None if deadline is None else max(1e-6, deadline - time.monotonic())
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise
            except OSError:
                return None
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Give this end up."""
        self._socket.close()
