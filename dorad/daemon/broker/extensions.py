"""The extension table of a dataflow: values that nodes store, load and drop by packets."""

import json
import logging
import os
from typing import Any, Protocol

from dorad.daemon.broker.foreign import close_foreign
from dorad.node.exttable import MAX_VALUE, ExtensionTable, TableError
from dorad.node.payload import pack, unpack
from dorad.node.protocol import Packet, ProtocolError

_log = logging.getLogger(__name__)

KINDS = frozenset({"ext_store", "ext_load", "ext_drop", "ext_drain"})

LARGE = 1 << 18
"""Size from which a value is stored in a file that all answers share. Otherwise a node could use up
the memory by requesting it repeatedly without reading the answers."""


class _Value:
    """A stored value; its file is closed with the last reference."""

    __slots__ = ("_bytes", "_descriptor")

    def __init__(self, content: bytes) -> None:
        """Store the content. Raises OSError if there is no memory or no descriptor left."""
        self._bytes = content
        self._descriptor = -1
        if len(content) >= LARGE:
            self._descriptor = pack(content)
            self._bytes = b""

    def __len__(self) -> int:
        return len(self._bytes) if self._descriptor < 0 else os.fstat(self._descriptor).st_size

    def open(self) -> int:
        """Return a file with the bytes, which the caller closes. Raises OSError."""
        return pack(self._bytes) if self._descriptor < 0 else os.dup(self._descriptor)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class Sender(Protocol):
    """Sends packets to nodes; `BrokerState` implements it."""

    def send(
        self, node_id: str, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> None:
        """Send a packet to the node, if it has a connection."""


class Extensions:
    """Carries out requests to the extension table and answers them."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._table: ExtensionTable[_Value] = ExtensionTable()

    def answer(self, node_id: str, packet: Packet) -> None:
        """Carry out the request of a node and answer it.

        Raises:
            ProtocolError: the packet is malformed.
        """
        request = packet.request_number()
        _log.debug("node %s requests %s", node_id, packet.kind)
        try:
            value = self._carry_out(node_id, packet)
            memory = None if value is None else value.open()
        except (TableError, OSError) as error:
            _log.debug("a request of node %s is refused: %s", node_id, error)
            self._sender.send(node_id, "ext_refused", {"error": str(error), "ask": request})
            return
        try:
            fds = () if memory is None else (memory,)
            self._sender.send(node_id, "ext_done", {"ask": request}, fds)
        finally:
            if memory is not None:
                os.close(memory)

    def _carry_out(self, node_id: str, packet: Packet) -> _Value | None:
        namespace = packet.text("namespace")
        if packet.kind == "ext_drain":
            return _Value(json.dumps(self._table.drain(node_id, namespace)).encode())
        key = packet.text("key")
        match packet.kind:
            case "ext_store":
                self._table.store(node_id, namespace, key, _Value(_content(packet)))
            case "ext_load":
                remove = packet.fields.get("remove") is True
                return self._table.load(node_id, namespace, key, remove=remove)
            case "ext_drop":
                self._table.drop(namespace, key)
        return None

    def release(self, node_id: str) -> None:
        """Drop the values of a node whose process has ended."""
        self._table.leave(node_id)


def _content(packet: Packet) -> bytes:
    (descriptor,) = packet.take(1)
    try:
        return unpack(descriptor, MAX_VALUE)
    except ValueError as error:
        raise ProtocolError(f"packet {packet.kind!r}: {error}") from error
    finally:
        close_foreign([descriptor])
