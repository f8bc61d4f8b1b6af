"""The client's side of the warm start: which warm servers there are, and what each is good for.

A warm server may start a run only if it imported the same things, by the same interpreter, under
the same environment variables as the run would have: any variable may change what an import does.
So the run's whole environment is part of a server's key, but for what is known not to matter.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kaptain_zen.exceptions import ConfigurationError
from kaptain_zen.platform.local import wire
from kaptain_zen.platform.local.launch import IMPORT_PACKAGE, package_root

_log = logging.getLogger("kaptain_zen")
SWITCH = "KAPTAIN_ZEN_WARM_START"
_BOOT = (
    f"{IMPORT_PACKAGE}from kaptain_zen.platform.local.warm_server import boot; boot(sys.argv[2:])"
)
_MOST = 2
"""Warm servers of one client at a time; each holds a few hundred MB, most of it shared files."""
_START_TIMEOUT = 60.0
_IMPORT_TIME = 120.0
"""Seconds that the imports may take before runs are started without them."""
_IDLE_TIME = 15 * 60.0
"""Seconds without a request after which a warm server ends; the next request starts a new one."""
_UNIMPORTANT_PREFIXES = ("KAPTAIN_", "ZENML_")
_UNIMPORTANT = frozenset({"PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST"})
_ENDED = "the warm server ended"
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def switched_on() -> bool:
    """Whether the environment allows warm starts, and this system can do them.

    Raises:
        ConfigurationError: `KAPTAIN_ZEN_WARM_START` is neither true nor false.
    """
    text = os.environ.get(SWITCH, "").strip().lower()
    if text and text not in _TRUE | _FALSE:
        raise ConfigurationError(f"{SWITCH} is {text!r}; set it to true or false.")
    # Elsewhere system libraries start threads behind a program's back, and forks of it crash.
    return text not in _FALSE and sys.platform.startswith("linux")


@dataclass(frozen=True)
class Key:
    """What two runs must have in common to be forked from one template.

    Attributes:
        python: The interpreter.
        statements: What is imported ahead of time.
        environment: Under which variables.
    """

    python: str
    statements: tuple[str, ...]
    environment: frozenset[tuple[str, str]] = field(repr=False)

    @classmethod
    def of(cls, statements: tuple[str, ...], environment: Mapping[str, str]) -> Key:
        """Make a key.

        Args:
            statements: What to import.
            environment: Of the run's workers, without what only the run itself gets.
        """
        matters = {
            (name, value)
            for name, value in environment.items()
            if name not in _UNIMPORTANT and not name.startswith(_UNIMPORTANT_PREFIXES)
        }
        return cls(sys.executable, statements, frozenset(matters))


class _Server:
    """A connection to one warm server."""

    def __init__(self, key: Key, environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        try:
            with theirs:
                subprocess.run(
                    [key.python, "-c", _BOOT, package_root(), str(number)],
                    env=dict(environment),
                    pass_fds=(number,),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,
                    timeout=_START_TIMEOUT,
                    check=True,
                )
            hello = {
                "statements": key.statements,
                "import_time": _IMPORT_TIME,
                "idle_time": _IDLE_TIME,
            }
            wire.send(ours, hello)
        except BaseException:
            ours.close()
            raise
        self._connection = ours
        self.cold: str | None = None

    def hand_over(self, folder: Path, lock: int, environment: Mapping[str, str], uid: str) -> bool:
        """Have a run started; False if this server cannot do it any more."""
        if not self.gone:
            self._listen()
        if self.cold is not None:
            return False
        message = {"id": uid, "folder": str(folder), "environment": dict(environment)}
        try:
            wire.send(self._connection, message, lock)
        except OSError:
            self.cold = _ENDED
            return False
        except BaseException:
            # Interrupted, perhaps in the middle of a message: nothing can follow it.
            self.cold = _ENDED
            self.close()
            raise
        return True

    def _listen(self) -> None:
        """Take note of what the server has said in the meantime."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        while self.cold is None and poll.poll(0):
            message = wire.receive(self._connection)
            self.cold = message[0].get("cold") if message else _ENDED

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self.cold == _ENDED

    def close(self) -> None:
        """Let it end as soon as it has started what it was handed."""
        self._connection.close()


class WarmServers:
    """The warm servers of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers: dict[Key, _Server] = {}

    def prepare(self, key: Key, environment: Mapping[str, str]) -> None:
        """Have a server begin its imports, unless there is one.

        Args:
            key: What it is to be good for.
            environment: Its variables, without those that only a run gets.
        """
        with self._lock:
            self._get(key, environment)

    def start(
        self,
        key: Key,
        environment: Mapping[str, str],
        *,
        folder: Path,
        lock: int,
        run_environment: Mapping[str, str],
        uid: str,
    ) -> bool:
        """Have a run started by a fork, as soon as the imports are done.

        Args:
            key: What the run needs.
            environment: Variables for the imports.
            folder: The run's folder.
            lock: Descriptor of its lock.
            run_environment: Variables of the run's workers.
            uid: The run's.

        Returns:
            False if it must be started another way.
        """
        with self._lock:
            for _ in range(2):  # the second time with a new server, if the old one has ended
                server = self._get(key, environment)
                if server is None:
                    return False
                if server.hand_over(folder, lock, run_environment, uid):
                    return True
                if not server.gone:
                    _log.debug("No warm start: %s.", server.cold)
                    return False
                self._servers.pop(key).close()
        return False

    def _get(self, key: Key, environment: Mapping[str, str]) -> _Server | None:
        server = self._servers.pop(key, None)
        if server is None:
            try:
                server = _Server(key, environment)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                _log.debug("No warm start: %s.", error)
                return None
        self._servers[key] = server  # the one used last stands last
        while len(self._servers) > _MOST:
            self._servers.pop(next(iter(self._servers))).close()
        return server

    def close(self) -> None:
        """Let all of them end as soon as they have started what they were handed."""
        with self._lock:
            servers, self._servers = list(self._servers.values()), {}
        for server in servers:
            server.close()

    def forget(self) -> None:
        """After a fork of the client: they belong to the parent."""
        self._lock = threading.Lock()
        servers, self._servers = self._servers, {}
        for server in servers.values():
            with suppress(OSError):
                server.close()


SERVERS = WarmServers()
os.register_at_fork(after_in_child=SERVERS.forget)
