"""Length-prefixed JSON over a stream socket, with file descriptors beside it."""

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_HEADER = struct.Struct("<IB")
MOST_DESCRIPTORS = 200


def send_message(
    connection: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()
) -> None:
    """Send one message; at most `MOST_DESCRIPTORS` descriptors travel with it.

    Raises:
        OSError: the other side is gone.
    """
    data = json.dumps(message).encode()
    header = _HEADER.pack(len(data), len(descriptors))
    if descriptors:
        socket.send_fds(connection, [header], list(descriptors))
        connection.sendall(data)
    else:
        connection.sendall(header + data)


def receive_message(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive one message and its descriptors.

    Raises:
        EOFError: the other side hung up.
        OSError: among others `TimeoutError`, when the socket has a timeout.
    """
    header, descriptors, _, _ = socket.recv_fds(connection, _HEADER.size, MOST_DESCRIPTORS)
    while header and len(header) < _HEADER.size:
        header += _some(connection, _HEADER.size - len(header))
    if not header:
        raise EOFError
    length, _ = _HEADER.unpack(header)
    parts: list[bytes] = []
    while length:
        parts.append(_some(connection, length))
        length -= len(parts[-1])
    return json.loads(b"".join(parts)), descriptors


def _some(connection: socket.socket, most: int) -> bytes:
    data = connection.recv(min(most, 1 << 20))
    if not data:
        raise EOFError
    return data
