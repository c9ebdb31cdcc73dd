"""A node that is stepped: logical time, nothing while it is held, the oldest message first."""

from __future__ import annotations

import threading
import time
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dorad.node.attachment import Attachment
from dorad.shm import hoplog, hops, layout
from dorad.shm.arrow import UINT8_CODE
from dorad.shm.counters import counters
from dorad.shm.fence import fence
from tests.harness.waiting import wait_until
from tests.node.fakedaemon import DEADLINE_S, FakeDaemon, attached, daemon_of
from tests.shm.edge import read_hops

INPUTS = ("a", "b", "c")
START = 10**18
"""A logical time long ago."""


daemon = daemon_of(dict.fromkeys(INPUTS, 10), {"stepped": True})


def push(daemon: FakeDaemon, name: str, stamp: int) -> None:
    entry = layout.ENTRY.pack(stamp, 1, 0, 1, 0, 0, 0, 0, 0, UINT8_CODE, 0, 0)
    daemon.outlet(name).push(entry + name.encode(), 1, stamp)


def step(daemon: FakeDaemon, time_ns: int, *, held: bool = False) -> None:
    words = daemon.box.words
    words[layout.BOX_STEP] = time_ns
    words[layout.BOX_HELD] = int(held)
    fence()
    daemon.outlet("a").peer.wake()


def names(node: Attachment) -> list[Any]:
    found = []
    while (event := node.receiver.try_recv()) is not None:
        found.append(event.get("id", event["type"]))
    return found


@given(st.lists(st.sampled_from(INPUTS), max_size=9), st.randoms())
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
def test_messages_are_served_by_age_whatever_input_was_served_last(
    tmp_path_factory: pytest.TempPathFactory, sent: list[str], chance: Any
) -> None:
    by_input = {name: [n for n, each in enumerate(sent) if each == name] for name in INPUTS}
    order = chance.sample(INPUTS, len(INPUTS))
    daemon = FakeDaemon(tmp_path_factory.mktemp("n"), dict.fromkeys(INPUTS, 10), {"stepped": True})
    try:
        with attached(daemon) as node:
            step(daemon, START, held=True)
            # They arrive in another order.
            for name in order:
                for number in by_input[name]:
                    push(daemon, name, START + number)
            assert names(node) == []
            step(daemon, START + len(sent))
            assert names(node) == sent
    finally:
        daemon.close()


def test_equal_timestamps_are_served_in_the_order_of_the_inputs(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        for rounds in range(3):
            step(daemon, START, held=True)
            for name in ("c", "a", "b"):
                push(daemon, name, START + rounds)
            step(daemon, START + rounds)
            assert names(node) == ["a", "b", "c"]


def test_a_held_node_sleeps_beside_messages_until_its_turn(daemon: FakeDaemon) -> None:
    words = daemon.box.words
    found: list[Any] = []
    with attached(daemon) as node:
        step(daemon, START, held=True)
        push(daemon, "a", START)
        thread = threading.Thread(target=lambda: found.append(node.receiver.next(DEADLINE_S)))
        thread.start()
        wait_until(lambda: words[layout.BOX_ASLEEP])
        push(daemon, "b", START - 1)
        daemon.outlet("a").peer.wake()
        wait_until(lambda: words[layout.BOX_ASLEEP])
        assert counters(words, daemon.ring("a").base).received == 0
        assert node.receiver.is_empty()
        step(daemon, START)
        thread.join(DEADLINE_S)
    assert [event["id"] for event in found] == ["b"]


def test_a_held_node_learns_of_the_stop_and_then_takes_what_is_queued(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        step(daemon, START, held=True)
        push(daemon, "a", START)
        daemon.send("closed", input="b")
        assert names(node) == []
        daemon.send("stop", reason="MANUAL")
        assert names(node) == ["MANUAL", "a"]  # the reason of the stop


def test_timestamps_and_latencies_are_logical(daemon: FakeDaemon) -> None:
    other = daemon.other(10)
    inlet = other.inlet(other.rings[0])
    with attached(daemon) as node:
        daemon.introduce(other, blocking=False)
        step(daemon, START)
        push(daemon, "a", START - 500)
        assert names(node) == ["a"]
        for _ in range(2):
            node.sender.send("out", pa.array([1]), {})
        step(daemon, START + 10**9)
        node.sender.send("out", pa.array([1]), {})
        stamps = [taken[0] for taken in iter(inlet.take, None)]
        assert stamps == [START, START + 1, START + 10**9]
        assert counters(daemon.box.words, daemon.ring("a").base).latency_sum == 500
        if hops.received is not None:
            read, _ = read_hops(daemon.box.words, hoplog.HopCursor())
            assert read[0].at_ns == START
        step(daemon, 0)
        before = time.time_ns()
        node.sender.send("out", pa.array([1]), {})
        assert inlet.take()[0] >= before


def test_words_of_a_peer_in_the_place_of_the_time_do_no_harm(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        for value in (layout.COUNT_LIMIT, 1 << 63, (1 << 64) - 1):
            step(daemon, value)
            push(daemon, "a", (1 << 64) - 1)
            push(daemon, "b", 5)
            assert names(node) == ["b", "a"]
            node.sender.send("out", pa.array([1]), {})


def test_a_node_that_the_daemon_does_not_step_is_not_held_by_its_peers(daemon: FakeDaemon) -> None:
    daemon.config["stepped"] = False
    with attached(daemon) as node:
        step(daemon, START, held=True)
        push(daemon, "a", START)
        assert names(node) == ["a"]
        assert node.clock.now() > START + 10**17
