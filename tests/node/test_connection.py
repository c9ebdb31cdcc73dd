"""A node's connection to daemons that start late, exit, repeat packets, and take over."""

import gc
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dorad.node import attach
from dorad.node.attach import Spawned, connect
from dorad.node.payload import unpack
from dorad.shm import doorbell
from dorad.shm.layout import RING_WAITING
from tests.harness.process import open_descriptors
from tests.harness.waiting import wait_until
from tests.node.fakedaemon import (
    FakeDaemon,
    attached,
    connection_to,
    daemon_of,
    in_thread,
    push,
)

LARGE = pa.array(bytes(10_000), pa.uint8())


daemon = daemon_of({"a": 10, "b": 10})


def _segment() -> int:
    memory = os.memfd_create("dorad-test", os.MFD_CLOEXEC)
    os.ftruncate(memory, 1 << 18)
    return memory


def test_a_daemon_that_has_exited_is_not_asked_for_memory_ahead_of_need(
    daemon: FakeDaemon,
) -> None:
    connection = connection_to(daemon)
    daemon.disconnect()
    assert not connection.grow_ahead(1 << 20, pytest.fail)
    with pytest.raises(ConnectionError, match="the daemon has closed the connection"):
        connection.grow(1 << 20)
    connection.done()


# -- a daemon that comes late ----------------------------------------------------------------


def test_a_spawned_node_waits_for_a_daemon_that_does_not_listen_yet(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path)
    daemon.listener.close()
    with in_thread(lambda: connect(Spawned("n", daemon.path))) as connected:
        # The socket's file exists without a listener: connecting is refused.
        again = FakeDaemon(tmp_path, name="late.sock")
        again.path.replace(daemon.path)
        again.accept()
        again.welcome()
        connected().done()
    again.close()
    daemon.box.close()


def test_a_spawned_node_retries_when_the_daemon_dies_before_answering(
    daemon: FakeDaemon,
) -> None:
    def serve() -> None:
        for _ in range(3):
            daemon.accept()
            daemon.disconnect()
        daemon.accept()
        daemon.welcome()

    with in_thread(serve) as served:
        connection = connect(Spawned("n", daemon.path))
        served()
    connection.done()


def test_a_spawned_node_retries_when_another_daemon_takes_over_before_its_welcome(
    daemon: FakeDaemon,
) -> None:
    def serve() -> None:
        daemon.accept()
        daemon.send("adopted")
        daemon.accept()
        daemon.welcome()

    with in_thread(serve) as served:
        connection = connect(Spawned("n", daemon.path))
        served()
    connection.done()


def test_a_spawned_node_gives_up_after_its_deadline(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "CONNECT_TIMEOUT_S", 0.2)
    daemon.listener.close()
    with pytest.raises(RuntimeError, match="no daemon answers at"):
        connect(Spawned("n", daemon.path))


def test_a_refused_node_does_not_retry(daemon: FakeDaemon) -> None:
    def serve() -> None:
        daemon.accept()
        daemon.send("refused", error="no place for it")

    with in_thread(serve), pytest.raises(RuntimeError, match="no place for it"):
        connect(Spawned("n", daemon.path))


def test_a_node_learns_why_although_the_daemon_has_not_read_everything(
    daemon: FakeDaemon,
) -> None:
    connection = connection_to(daemon)
    connection.note("unread")
    daemon.send("refused", error="no place for it")
    daemon.disconnect()
    with pytest.raises(RuntimeError, match="no place for it"):
        connection.read_mail()
    connection.done()


def test_a_node_ends_with_the_last_reference_to_it(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        gone = weakref.ref(node)
        gc.disable()
        try:
            del node
            assert gone() is None
        finally:
            gc.enable()
        daemon.receive("done")


# -- a daemon that takes over ----------------------------------------------------------------


def test_a_node_at_the_barrier_reports_ready_to_a_new_daemon(daemon: FakeDaemon) -> None:
    connection = connection_to(daemon)
    with in_thread(connection.wait_for_start) as started:
        daemon.receive("ready")
        daemon.send("adopted")
        daemon.receive("ready")
        daemon.send("start", epoch_ns=5)
        daemon.send("start", epoch_ns=5)
        assert started() == 5
    connection.done()


def test_the_end_of_an_operator_is_repeated_to_a_new_daemon(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        node.connection.ended("op")
        assert daemon.receive("ended").fields == {"operator": "op"}
        daemon.send("adopted")
        node.connection.refresh()
        node.connection.read_mail()
        assert daemon.receive("ended").fields == {"operator": "op"}


def test_a_request_is_repeated_to_a_new_daemon(daemon: FakeDaemon) -> None:
    with attached(daemon) as node, in_thread(lambda: node.connection.grow(1000)) as grown:
        first = daemon.receive("grow")
        daemon.send("adopted")
        again = daemon.receive("grow")
        assert again.fields == first.fields
        memory = _segment()
        # Both daemons have received it. The segment of the second answer is given back.
        daemon.send("grown", [memory], segment=1, ask=first.number("ask"))
        daemon.send("grown", [memory], segment=2, ask=first.number("ask"))
        os.close(memory)
        assert grown()[0] == 1
        node.connection.read_mail()
        assert daemon.receive("retire").number("segment") == 2


def test_a_late_answer_is_not_matched_to_the_next_request(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        memory = _segment()
        for number in (1, 2):
            with in_thread(lambda: node.connection.grow(1000)) as grown:
                ask = daemon.receive("grow").number("ask")
                if number == 2:
                    daemon.send("grown", [memory], segment=9, ask=ask - 1)
                    assert daemon.receive("retire").number("segment") == 9
                daemon.send("grown", [memory], segment=number, ask=ask)
                assert grown()[0] == number
        os.close(memory)


def test_descriptors_sent_with_a_request_are_sent_again_too(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        with in_thread(lambda: node.extensions.store("s", "k", b"value")) as stored:
            daemon.receive("ext_store").close()
            daemon.send("adopted")
            again = daemon.receive("ext_store")
            (value,) = again.take(1)
            assert unpack(value, 100) == b"value"
            os.close(value)
            daemon.send("ext_done", ask=again.number("ask"))
            stored()


def test_data_flows_while_a_sender_waits_for_an_absent_daemon(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        receiver = daemon.other(10)
        daemon.introduce(receiver, blocking=False)
        ours = receiver.inlet(receiver.rings[0])
        theirs = daemon.outlet("a")
        with in_thread(lambda: node.sender.send("out", LARGE, None)) as sent:
            question = daemon.receive("grow")
            # No daemon answers now. Packets that the dead daemon has sent are still read.
            daemon.send("closed", input="b")
            for number in range(100):
                push(theirs, bytes([number]))
                event = node.receiver.next(None)
                assert event is not None
                if event["type"] == "INPUT_CLOSED":
                    assert event["id"] == "b"
                    event = node.receiver.next(None)
                    assert event is not None
                assert event["value"].to_pylist() == [number]
            assert not ours.ready()
            daemon.send("adopted")
            daemon.receive("grow")
            memory = _segment()
            daemon.send("grown", [memory], segment=1, ask=question.number("ask"))
            os.close(memory)
            sent()
            assert ours.ready()


def test_a_node_whose_daemon_never_returns_gets_an_error(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        push(daemon.outlet("a"), b"x")
        daemon.disconnect()
        types = []
        while (event := node.receiver.next(None)) is not None:
            types.append(event["type"])
        assert sorted(types) == ["ERROR", "INPUT"]


# -- a daemon that repeats itself ------------------------------------------------------------


def test_repeated_packets_change_nothing(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        receiver = daemon.other(10)
        memory = _segment()

        def send_all() -> None:
            daemon.introduce(receiver, blocking=False)
            daemon.send("source", [receiver.space], node="s")
            daemon.send("segment", [memory], segment=3)
            daemon.send("start", epoch_ns=1)
            daemon.send("closed", input="a")
            daemon.send("broken", input="b")
            daemon.send("failed", source_node_id="s", error="code 3", affected_input_ids=["a"])

        send_all()
        assert [event["type"] for event in node.receiver.drain()] == [
            "INPUT_CLOSED",
            "INPUT_CLOSED",
            "NODE_FAILED",
        ]
        outlets = node.connection.outlets["out"]
        mapped = node.connection.segments[3]
        open_files = open_descriptors()
        send_all()
        assert node.receiver.drain() == []
        assert node.connection.outlets["out"] == outlets
        assert node.connection.segments[3] is mapped
        assert open_descriptors() == open_files
        os.close(memory)


def test_a_recreated_peer_is_connected_again(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        old, new = daemon.other(10), daemon.other(10)
        daemon.introduce(old, blocking=False)
        node.sender.send("out", b"1", None)
        daemon.introduce(new, blocking=False)
        node.sender.send("out", b"2", None)
        assert old.inlet(old.rings[0]).ready()
        assert new.inlet(new.rings[0]).ready()
        waiter = doorbell.Waiter(new.bell)
        (outlet,) = node.connection.outlets["out"]
        doorbell.ring(outlet.peer.bell)
        assert waiter.wait(10**9) == [new.bell]


def test_a_failed_node_can_fail_again_after_a_restart(daemon: FakeDaemon) -> None:
    def fail() -> None:
        daemon.send("failed", source_node_id="s", error="x", affected_input_ids=["a"])
        daemon.send("closed", input="a")

    with attached(daemon) as node:
        fail()
        daemon.send("restarted", node="s")
        fail()
        fail()
        types = [event["type"] for event in node.receiver.drain()]
        assert types == ["NODE_RESTARTED", *["NODE_FAILED", "INPUT_CLOSED"] * 2]


def test_stop_is_delivered_once(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        daemon.send("stop", reason="ALL_INPUTS_CLOSED")
        daemon.send("stop", reason="ALL_INPUTS_CLOSED")
        daemon.send("ping")
        events: list[Any] = []
        while (event := node.receiver.next(None)) is not None:
            events.append(event["id"])
        assert events == ["ALL_INPUTS_CLOSED"]


# -- several threads -------------------------------------------------------------------------


def test_packets_read_by_a_sending_thread_wake_the_receiving_thread(daemon: FakeDaemon) -> None:
    with attached(daemon) as node, in_thread(lambda: node.receiver.next(None)) as received:
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                node.sender.send("out", b"x", None)

        with in_thread(send) as sent:
            daemon.send("stop", reason="MANUAL")
            assert received()["type"] == "STOP"
            stop.set()
            sent()


def test_a_waiting_sender_continues_when_its_receiver_may_lose_messages(
    daemon: FakeDaemon,
) -> None:
    with attached(daemon) as node:
        receiver = daemon.other(2)
        daemon.introduce(receiver, blocking=True)
        inlet = receiver.inlet(receiver.rings[0])
        ring = receiver.rings[0].base
        for _ in range(2):
            node.sender.send("out", b"x", None)
        with in_thread(lambda: node.sender.send("out", b"y", None)) as sent:
            wait_until(lambda: receiver.words[ring + RING_WAITING])
            daemon.send("edges", output="out", to=[["c", ring, False]])
            sent()
        assert not node.connection.outlets["out"][0].blocking
        assert inlet.ready()
