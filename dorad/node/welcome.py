"""The handshake of a node with its daemon: `hello`, then the welcome."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, NamedTuple

from dorad.node import protocol
from dorad.node.payload import unpack
from dorad.shm.layout import BOX_MAGIC, BOX_SEEN, BOX_VERSION, MAGIC
from dorad.shm.mapping import Mapping

MAX_CONFIG = 1 << 26

SPOKEN = range(protocol.OLDEST, protocol.VERSION + 1)
"""The versions that a node of this version speaks."""

_ADVICE = (
    f"this node speaks {protocol.OLDEST} to {protocol.VERSION}: install the same version of both, "
    "and start the dataflow again"
)


class DaemonAwayError(RuntimeError):
    """No daemon answers at the socket now; a restarted one may answer soon."""


class Welcome(NamedTuple):
    """What the daemon gives to a node that it accepts."""

    box: Mapping
    """The node's mailbox."""
    bell: int
    """Wakes the node when a message or packet has come."""
    space: int
    """Wakes the node when a queue that it waits for has room."""
    config: dict[str, Any]
    """The node's inputs, outputs and settings."""


def say_hello(
    path: str | os.PathLike[str] | socket.socket, node_id: str, *, dynamic: bool
) -> tuple[socket.socket, Welcome]:
    """Connect, send `hello` and take the welcome. `path` may be a connected socket.

    Raises:
        DaemonAwayError: no daemon answers at `path`, or it hangs up before its answer.
        RuntimeError: `path` cannot be connected to, or the daemon refuses the node.
    """
    if isinstance(path, socket.socket):
        connection = path
    else:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        connection = socket.socket(socket.AF_UNIX, kind)
    try:
        if not isinstance(path, socket.socket):
            connection.connect(os.fspath(path))
        hello = {"node": node_id, "dynamic": dynamic, "pid": os.getpid()}
        versions = {"version": protocol.VERSION, "oldest": protocol.OLDEST}
        protocol.send(connection, "hello", hello | versions, [])
        return connection, _read_welcome(connection)
    except OSError as error:
        connection.close()
        away = isinstance(error, ConnectionError)
        raise (DaemonAwayError if away else RuntimeError)(
            f"no daemon answers at {path} ({error.strerror}); is the dataflow still running?"
        ) from error
    except BaseException:
        connection.close()
        raise


def _read_welcome(connection: socket.socket) -> Welcome:
    packet = protocol.receive_any(connection)
    if packet is None:
        raise DaemonAwayError("the daemon closed the connection before it answered")
    if packet.kind == "refused":
        raise RuntimeError(packet.text("error"))
    if packet.kind == "adopted":
        raise DaemonAwayError("the daemon ended before it answered; another one has taken over")
    if packet.kind != "welcome":
        raise RuntimeError(f"the daemon answered {packet.kind!r} instead of 'welcome'")
    if packet.fields.get("version", protocol.VERSION) not in SPOKEN:
        packet.close()
        raise RuntimeError(f"the daemon speaks version {packet.number('version')}; {_ADVICE}")
    memory, bell, space, config = packet.take(4)
    try:
        welcome = Welcome(Mapping(memory), bell, space, json.loads(unpack(config, MAX_CONFIG)))
    finally:
        os.close(memory)
        os.close(config)
    words = welcome.box.words
    if words[BOX_MAGIC] != MAGIC or words[BOX_VERSION] not in SPOKEN:
        os.close(bell)
        os.close(space)
        raise RuntimeError(f"the daemon's mailbox is of another version; {_ADVICE}")
    words[BOX_SEEN] = 0
    return welcome
