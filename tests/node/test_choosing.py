"""Inputs with a maximum rate and synchronised inputs, with a fake daemon."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dorad.node.attachment import Attachment
from dorad.shm import layout
from dorad.shm.arrow import UINT8_CODE
from dorad.shm.counters import Counters, counters
from dorad.shm.outlet import Outlet
from tests.harness.waiting import wait_until
from tests.node.fakedaemon import FakeDaemon, attached, push

RATE = {"max_rate_hz": 10.0, "keeps_all": False}
INTERVAL_S = 0.1
MS = 1_000_000
SYNC = {"sync": {"name": "both", "inputs": ["left", "right"], "tolerance_ns": 5 * MS}}
SOON = 10.0


class Bed:
    """A node with the inputs of a test, and both ends of their edges."""

    def __init__(self, daemon: FakeDaemon, node: Attachment) -> None:
        self.daemon = daemon
        self.node = node
        self.receiver = node.receiver
        self.outlets = {name: daemon.outlet(name) for name in daemon.inputs}

    def send(self, name: str, payload: bytes, stamp: int | None = None) -> None:
        if stamp is None:
            push(self.outlets[name], payload)
            return
        size = len(payload)
        entry = layout.ENTRY.pack(stamp, size, 0, size, 0, 0, 0, 0, 0, UINT8_CODE, 0, 0)
        self.outlets[name].push(entry + payload, size, stamp)
        self.outlets[name].peer.wake()

    def counters(self, name: str) -> Counters:
        return counters(self.daemon.box.words, self.daemon.ring(name).base)

    def next(self) -> Any:
        event = self.receiver.next(SOON)
        assert event is not None
        return event

    def outlet(self, name: str) -> Outlet:
        return self.outlets[name]


@pytest.fixture
def bed(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A node with the inputs of `request.param`: name to (queue size, what the daemon adds)."""
    given: dict[str, tuple[int, dict[str, Any]]] = request.param
    daemon = FakeDaemon(tmp_path, {name: size for name, (size, _) in given.items()})
    daemon.config["inputs"] = [
        {"id": name, "ring": daemon.ring(name).base, "interval_ns": None, "source": "s"}
        | {"blocking": False}
        | extra
        for name, (_, extra) in given.items()
    ]
    try:
        with attached(daemon) as node:
            found = Bed(daemon, node)
            del node
            yield found
            # pytest keeps references to the bed.
            vars(found).clear()
            del found
    finally:
        daemon.close()


def value(event: Any) -> bytes:
    assert event["type"] == "INPUT", event
    return bytes(event["value"].to_pylist())


def pair(event: Any) -> tuple[bytes, bytes]:
    assert (event["type"], event["id"]) == ("INPUT", "both"), event
    assert event["value"].keys() == event["metadata"].keys() == {"left", "right"}
    return tuple(bytes(array.to_pylist()) for array in event["value"].values())


paced = pytest.mark.parametrize("bed", [{"x": (10, RATE)}], indirect=True)
stereo = pytest.mark.parametrize("bed", [{"left": (10, SYNC), "right": (10, SYNC)}], indirect=True)


# -- a rate ------------------------------------------------------------------------------------


@paced
def test_a_rate_limited_input_delivers_the_newest_and_drops_the_others(bed: Bed) -> None:
    bed.send("x", b"1")
    assert value(bed.next()) == b"1"
    began = time.monotonic()
    for payload in (b"2", b"3", b"4"):
        bed.send("x", payload)
    assert bed.receiver.try_recv() is None
    assert bed.receiver.is_empty()
    assert bed.receiver.drain() == []
    assert value(bed.next()) == b"4"
    assert time.monotonic() - began > INTERVAL_S * 0.9
    assert bed.counters("x")[:4] == (4, 2, 2, 0)


@paced
def test_the_last_message_is_not_lost_when_its_source_pauses(bed: Bed) -> None:
    for payload in (b"1", b"2"):
        bed.send("x", payload)
        event = bed.next()
    assert value(event) == b"2"


@paced
def test_a_coroutine_waits_until_the_rate_allows(bed: Bed) -> None:
    async def receive() -> list[bytes]:
        found = []
        for payload in (b"1", b"2", b"3"):
            bed.send("x", payload)
            found.append(value(await bed.receiver.recv_async(SOON)))
        return found

    began = time.monotonic()
    assert asyncio.run(receive()) == [b"1", b"2", b"3"]
    assert time.monotonic() - began > INTERVAL_S * 1.8


@paced
def test_a_message_due_while_no_call_waits_is_received_later(bed: Bed) -> None:
    bed.send("x", b"1")
    bed.next()
    bed.send("x", b"2")
    wait_until(lambda: not bed.receiver.is_empty())
    assert [value(event) for event in bed.receiver.drain()] == [b"2"]


@paced
def test_a_timeout_shorter_than_the_rate_limit_ends_in_time(bed: Bed) -> None:
    bed.send("x", b"1")
    bed.next()
    bed.send("x", b"2")
    event = bed.receiver.next(0.001)
    assert event is not None
    assert event["type"] == "ERROR"
    assert value(bed.next()) == b"2"


@paced
def test_input_closed_comes_after_the_last_message(bed: Bed) -> None:
    bed.send("x", b"1")
    bed.next()
    bed.send("x", b"2")
    bed.daemon.send("closed", input="x")
    assert bed.receiver.is_empty()
    assert [value(bed.next()), bed.next()["type"]] == [b"2", "INPUT_CLOSED"]


@paced
def test_pending_messages_come_at_once_when_the_node_is_stopped(bed: Bed) -> None:
    bed.send("x", b"1")
    bed.next()
    bed.send("x", b"2")
    bed.daemon.send("stop", reason="MANUAL")
    assert bed.next()["type"] == "STOP"
    assert value(bed.receiver.try_recv()) == b"2"
    assert bed.receiver.next(SOON) is None


@pytest.mark.parametrize("bed", [{"x": (10, RATE | {"keeps_all": True})}], indirect=True)
def test_a_backpressure_input_delivers_every_message_at_the_rate(bed: Bed) -> None:
    for payload in (b"1", b"2", b"3"):
        bed.send("x", payload)
    began = time.monotonic()
    assert [value(bed.next()) for _ in range(3)] == [b"1", b"2", b"3"]
    assert time.monotonic() - began > INTERVAL_S * 1.8
    assert bed.counters("x").dropped == 0


@pytest.mark.parametrize("bed", [{"x": (10, RATE), "y": (10, {})}], indirect=True)
def test_other_inputs_do_not_wait_for_a_rate_limited_one(bed: Bed) -> None:
    bed.send("x", b"1")
    bed.next()
    for _ in range(5):
        bed.send("x", b"2")
        bed.send("y", b"y")
        event = bed.next()
        if event["id"] == "x":
            event = bed.next()
        assert (event["id"], value(event)) == ("y", b"y")


# -- synchronised ------------------------------------------------------------------------------


@stereo
def test_two_messages_with_one_timestamp_come_as_one_set(bed: Bed) -> None:
    bed.send("left", b"L", 100 * MS)
    assert bed.receiver.try_recv() is None
    assert bed.receiver.is_empty()
    bed.send("right", b"R", 103 * MS)
    assert not bed.receiver.is_empty()
    event = bed.next()
    assert pair(event) == (b"L", b"R")
    assert [event["metadata"][side]["timestamp"].timestamp() for side in ("left", "right")] == [
        0.1,
        0.103,
    ]
    assert bed.receiver.is_empty()


@stereo
def test_messages_without_a_match_are_dropped_and_counted(bed: Bed) -> None:
    for stamp in (0, 33, 66, 100):
        bed.send("left", b"L%d" % stamp, stamp * MS)
    for stamp in (1, 67, 99):
        bed.send("right", b"R%d" % stamp, stamp * MS)
    found = [pair(event) for event in bed.receiver.drain()]
    assert found == [(b"L0", b"R1"), (b"L66", b"R67"), (b"L100", b"R99")]
    assert bed.counters("left")[:4] == (4, 3, 1, 0)
    assert bed.counters("right")[:4] == (3, 3, 0, 0)


@stereo
def test_messages_of_one_side_wait_within_their_queue_size(bed: Bed) -> None:
    for n in range(50):
        bed.send("left", b"%d" % n, n * 33 * MS)
    assert bed.receiver.try_recv() is None
    assert bed.counters("left")[:4] == (50, 0, 40, 10)
    bed.send("right", b"R", 48 * 33 * MS)
    assert pair(bed.next()) == (b"48", b"R")
    assert bed.counters("left")[:4] == (50, 1, 48, 1)


@stereo
def test_the_missing_half_of_a_set_wakes_a_waiting_node(bed: Bed) -> None:
    async def receive() -> Any:
        bed.send("left", b"L", 10 * MS)
        task = asyncio.create_task(bed.receiver.recv_async(SOON))
        await asyncio.sleep(0.02)  # nothing may happen
        assert not task.done()
        bed.send("right", b"R", 10 * MS)
        return await task

    assert pair(asyncio.run(receive())) == (b"L", b"R")


@stereo
def test_input_closed_comes_after_the_last_matching_set(bed: Bed) -> None:
    bed.send("left", b"L", 10 * MS)
    bed.send("left", b"alone", 90 * MS)
    bed.send("right", b"R", 10 * MS)
    bed.daemon.send("closed", input="left")
    assert pair(bed.next()) == (b"L", b"R")
    event = bed.next()
    assert (event["type"], event["id"]) == ("INPUT_CLOSED", "left")
    assert bed.receiver.try_recv() is None
    assert bed.counters("left")[:4] == (2, 1, 1, 0)


@stereo
def test_a_match_that_arrives_just_after_input_closed_still_counts(bed: Bed) -> None:
    bed.send("left", b"L", 10 * MS)
    bed.daemon.send("closed", input="left")
    assert bed.receiver.try_recv() is None
    bed.send("right", b"R", 10 * MS)
    assert pair(bed.next()) == (b"L", b"R")
    assert bed.next()["type"] == "INPUT_CLOSED"


@stereo
def test_after_a_stop_complete_sets_are_delivered(bed: Bed) -> None:
    bed.send("left", b"L", 10 * MS)
    bed.send("right", b"R", 10 * MS)
    bed.send("left", b"alone", 90 * MS)
    bed.daemon.send("stop", reason="MANUAL")
    assert bed.next()["type"] == "STOP"
    assert pair(bed.next()) == (b"L", b"R")
    assert bed.receiver.next(SOON) is None


@stereo
def test_a_second_source_of_an_input_is_matched_too(bed: Bed) -> None:
    ring = bed.daemon.box.add_ring(10)
    bed.daemon.send(
        "input", id="left", ring=ring.base, source="s", interval_ns=None, blocking=False, **SYNC
    )
    bed.outlets["more"] = bed.daemon.box.outlet(ring)
    bed.send("more", b"M", 10 * MS)
    bed.send("left", b"L", 50 * MS)
    bed.send("right", b"1", 10 * MS)
    bed.send("right", b"2", 50 * MS)
    assert [pair(bed.next()), pair(bed.next())] == [(b"M", b"1"), (b"L", b"2")]
    bed.daemon.send("input_gone", id="left", ring=ring.base)
    assert bed.receiver.try_recv() is None
    bed.send("left", b"L", 90 * MS)
    bed.send("right", b"3", 90 * MS)
    assert pair(bed.next()) == (b"L", b"3")
