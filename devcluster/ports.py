"""Free ports on loopback."""

from __future__ import annotations

import random
import socket

# Below the range that Linux takes for outgoing connections (32768 and up) and below the node ports
# of Kubernetes (30000 and up): a server that was killed finds its port free again.
_RANGE = range(20000, 30000)


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a server could listen on a port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do; without it, connections that have just ended look like a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            # Two may bind with SO_REUSEADDR, but not listen.
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(taken: frozenset[int] = frozenset()) -> int:
    """A port on which nobody listens, picked by chance so that two starts rarely meet.

    Args:
        taken: Ports that are promised to others.
    """
    for port in random.sample(_RANGE, len(_RANGE)):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no port from {_RANGE.start} to {_RANGE.stop - 1} is free on 127.0.0.1")
