"""Inputs are connected and disconnected while the node runs, with the matching events."""

import time
from typing import Any

from dorad.shm.layout import (
    BOX_ASLEEP,
    RING_HEAD,
    RING_QUEUE_SIZE,
    RING_RECEIVED,
    RING_TAIL,
    RingPlan,
)
from tests.harness.waiting import wait_until
from tests.node.fakedaemon import FakeDaemon, attached, daemon_of, in_thread, push

daemon = daemon_of({"a": 10})


def _add(daemon: FakeDaemon, input_id: str, *, queue_size: int = 10, **more: Any) -> RingPlan:
    ring = daemon.box.add_ring(queue_size)
    _announce(daemon, input_id, ring, **more)
    return ring


def _announce(daemon: FakeDaemon, input_id: str, ring: RingPlan, **more: Any) -> None:
    fields = {"source": "s", "interval_ns": None, "blocking": False, **more}
    daemon.send("input", id=input_id, ring=ring.base, **fields)


def _asleep(daemon: FakeDaemon) -> bool:
    return bool(daemon.box.words[BOX_ASLEEP])


def _summary(events: list[Any]) -> list[Any]:
    return [
        [e["type"], e["id"], *([bytes(e["value"])] if e["type"] == "INPUT" else [])] for e in events
    ]


def test_an_input_can_be_added_to_a_node_that_waits(daemon: FakeDaemon) -> None:
    with attached(daemon) as node, in_thread(lambda: node.receiver.next(None)) as received:
        wait_until(lambda: _asleep(daemon))
        ring = _add(daemon, "new")
        wait_until(daemon.read)
        wait_until(lambda: _asleep(daemon))
        push(daemon.box.outlet(ring), b"1")
        assert received()["id"] == "new"


def test_messages_sent_before_the_node_knew_the_input_are_received_too(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        ring = daemon.box.add_ring(10)
        push(daemon.box.outlet(ring), b"1")
        _announce(daemon, "new", ring)
        assert not node.receiver.is_empty()
        assert _summary(node.receiver.drain()) == [["INPUT", "new", b"1"]]


def test_a_timer_can_be_added(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        _add(daemon, "tick", source=None, interval_ns=1_000_000)
        for _ in range(5):
            event = node.receiver.next(10.0)
            assert event is not None
            assert event["id"] == "tick"


def test_two_nodes_can_feed_one_input(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        first = daemon.outlet("a")
        second = daemon.box.outlet(_add(daemon, "a", source="t"))
        for number in range(3):
            push(first, bytes([number]))
            push(second, bytes([number + 10]))
        received = [event["value"][0].as_py() for event in node.receiver.drain()]
        assert sorted(received) == [0, 1, 2, 10, 11, 12]
        assert [n for n in received if n < 10] == [0, 1, 2]


def test_an_input_closes_after_all_messages_of_all_its_sources(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        second = daemon.box.outlet(_add(daemon, "a", source="t"))
        push(second, b"1")
        daemon.send("closed", input="a")
        push(daemon.outlet("a"), b"2")
        found = _summary(node.receiver.drain())
        assert sorted(found[:2]) == [["INPUT", "a", b"1"], ["INPUT", "a", b"2"]]
        assert found[2:] == [["INPUT_CLOSED", "a"]]


def test_queued_messages_of_a_removed_input_are_received_before_its_end(
    daemon: FakeDaemon,
) -> None:
    with attached(daemon) as node:
        outlet = daemon.outlet("a")
        push(outlet, b"1")
        push(outlet, b"2")
        daemon.send("input_gone", id="a", ring=daemon.ring("a").base)
        daemon.send("closed", input="a")
        found = _summary(node.receiver.drain())
        assert found == [["INPUT", "a", b"1"], ["INPUT", "a", b"2"], ["INPUT_CLOSED", "a"]]


def test_messages_of_a_sender_that_has_not_seen_the_removal_are_ignored(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        daemon.send("input_gone", id="a", ring=daemon.ring("a").base)
        assert node.receiver.is_empty()
        push(daemon.outlet("a"), b"late")
        started, used = time.monotonic(), time.thread_time()
        event = node.receiver.next(0.3)
        assert event is not None
        assert event["type"] == "ERROR"
        assert time.monotonic() - started >= 0.3
        # It slept: a change of the removed ring does not wake it.
        assert time.thread_time() - used < 0.1


def test_a_ring_can_be_reused_with_another_queue_size(daemon: FakeDaemon) -> None:
    ring = daemon.ring("a")
    with attached(daemon) as node:
        outlet = daemon.outlet("a")
        for _ in range(3):
            push(outlet, b"x")
        daemon.send("input_gone", id="a", ring=ring.base)
        assert len(node.receiver.drain()) == 3
        words = daemon.box.words
        words[ring.base + RING_QUEUE_SIZE] = 2
        words[ring.base + RING_TAIL] = words[ring.base + RING_HEAD]
        words[ring.base + RING_RECEIVED] = words[ring.base + RING_HEAD]
        _announce(daemon, "b", ring)
        for number in range(5):
            push(outlet, bytes([number]))
        found = _summary(node.receiver.drain())
        assert found == [["INPUT", "b", b"\x03"], ["INPUT", "b", b"\x04"]]
        assert words[ring.base + RING_RECEIVED] == 5


def test_an_input_announced_twice_is_added_once(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        _announce(daemon, "a", daemon.ring("a"))
        ring = _add(daemon, "b")
        _announce(daemon, "b", ring)
        daemon.send("input_gone", id="z", ring=12345)
        push(daemon.outlet("a"), b"1")
        push(daemon.box.outlet(ring), b"2")
        found = _summary(node.receiver.drain())
        assert sorted(found) == [["INPUT", "a", b"1"], ["INPUT", "b", b"2"]]


def test_a_closed_input_can_be_added_and_closed_again(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        daemon.send("closed", input="a")
        _announce(daemon, "a", daemon.box.add_ring(10), source="t")
        daemon.send("closed", input="a")
        daemon.send("closed", input="a")
        assert _summary(node.receiver.drain()) == [["INPUT_CLOSED", "a"], ["INPUT_CLOSED", "a"]]


# -- events ----------------------------------------------------------------------------------


def test_a_timeout_closes_before_queued_messages_and_an_end_after(
    daemon: FakeDaemon,
) -> None:
    with attached(daemon) as node:
        outlet = daemon.outlet("a")
        push(outlet, b"1")
        daemon.send("broken", input="a")
        daemon.send("recovered", input="a")
        daemon.send("closed", input="a")
        events = node.receiver.drain()
        assert _summary(events) == [
            ["INPUT_CLOSED", "a"],
            ["INPUT_RECOVERED", "a"],
            ["INPUT", "a", b"1"],
            ["INPUT_CLOSED", "a"],
        ]
        assert (events[0]["reason"], events[3]["reason"]) == ("timeout", "finished")


def test_a_silent_input_that_ends_is_closed_twice(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        for kind in ("broken", "broken", "closed", "broken"):
            daemon.send(kind, input="a")
        assert [e["reason"] for e in node.receiver.drain()] == ["timeout", "finished"]


def test_an_input_that_was_not_closed_does_not_recover(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        daemon.send("recovered", input="a")
        assert node.receiver.drain() == []


def test_after_stop_come_only_inputs_that_are_queued(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        push(daemon.outlet("a"), b"1")
        daemon.send("stop", reason="MANUAL")
        daemon.send("restarted", node="s")
        daemon.send("param", key="p", value=1)
        daemon.send("broken", input="a")
        found = []
        while (event := node.receiver.next(None)) is not None:
            found.append(event)
        assert _summary(found) == [["STOP", "MANUAL"], ["INPUT", "a", b"1"]]
        assert node.receiver.is_empty()
