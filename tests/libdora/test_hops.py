"""Hop records of nodes in C and in Python: the same for the same messages."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dorad.shm import hoplog, hops, layout
from dorad.shm.hoplog import Hop
from tests.libdora.cnode import P, attached_in_c
from tests.node.fakedaemon import FakeDaemon, attached, push
from tests.shm.edge import read_hops

SENT = 5


def _fill(daemon: FakeDaemon) -> None:
    outlet = daemon.outlet("in")
    for number in range(SENT):
        push(outlet, bytes([number]))
    daemon.introduce(daemon.other(8), blocking=False)


def _recorded(daemon: FakeDaemon) -> list[Hop]:
    read, cursor = read_hops(daemon.box.words, hoplog.HopCursor())
    assert (cursor.overwritten, cursor.damaged) == (0, 0)
    return read


def _in_c(folder: Path, library: Path) -> tuple[FakeDaemon, list[Hop]]:
    daemon = FakeDaemon(folder, {"in": 3}, name="c.sock")
    with attached_in_c(daemon, library) as node:
        _fill(daemon)
        while (event := node.next()) is not None:
            data: Any = event[2]
            assert not node.library.dora_send_output(P(node.context), b"out", 3, data, len(data))
    return daemon, _recorded(daemon)


def _in_python(folder: Path) -> tuple[FakeDaemon, list[Hop]]:
    daemon = FakeDaemon(folder, {"in": 3}, name="python.sock")
    with attached(daemon) as node:
        _fill(daemon)
        while (event := node.receiver.try_recv()) is not None:
            node.sender.send("out", pa.array(event["value"]), {})
    return daemon, _recorded(daemon)


@pytest.mark.skipif(hops.received is None, reason="hops are not recorded here")
def test_nodes_of_both_languages_record_the_same(tmp_path: Path, library: Path) -> None:
    for daemon, read in (_in_c(tmp_path, library), _in_python(tmp_path)):
        base = daemon.ring("in").base
        taken = [hop.stamp for hop in read if hop.kind == layout.HOP_RECEIVE]
        assert taken == sorted(taken)
        expected = [(layout.HOP_DROP, base, 0, 0, 2)]
        for left, stamp in zip((2, 1, 0), taken, strict=True):
            expected += [
                (layout.HOP_RECEIVE, base, 0, 0, left),
                (layout.HOP_SEND, hops.output_key("out"), base, stamp, 1),
                (layout.HOP_DONE, base, 0, 0, 0),
            ]
        assert [
            (hop.kind, hop.place, hop.parent_place, hop.parent_stamp, hop.value) for hop in read
        ] == expected
        times = [hop.at_ns for hop in read if hop.kind != layout.HOP_SEND]
        assert times == sorted(times)
        daemon.close()


@pytest.mark.skipif(hops.received is None, reason="hops are not recorded here")
def test_nodes_of_both_languages_record_the_trace_context_of_what_they_send(
    tmp_path: Path, library: Path
) -> None:
    text = "traceparent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01;tracestate:;"
    read: list[Hop] = []
    daemon = FakeDaemon(tmp_path, {"in": 3}, name="c.sock")
    with attached_in_c(daemon, library) as node:
        daemon.introduce(daemon.other(8), blocking=False)
        new = node.library.dora_metadata_new
        new.restype = P
        metadata = P(new())
        key, value = b"open_telemetry_context", text.encode()
        assert not node.library.dora_metadata_set_string(metadata, key, value)
        sent = node.library.dora_send_bytes(P(node.context), b"out", b"x", 1, metadata)
        assert not sent
    read += _recorded(daemon)
    daemon.close()
    daemon = FakeDaemon(tmp_path, {"in": 3}, name="python.sock")
    with attached(daemon) as node:
        daemon.introduce(daemon.other(8), blocking=False)
        node.receiver.try_recv()
        node.sender.send("out", pa.array([1]), {"open_telemetry_context": text})
    read += _recorded(daemon)
    daemon.close()
    found = [
        (hop.place, hop.parent_place, hop.parent_stamp, hop.value)
        for hop in read
        if hop.kind == layout.HOP_CONTEXT
    ]
    ids = (0x0AF7651916CD43DD, 0x8448EB211C80319C, 0xB7AD6B7169203331)
    assert found == [(hops.output_key("out"), *ids)] * 2
