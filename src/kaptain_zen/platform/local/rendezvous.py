"""How the workers of one training find each other: ports, and the frameworks' own variables."""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
from collections.abc import Sequence
from pathlib import Path

from kaptain_zen.platform.local.runs import Rendezvous

HOST = "127.0.0.1"
VARIABLES = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "TF_CONFIG",
)
"""What a training must not inherit from whoever submits it."""

# Below the range that Linux, macOS and the BSDs take ports from when a program asks for any, so
# that nobody gets one of these by accident between our choosing it and a worker's binding it.
_FIRST_PORT, _LAST_PORT = 20_000, 31_999
_PORT_OFFSET = 1 << 20
_CPU_STRIDE = 1 << 12
_CPU_LEVELS = 64


def variables(rendezvous: Rendezvous, rank: int, ports: Sequence[int]) -> dict[str, str]:
    """What a worker needs to find the others.

    Args:
        rendezvous: The framework's way.
        rank: Which worker.
        ports: One for each worker.

    Returns:
        Environment variables; the first worker is the master of PyTorch and TensorFlow's chief.
    """
    if rendezvous == "pytorch":
        return {
            "MASTER_ADDR": HOST,
            "MASTER_PORT": str(ports[0]),
            "RANK": str(rank),
            "WORLD_SIZE": str(len(ports)),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(len(ports)),
        }
    if rendezvous == "tensorflow":
        cluster = {"worker": [f"{HOST}:{port}" for port in ports]}
        task = {"type": "worker", "index": rank}
        return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}
    return {}


class Reservations:
    """Ports and CPUs that the runs of one home share out among themselves.

    Each is a byte of one file, locked by the supervisor that uses it; the kernel unlocks it when
    the supervisor ends, however it ends. Record locks are not inherited by a fork, so a worker
    never holds one.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Args:
            path: The file; made when missing, and left.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A process may lock a byte twice, so its own reservations are remembered here.
        self._taken: set[int] = set()

    @property
    def descriptor(self) -> int:
        """What must stay open as long as the reservations are to hold."""
        return self._file

    def _take(self, position: int) -> bool:
        if position in self._taken:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
        except OSError:
            return False
        self._taken.add(position)
        return True

    def ports(self, count: int) -> list[int]:
        """Reserve ports that nobody listens on.

        Raises:
            OSError: There are not as many.
        """
        found: list[int] = []
        candidates = random.SystemRandom().sample(
            range(_FIRST_PORT, _LAST_PORT + 1), _LAST_PORT - _FIRST_PORT + 1
        )
        for port in candidates:
            if len(found) == count:
                break
            if _is_free(port) and self._take(_PORT_OFFSET + port):
                found.append(port)
        if len(found) < count:
            raise OSError(f"no {count} free ports between {_FIRST_PORT} and {_LAST_PORT}")
        return found

    def cpus(self, count: int, available: Sequence[int]) -> list[int]:
        """Reserve the CPUs that the fewest runs use.

        Args:
            count: How many.
            available: Those that this process may use.

        Returns:
            As many as there are at most.
        """
        found: list[int] = []
        for level in range(_CPU_LEVELS):
            for cpu in available:
                if len(found) == min(count, len(available)):
                    return found
                if cpu not in found and self._take(level * _CPU_STRIDE + cpu):
                    found.append(cpu)
        return found


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections that are only dying away do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
