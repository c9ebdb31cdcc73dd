"""Packets of nodes to the extension table, and their answers."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from dorad.daemon.broker.extensions import Extensions
from dorad.node.payload import pack, unpack
from dorad.node.protocol import Packet, ProtocolError
from tests.harness.process import open_descriptors

Answer = tuple[str, str, dict[str, Any], bytes | None]


class BrokerState:
    """Records each sent packet together with its bytes."""

    def __init__(self) -> None:
        self.sent: list[Answer] = []

    def send(
        self, node_id: str, kind: str, fields: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> None:
        self.sent.append((node_id, kind, fields, unpack(fds[0], 1 << 20) if fds else None))


def ask(
    extensions: Extensions, node: str, kind: str, value: bytes | None = None, **fields: Any
) -> None:
    packet = Packet(kind, fields, [] if value is None else [pack(value)])
    try:
        extensions.answer(node, packet)
    finally:
        packet.close()


def test_every_packet_is_answered_and_no_descriptor_stays() -> None:
    state = BrokerState()
    extensions = Extensions(state)
    before = open_descriptors()
    ask(extensions, "a", "ext_store", b"1", namespace="n", key="k")
    ask(extensions, "b", "ext_store", b"2", namespace="n", key="k")
    ask(extensions, "b", "ext_load", namespace="n", key="k", remove=False)
    ask(extensions, "b", "ext_load", namespace="n", key="absent", remove=True)
    ask(extensions, "b", "ext_drop", namespace="n", key="k")
    ask(extensions, "a", "ext_drain", namespace="n")
    assert open_descriptors() == before
    assert [(node, kind, value) for node, kind, _, value in state.sent] == [
        ("a", "ext_done", None),
        ("b", "ext_refused", None),
        ("b", "ext_done", b"1"),
        ("b", "ext_done", None),
        ("b", "ext_done", None),
        ("a", "ext_done", json.dumps(["k"]).encode()),
    ]
    assert "owned by node 'a'" in state.sent[1][2]["error"]


def test_the_values_of_an_ended_node_are_dropped() -> None:
    state = BrokerState()
    extensions = Extensions(state)
    ask(extensions, "a", "ext_store", b"1", namespace="n", key="k")
    extensions.release("a")
    ask(extensions, "b", "ext_load", namespace="n", key="k", remove=False)
    assert state.sent[-1][3] is None


def pipe() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


def exabyte() -> int:
    descriptor = os.memfd_create("large", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, 1 << 60)
    return descriptor


@pytest.mark.parametrize(
    ("kind", "fields", "value"),
    [
        ("ext_store", {"namespace": "n", "key": "k"}, None),
        ("ext_store", {"namespace": "n", "key": "k"}, pipe),
        ("ext_store", {"namespace": "n", "key": "k"}, exabyte),
        ("ext_load", {"namespace": "n"}, None),
        ("ext_drop", {"namespace": 1, "key": "k"}, None),
        ("ext_drain", {}, None),
    ],
)
def test_a_malformed_packet_is_refused(
    kind: str, fields: dict[str, Any], value: Callable[[], int] | None
) -> None:
    before = open_descriptors()
    packet = Packet(kind, fields, [value()] if value else [])
    with pytest.raises(ProtocolError):
        Extensions(BrokerState()).answer("a", packet)
    packet.close()
    assert open_descriptors() == before
