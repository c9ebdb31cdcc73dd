"""What nodes say to the dataflow's extension table, and what they are answered."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Protocol

from dorad.node.exttable import MAX_VALUE, ExtensionTable, TableError
from dorad.node.payload import pack, unpack
from dorad.node.protocol import ProtocolError

if TYPE_CHECKING:
    from typing import Any

    from dorad.node.protocol import Packet

KINDS = frozenset({"ext_store", "ext_load", "ext_drop", "ext_drain"})


class Sender(Protocol):
    """Who sends packets to nodes."""

    def send(
        self, node_id: str, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> None:
        """Send a packet to the node, if it has a connection."""


class Extensions:
    """The extension table of a dataflow, asked by packets."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._table = ExtensionTable()

    def answer(self, node_id: str, packet: Packet) -> None:
        """Do what the packet of a node asks, and answer it.

        Raises:
            ProtocolError: the packet is malformed.
        """
        ask = packet.fields.get("ask")
        try:
            value = self._do(node_id, packet)
            memory = None if value is None else pack(value)
        except (TableError, OSError) as error:
            self._sender.send(node_id, "ext_refused", {"error": str(error), "ask": ask})
            return
        try:
            fds = () if memory is None else (memory,)
            self._sender.send(node_id, "ext_done", {"ask": ask}, fds)
        finally:
            if memory is not None:
                os.close(memory)

    def _do(self, node_id: str, packet: Packet) -> bytes | None:
        namespace = packet.text("namespace")
        if packet.kind == "ext_drain":
            return json.dumps(self._table.drain(node_id, namespace)).encode()
        key = packet.text("key")
        match packet.kind:
            case "ext_store":
                self._table.store(node_id, namespace, key, _value(packet))
            case "ext_load":
                remove = packet.fields.get("remove") is True
                return self._table.load(node_id, namespace, key, remove=remove)
            case "ext_drop":
                self._table.drop(namespace, key)
        return None

    def leave(self, node_id: str) -> None:
        """Take back what the ended process of a node has left."""
        self._table.leave(node_id)


def _value(packet: Packet) -> bytes:
    (descriptor,) = packet.take(1)
    try:
        return unpack(descriptor, MAX_VALUE)
    except ValueError as error:
        raise ProtocolError(f"packet {packet.kind!r}: {error}") from error
    finally:
        os.close(descriptor)
