"""Stands between one client and the template that its trainings are forked from.

The client must not wait for imports, and a run that it has handed over must start even if the
client is killed, or the imports hang, crash, or turn out to forbid forking. So this process, which
imports nothing of the script's, takes requests at once and keeps each until the template has
forked its supervisor; whatever the template does not do, it does itself, the slow way.

It belongs to its client: when the other end of the connection is gone and nothing is left to start,
it ends, and the template with it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kaptain_zen.exceptions import WorkloadDeploymentError
from kaptain_zen.platform.local import template, wire
from kaptain_zen.platform.local.launch import detach, start_supervisor
from kaptain_zen.platform.local.worker import Continuation, reset_signals


@dataclass
class _Template:
    """The template, as its server sees it.

    Attributes:
        pid: Its process.
        connection: To it.
        patience: When to give up waiting for it to be ready.
        ready: Whether it has imported everything and forks.
    """

    pid: int
    connection: socket.socket
    patience: float
    ready: bool = False


class WarmServer:
    """Hands a client's requests to a template, or starts the runs itself."""

    def __init__(self, client: socket.socket, child: _Template, *, idle_time: float) -> None:
        """Take over both connections.

        Args:
            client: To the client.
            child: The template.
            idle_time: Seconds without a request after which to end.
        """
        self._idle_time = idle_time
        self._client: socket.socket | None = client
        self._template: _Template | None = child
        self._waiting: list[tuple[dict[str, Any], int]] = []
        self._handed_over: dict[str, tuple[dict[str, Any], int]] = {}
        self._idle_at = time.monotonic() + self._idle_time

    def serve(self) -> None:
        """Work until the client is gone and nothing is left to start."""
        while self._client is not None or self._waiting or self._handed_over:
            self._wait()
            if self._template is not None and time.monotonic() >= self._template.patience:
                self._give_up_template("the imports took too long")
            self._start_waiting()
            if self._client is not None and time.monotonic() >= self._idle_at:
                # From here on the client's messages fail; what it had sent before is still read.
                with suppress(OSError):
                    self._client.shutdown(socket.SHUT_RD)

    def _wait(self) -> None:
        """Wait for a message of either side, or until something is due."""
        poll = select.poll()
        due = []
        if self._client is not None:
            poll.register(self._client, select.POLLIN)
            due.append(self._idle_at)
        if self._template is not None:
            poll.register(self._template.connection, select.POLLIN)
            if not self._template.ready:
                due.append(self._template.patience)
        left = max(0.0, min(due) - time.monotonic()) if due else None
        ready = {number for number, _ in poll.poll(None if left is None else left * 1000 + 1)}
        if self._client is not None and self._client.fileno() in ready:
            self._hear_client(self._client)
        if self._template is not None and self._template.connection.fileno() in ready:
            self._hear_template(self._template)

    def _hear_client(self, client: socket.socket) -> None:
        self._idle_at = time.monotonic() + self._idle_time
        request = wire.receive(client)
        if request is None or request[1] is None:
            client.close()
            self._client = None
            return
        self._waiting.append((request[0], request[1]))

    def _hear_template(self, child: _Template) -> None:
        answer = wire.receive(child.connection)
        message = answer[0] if answer else {"unsafe": "the process with the imports ended"}
        if "started" in message:
            _, lock = self._handed_over.pop(message["started"])
            os.close(lock)
        elif "ready" in message:
            child.ready = True
            child.patience = float("inf")
            self._tell_client({"warm": True})
        else:
            self._give_up_template(message["unsafe"])

    def _give_up_template(self, reason: str) -> None:
        """Start runs the slow way from now on, beginning with those that it did not start."""
        child = self._template
        if child is None:
            return
        self._template = None
        child.connection.close()
        # What it has forked lives on. If it hangs in an import, closing the connection is no help.
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        self._waiting = [*self._handed_over.values(), *self._waiting]
        self._handed_over = {}
        self._tell_client({"cold": reason})

    def _start_waiting(self) -> None:
        while self._waiting and (self._template is None or self._template.ready):
            message, lock = self._waiting.pop(0)
            if self._template is not None:
                try:
                    wire.send(self._template.connection, message, lock)
                except OSError:
                    self._waiting.insert(0, (message, lock))
                    self._give_up_template("the process with the imports ended")
                    continue
                self._handed_over[message["id"]] = (message, lock)
                continue
            # If this fails as well, the lock that is let go of here says that nobody started it.
            with suppress(WorkloadDeploymentError):
                start_supervisor(Path(message["folder"]), lock, message["environment"])
            os.close(lock)

    def _tell_client(self, message: dict[str, Any]) -> None:
        if self._client is not None:
            # A client that is gone, or reads nothing, need not know.
            with suppress(OSError):
                wire.send(self._client, message)


def boot(arguments: list[str]) -> None:
    """In a fresh interpreter: leave the parent behind and serve.

    Args:
        arguments: Descriptor of the connection to the client.
    """
    descriptor = int(arguments[0])
    os.set_inheritable(descriptor, False)
    if os.fork():
        os._exit(0)
    detach()
    reset_signals()
    step: Continuation | None = partial(_front, descriptor)
    # Each fork goes on from here, so that nothing of its parent's is left on its stack.
    while step is not None:
        step = step()
    os._exit(0)


def _front(descriptor: int) -> Continuation | None:
    client = socket.socket(fileno=descriptor)
    received = wire.receive(client)
    if received is None:
        return None
    hello = received[0]
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        client.close()
        ours.close()
        return partial(template.run, theirs, hello["statements"])
    theirs.close()
    child = _Template(pid, ours, patience=time.monotonic() + hello["import_time"])
    WarmServer(client, child, idle_time=hello["idle_time"]).serve()
    return None
