"""Inputs with `max_rate_hz` and synchronised inputs in C: the same messages as in Python."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dorad.node.attachment import Attachment
from dorad.shm import layout
from dorad.shm.arrow import UINT8_CODE
from dorad.shm.counters import counters
from dorad.shm.fence import fence
from tests.libdora.cnode import CNode, attached_in_c
from tests.node.fakedaemon import FakeDaemon, attached, push

MS = 1_000_000
SOON_MS = 20_000
SYNC = {"sync": {"name": "both", "inputs": ["left", "right"], "tolerance_ns": 5 * MS}}
RATE = {"max_rate_hz": 10.0, "keeps_all": False}
ALL = RATE | {"keeps_all": True}


def fake(folder: Path, inputs: dict[str, dict[str, Any]], name: str) -> FakeDaemon:
    daemon = FakeDaemon(folder, dict.fromkeys(inputs, 5), name=name)
    daemon.config["inputs"] = [
        {"id": key, "ring": daemon.ring(key).base, "interval_ns": None, "source": "s"}
        | {"blocking": False}
        | extra
        for key, extra in inputs.items()
    ]
    return daemon


@contextlib.contextmanager
def c_node(
    folder: Path, library: Path, inputs: dict[str, dict[str, Any]]
) -> Iterator[tuple[FakeDaemon, CNode]]:
    daemon = fake(folder, inputs, "c.sock")
    try:
        with attached_in_c(daemon, library) as node:
            yield daemon, node
    finally:
        daemon.close()


def send(daemon: FakeDaemon, name: str, payload: bytes, stamp: int) -> None:
    outlet = daemon.outlet(name)
    size = len(payload)
    entry = layout.ENTRY.pack(stamp, size, 0, size, 0, 0, 0, 0, 0, UINT8_CODE, 0, 0)
    outlet.push(entry + payload, size, stamp)
    fence()
    outlet.peer.wake()


def all_in_c(node: CNode) -> list[Any]:
    return list(iter(node.next, None))


def all_in_python(node: Attachment) -> list[Any]:
    events = []
    while (event := node.receiver.try_recv()) is not None:
        value = event.get("value")
        data: Any = b""
        if isinstance(value, dict):
            data = {key: bytes(array.to_pylist()) for key, array in value.items()}
        events.append((event["type"], event["id"], data))
    return events


steps = st.lists(
    st.tuples(st.sampled_from(["left", "right"]), st.integers(0, 20), st.booleans()), max_size=40
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps)
def test_a_synchronised_set_is_the_one_that_python_finds(
    library: Path, steps: list[tuple[str, int, bool]]
) -> None:
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder, both = Path(place), {"left": SYNC, "right": SYNC}
        daemon, in_c = stack.enter_context(c_node(folder, library, both))
        twin = fake(folder, both, "python.sock")
        stack.callback(twin.close)
        in_python = stack.enter_context(attached(twin))
        clocks = {"left": 0, "right": 0}
        for number, (name, later, take) in enumerate(steps):
            clocks[name] += later * MS
            for each in (daemon, twin):
                send(each, name, b"%d" % number, clocks[name])
            if take:
                assert all_in_c(in_c) == all_in_python(in_python)
        assert all_in_c(in_c) == all_in_python(in_python)
        for name in both:
            assert (
                counters(daemon.box.words, daemon.ring(name).base)[:4]
                == counters(twin.box.words, twin.ring(name).base)[:4]
            )
        del in_python


def test_the_missing_half_of_a_set_wakes_a_waiting_node(library: Path, tmp_path: Path) -> None:
    with c_node(tmp_path, library, {"left": SYNC, "right": SYNC}) as (daemon, node):
        send(daemon, "left", b"L", 10 * MS)
        assert node.next(20) is None
        send(daemon, "right", b"R", 11 * MS)
        assert node.next(SOON_MS) == ("INPUT", "both", {"left": b"L", "right": b"R"})


def test_input_closed_comes_after_the_last_matching_set(library: Path, tmp_path: Path) -> None:
    with c_node(tmp_path, library, {"left": SYNC, "right": SYNC}) as (daemon, node):
        for name, payload, stamp in (("left", b"L", 10), ("left", b"-", 90), ("right", b"R", 10)):
            send(daemon, name, payload, stamp * MS)
        daemon.send("closed", input="left")
        assert node.next(SOON_MS) == ("INPUT", "both", {"left": b"L", "right": b"R"})
        assert node.next(SOON_MS) == ("INPUT_CLOSED", "left", b"")
        assert node.next() is None
        assert counters(daemon.box.words, daemon.ring("left").base)[:4] == (2, 1, 1, 0)


def test_a_rate_limit_delivers_the_newest_and_drops_the_others(
    library: Path, tmp_path: Path
) -> None:
    with c_node(tmp_path, library, {"x": RATE}) as (daemon, node):
        outlet = daemon.outlet("x")
        push(outlet, b"1")
        assert node.next(SOON_MS) == ("INPUT", "x", b"1")
        began = time.monotonic()
        for payload in (b"2", b"3", b"4"):
            push(outlet, payload)
        assert node.next() is None
        assert node.next(SOON_MS) == ("INPUT", "x", b"4")
        assert time.monotonic() - began > 0.09
        assert counters(daemon.box.words, daemon.ring("x").base)[:4] == (4, 2, 2, 0)
        push(outlet, b"5")
        daemon.send("stop", reason="MANUAL")
        assert node.next(SOON_MS) == ("STOP", "MANUAL", b"")
        assert node.next() == ("INPUT", "x", b"5"), "a stop does not wait for the rate"


def test_an_input_with_backpressure_gets_every_message_at_the_rate(
    library: Path, tmp_path: Path
) -> None:
    with c_node(tmp_path, library, {"x": ALL}) as (daemon, node):
        outlet = daemon.outlet("x")
        began = time.monotonic()
        for payload in (b"1", b"2", b"3"):
            push(outlet, payload)
        found = [node.next(SOON_MS) for _ in range(3)]
        assert [each and each[2] for each in found] == [b"1", b"2", b"3"]
        assert time.monotonic() - began > 0.18


def test_a_message_that_is_not_due_does_not_keep_the_node_awake(
    library: Path, tmp_path: Path
) -> None:
    with c_node(tmp_path, library, {"x": RATE | {"max_rate_hz": 1.0}}) as (daemon, node):
        outlet = daemon.outlet("x")
        push(outlet, b"1")
        node.next(SOON_MS)
        push(outlet, b"2")
        before = time.thread_time()
        assert node.next(500) is None
        assert time.thread_time() - before < 0.1


def test_settings_that_are_not_valid_are_refused_at_start(library: Path, tmp_path: Path) -> None:
    for at, extra in enumerate(
        itertools.chain(
            ({"max_rate_hz": bad} for bad in (0, -1, "x", 1e-300)),
            ({"sync": bad} for bad in ({}, {"name": "s", "inputs": [], "tolerance_ns": 1})),
        )
    ):
        with contextlib.ExitStack() as stack:
            daemon = fake(tmp_path, {"x": extra}, f"{at}.sock")
            stack.callback(daemon.close)
            try:
                stack.enter_context(attached_in_c(daemon, library))
            except AssertionError as error:
                assert "input `x`" in str(error)
            else:
                raise AssertionError(f"{extra} was accepted")
