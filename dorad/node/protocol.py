"""The packets that a node and its daemon exchange over their Unix socket.

A packet is one JSON object whose key `t` names its kind; descriptors are sent with it. If a packet
from the daemon is too large, the object is in an anonymous file. Its descriptor comes last, and the
packet is `{"t": kind, "large": true}`.

    node -> daemon   hello {node, dynamic, pid, version, oldest}
                                                             the first packet, with the newest and
                                                             the oldest version that it speaks
                     ready {}                                can receive; waits at the barrier
                     grow {size}                             requests a segment
                     retire {segment}                        no longer uses the segment
                     ext_store {namespace, key} [value], ext_load {namespace, key, remove},
                     ext_drop {namespace, key}, ext_drain {namespace}
                                                             requests to the extension table
                     busy {lease, reason}, idle {lease}      a request for a lease, and its end
                     note {text}                             a line for the user about the node
                     ended {operator}                        one of its operators has ended
                     link {report}                           a report of the link process
                     done {}                                 sends no more messages
    daemon -> node   welcome {version} [mailbox, doorbell, space, config]
                                                             the version that is spoken from now
                                                             on; the node's own; config is JSON
                     refused {error}                         the dataflow has no such node
                     peer {node} [mailbox, doorbell]         a node that this one sends to
                     peer_gone {node}                        this node no longer sends to it
                     source {node} [space]                   a node that waits for room here
                     segment {segment} [memory]              samples of a source of this node
                     retired {segment}                       may be unmapped
                     edges {output, to}                      all receivers of an output: node, ring,
                                                             blocking, and behind the link the
                                                             nodes of the other machine
                     start {epoch_ns}                        the barrier is open
                     grown {segment} [memory], full {error}  answers to `grow`
                     ext_done {} [value or JSON list], ext_refused {error}
                                                             answers to `ext_…`; without a
                                                             descriptor if nothing was found
                     busy_taken {}, busy_refused {error}     answers to `busy`
                     input {id, ring, source, origin, interval_ns, blocking}
                                                             one more ring feeds an input; `origin`
                                                             is the node behind a link
                     input_gone {id, ring}                   that ring no longer feeds the input
                     closed {input}, broken {input}, recovered {input}, restarted {node},
                     failed {source_node_id, error, affected_input_ids},
                     stop {reason, operator}, reload {operator},
                     param {key, value}, param_gone {key, [value]}
                                                             become events; a stop without an
                                                             operator is for the whole node;
                                                             `value` of param_gone is the default
                                                             that applies from now on
                     happened {what, node, text, data}       to recorders only: an event of any node
                     link {config}                           the link's changed configuration
                     ping {}                                 wakes a receiver or sender, which
                                                             then polls; no other effect
                     adopted {}                              a new daemon has taken over:
                                                             unanswered requests are sent again

A request has a number `ask`, which its answer repeats. A daemon that takes over repeats the present
state; a node ignores what it knows already.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any

from dorad.node.payload import pack, unpack
from dorad.shm.layout import OLDEST_PROTOCOL, PROTOCOL_VERSION

CONFIG = "DORA_NODE_CONFIG"
"""The variable that tells a spawned node who it is, and where its daemon listens."""

VERSION = PROTOCOL_VERSION
OLDEST = OLDEST_PROTOCOL
MAX_PACKET = 1 << 16
MAX_LARGE = 1 << 26
"""Maximum bytes of a packet whose content is in a file."""
MAX_DESCRIPTORS = 5


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors; some may be closed already."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


class ProtocolError(Exception):
    """A packet is not a JSON object, or not valid here."""


class Packet:
    """One packet; its descriptors belong to the receiver until `take` hands them out."""

    __slots__ = ("closes", "descriptors", "fields", "kind")

    def __init__(
        self,
        kind: str,
        fields: dict[str, Any],
        descriptors: list[int] | None = None,
        closes: Callable[[Sequence[int]], None] = close_all,
    ) -> None:
        """`closes` closes descriptors that were not taken."""
        self.kind = kind
        self.fields = fields
        self.descriptors = [] if descriptors is None else descriptors
        self.closes = closes

    def text(self, key: str) -> str:
        """Return a string field, or raise `ProtocolError`."""
        value = self.fields.get(key)
        if not isinstance(value, str):
            raise ProtocolError(f"packet {self.kind!r} has no text {key!r}")
        return value

    def number(self, key: str) -> int:
        """Return a non-negative integer field, or raise `ProtocolError`."""
        value = self.fields.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ProtocolError(f"packet {self.kind!r} has no number {key!r}")
        return value

    def request_number(self) -> int | None:
        """Return the request number, or None if there is none; or raise `ProtocolError`."""
        return None if self.fields.get("ask") is None else self.number("ask")

    def take(self, count: int) -> list[int]:
        """Return exactly `count` descriptors, or raise `ProtocolError`."""
        if len(self.descriptors) != count:
            raise ProtocolError(f"packet {self.kind!r} came without its {count} descriptors")
        taken, self.descriptors = self.descriptors, []
        return taken

    def close(self) -> None:
        """Close the descriptors that were not taken."""
        taken, self.descriptors = self.descriptors, []
        if taken:
            self.closes(taken)


def encode(kind: str, fields: dict[str, Any]) -> bytes:
    """Return the bytes of a packet.

    Raises:
        ProtocolError: the packet is larger than `MAX_PACKET`.
    """
    data = _dump(kind, fields)
    if len(data) > MAX_PACKET:
        raise ProtocolError(f"packet {kind!r} would be {len(data)} bytes long")
    return data


def _dump(kind: str, fields: dict[str, Any]) -> bytes:
    return json.dumps({"t": kind, **fields}, separators=(",", ":")).encode()


def send(
    sock: socket.socket, kind: str, fields: dict[str, Any], fds: list[int], flags: int = 0
) -> None:
    """Send one packet with descriptors.

    Raises:
        OSError: the other end is closed or, for a non-blocking socket, does not read.
        ProtocolError: the packet is too large.
    """
    socket.send_fds(sock, [encode(kind, fields)], fds, socket.MSG_NOSIGNAL | flags)


def send_any(sock: socket.socket, kind: str, fields: dict[str, Any], fds: list[int]) -> None:
    """Send a node one packet of any size with descriptors.

    Raises:
        OSError: the node's end is closed or, for a non-blocking socket, not read.
        ProtocolError: the packet is larger than `MAX_LARGE`.
    """
    data = _dump(kind, fields)
    if len(data) <= MAX_PACKET:
        socket.send_fds(sock, [data], fds, socket.MSG_NOSIGNAL)
        return
    if len(data) > MAX_LARGE:
        raise ProtocolError(f"packet {kind!r} would be {len(data)} bytes long")
    content = pack(data)
    try:
        send(sock, kind, {"large": True}, [*fds, content])
    finally:
        os.close(content)


def receive(
    sock: socket.socket,
    flags: int = 0,
    *,
    closes: Callable[[Sequence[int]], None] = close_all,
    room: int = MAX_DESCRIPTORS,
) -> Packet | None:
    """Receive one packet, or None at the end of the connection.

    `closes` closes descriptors that are not taken. The kernel closes those beyond `room`.

    Raises:
        ProtocolError: the bytes are not a packet.
        BlockingIOError: there is no packet yet, and the socket or `flags` are non-blocking.
    """
    bytes_for_descriptors = socket.CMSG_LEN(room * array.array("i").itemsize)
    data, ancillary, received, _ = sock.recvmsg(
        MAX_PACKET + 1, bytes_for_descriptors, flags | socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    packet = Packet("", {}, list(fds), closes)
    if not data:
        packet.close()
        return None
    try:
        if received & socket.MSG_TRUNC or len(data) > MAX_PACKET:
            raise ProtocolError("a packet is too large")
        if received & socket.MSG_CTRUNC:
            raise ProtocolError(
                "descriptors were lost: a packet had too many, or this process has too many files "
                "open (see `ulimit -n`)"
            )
        packet.kind, packet.fields = _load(data)
    except ProtocolError:
        packet.close()
        raise
    return packet


def receive_any(sock: socket.socket, flags: int = 0) -> Packet | None:
    """Receive one packet of any size from the daemon; see `receive`.

    Raises:
        OSError: the file of a large packet cannot be read.
    """
    packet = receive(sock, flags)
    if packet is None or packet.fields.get("large") is not True:
        return packet
    try:
        if not packet.descriptors:
            raise ProtocolError(f"packet {packet.kind!r} came without its content")
        content = packet.descriptors.pop()
        try:
            packet.kind, packet.fields = _load(unpack(content, MAX_LARGE))
        except ValueError as error:
            raise ProtocolError(f"packet {packet.kind!r}: {error}") from error
        finally:
            os.close(content)
    except BaseException:
        packet.close()
        raise
    return packet


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _load(data: bytes) -> tuple[str, dict[str, Any]]:
    """Return the kind and the fields of a packet, or raise `ProtocolError`."""
    try:
        # `json` would also accept bytes that are not UTF-8.
        text = data.decode()
        content = json.loads(text)
        if _SURROGATE.search(text):
            # JSON can encode a lone surrogate, which cannot be encoded as UTF-8 later.
            content = json.loads(json.dumps(content, ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a packet is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("t"), str):
        raise ProtocolError("a packet is not a JSON object with a kind")
    return content.pop("t"), content
