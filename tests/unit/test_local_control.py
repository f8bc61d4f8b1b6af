"""The line between a client and the processes that it starts."""

from __future__ import annotations

import selectors
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kaptain_zen.platform.local.control import Channel
from kaptain_zen.platform.local.health import Starting


def test_two_messages_that_arrive_at_once_are_both_heard():
    # A prepared process says that it has its imports long before anybody listens; what it says
    # next may then be read together with it, after which nothing wakes the listener again.
    here, there = (Channel(end) for end in socket.socketpair())
    child: Any = SimpleNamespace(channel=here)
    starting = Starting(name="m", revision="r", child=child, log=Path("nowhere"))
    there.send({"state": "imported"})
    there.send({"state": "loading", "port": 4711})
    with selectors.DefaultSelector() as selector:
        selector.register(here, selectors.EVENT_READ)
        assert selector.select(5)
        starting.hear()
        assert starting.port == 4711
        assert not selector.select(0)
    here.close()
    there.close()
