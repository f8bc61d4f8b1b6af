"""Messages between a client and its warm server, with open descriptors attached to them.

JSON behind its length, over a stream socket: unlike a datagram it may be of any size, which an
environment may be, too.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")


def send(connection: socket.socket, message: Any, descriptor: int | None = None) -> None:
    """Send a message.

    Args:
        connection: Where to.
        message: What JSON can say.
        descriptor: To be duplicated into the receiver.

    Raises:
        OSError: The other side is gone.
    """
    body = json.dumps(message).encode()
    data = _LENGTH.pack(len(body)) + body
    attached = []
    if descriptor is not None:
        rights = array.array("i", [descriptor])
        attached.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights))
    sent = connection.sendmsg([data], attached)
    connection.sendall(data[sent:])


def receive(connection: socket.socket) -> tuple[Any, int | None] | None:
    """Receive a message.

    Returns:
        The message and the descriptor that came with it; None when the other side is gone.
    """
    space = socket.CMSG_SPACE(array.array("i").itemsize)
    descriptor: int | None = None
    data = b""
    wanted = _LENGTH.size
    while len(data) < wanted:
        try:
            piece, attached, _, _ = connection.recvmsg(min(wanted - len(data), 1 << 16), space)
        except ConnectionResetError:
            piece, attached = b"", []
        for level, kind, rights in attached:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptor = array.array("i", rights[: array.array("i").itemsize])[0]
                os.set_inheritable(descriptor, False)
        if not piece:
            if descriptor is not None:
                os.close(descriptor)
            return None
        data += piece
        if len(data) == _LENGTH.size:
            wanted += _LENGTH.unpack(data)[0]
    return json.loads(data[_LENGTH.size :]), descriptor
