"""Heartbeats of a node with a hang watchdog: in each call, and while it waits."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dorad.node.offline.filemode import LocalSender
from dorad.shm.layout import BOX_ASLEEP, BOX_PULSE
from tests.harness.waiting import wait_until
from tests.node.fakedaemon import FakeDaemon, attached, daemon_of, in_thread, push

daemon = daemon_of({"a": 10}, {"watched": True})


def test_every_api_call_changes_the_pulse(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        calls: list[Callable[[], Any]] = [
            lambda: node.receiver.next(0.0),
            node.receiver.try_recv,
            node.receiver.drain,
            node.receiver.is_empty,
            lambda: asyncio.run(node.receiver.recv_async(0.0)),
            lambda: node.sender.send("out", b"x", None),
            lambda: node.sender.empty(3, "uint8"),
            lambda: node.sender.pool.give_back(node.sender.take_sample(3)),
        ]
        node.sender.pool._grow = LocalSender()._grow
        for call in calls:
            before = daemon.box.words[BOX_PULSE]
            call()
            assert daemon.box.words[BOX_PULSE] > before


def test_a_node_without_a_health_check_writes_no_pulse(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path, {"a": 10})
    with attached(daemon) as node:
        node.receiver.next(0.0)
        node.sender.send("out", b"x", None)
        assert daemon.box.words[BOX_PULSE] == 0
    del node
    daemon.close()


def test_a_waiting_node_is_marked_asleep_and_reads_packets(daemon: FakeDaemon) -> None:
    with attached(daemon) as node, in_thread(lambda: node.receiver.next(None)) as received:
        wait_until(lambda: daemon.box.words[BOX_ASLEEP])
        for _ in range(3):
            daemon.send("ping")
            wait_until(daemon.read)
        wait_until(lambda: daemon.box.words[BOX_ASLEEP])
        push(daemon.outlet("a"), b"x")
        received()
        assert not daemon.box.words[BOX_ASLEEP]


def test_a_node_that_waits_in_an_event_loop_is_marked_asleep(daemon: FakeDaemon) -> None:
    with (
        attached(daemon) as node,
        in_thread(lambda: asyncio.run(node.receiver.recv_async(None))) as received,
    ):
        wait_until(lambda: daemon.box.words[BOX_ASLEEP])
        daemon.send("ping")
        wait_until(daemon.read)
        push(daemon.outlet("a"), b"x")
        received()


def test_unread_packets_of_a_busy_node_are_visible(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        daemon.send("ping")
        assert not daemon.read()
        node.receiver.try_recv()
        assert daemon.read()


def test_a_sender_that_waits_for_room_keeps_changing_its_pulse(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        receiver = daemon.other(1)
        daemon.introduce(receiver, blocking=True)
        node.sender.send("out", b"1", None)
        with in_thread(lambda: node.sender.send("out", b"2", None)) as sent:
            _beats(daemon)
            daemon.send("ping")
            wait_until(daemon.read)
            inlet = receiver.inlet(receiver.rings[0])
            inlet.take()
            sent()


def test_a_node_that_waits_for_an_answer_keeps_changing_its_pulse(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        with in_thread(lambda: node.extensions.drop("s", "k")) as dropped:
            question = daemon.receive("ext_drop")
            _beats(daemon)
            daemon.send("ext_done", ask=question.number("ask"))
            dropped()


def _beats(daemon: FakeDaemon) -> None:
    first = daemon.box.words[BOX_PULSE]
    wait_until(lambda: daemon.box.words[BOX_PULSE] > first + 3)
