"""Signal handlers that use the node they have interrupted never deadlock."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from dorad.node.extensions import DaemonTable
from tests.harness.waiting import DEADLINE_S, wait_until
from tests.node.fakedaemon import FakeDaemon, attached, daemon_of, in_thread, push

MESSAGES = 2000


daemon = daemon_of({"in": 10})


@contextlib.contextmanager
def handler(work: Callable[[], Any], number: int = signal.SIGUSR1) -> Iterator[None]:
    before = signal.signal(number, lambda *_: work())
    try:
        yield
    finally:
        signal.signal(number, before)


class Interrupted:
    """Data during whose sending a signal comes."""

    def __init__(self, value: int) -> None:
        self._array = pa.array([value], pa.uint8())

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        signal.raise_signal(signal.SIGUSR1)
        return self._array.__arrow_c_array__(requested_schema)


def _received(inlet: Any) -> list[int]:
    found = []
    while (taken := inlet.take()) is not None:
        found.append(taken[5][0])
    return found


def test_a_message_that_a_signal_handler_sends_during_a_send_is_sent_next(
    daemon: FakeDaemon,
) -> None:
    box = daemon.other(10)
    inlet = box.inlet(box.rings[0])
    with attached(daemon) as node:
        daemon.introduce(box, blocking=False)
        wait_until(lambda: (node.connection.read_mail(), node.connection.outlets)[1])
        with handler(lambda: node.sender.send("out", b"\x02", {"by": "handler"})):
            node.sender.send("out", Interrupted(1), None)
            node.sender.send("out", b"\x03", None)
        assert _received(inlet) == [1, 2, 3]


def test_an_invalid_send_in_a_signal_handler_raises_in_the_handler(daemon: FakeDaemon) -> None:
    box = daemon.other(10)
    inlet = box.inlet(box.rings[0])
    errors = []

    def send_nonsense() -> None:
        try:
            node.sender.send("out", object(), None)
        except RuntimeError as error:
            errors.append(str(error))

    with attached(daemon) as node:
        daemon.introduce(box, blocking=False)
        wait_until(lambda: (node.connection.read_mail(), node.connection.outlets)[1])
        with handler(send_nonsense):
            node.sender.send("out", Interrupted(1), None)
        assert _received(inlet) == [1]
    assert len(errors) == 1
    assert "invalid data type" in errors[0]


def test_memory_requested_during_a_send_is_refused_with_a_reason(daemon: FakeDaemon) -> None:
    errors = []

    def ask() -> None:
        for work in (lambda: node.sender.empty(3, "uint8"), lambda: node.sender.take_sample(3)):
            try:
                work()
            except RuntimeError as error:
                errors.append(str(error))

    with attached(daemon) as node:
        with handler(ask):
            node.sender.send("out", Interrupted(1), None)
    assert len(errors) == 2
    assert all("signal handler" in error for error in errors)


def test_no_message_is_lost_to_signals_at_any_moment(daemon: FakeDaemon) -> None:
    box = daemon.other(1 << 15)
    inlet = box.inlet(box.rings[0])
    sent = 0

    def send() -> None:
        nonlocal sent
        sent += 1
        node.sender.send("out", b"\x02" * 4, {"n": sent})

    with attached(daemon) as node:
        daemon.introduce(box, blocking=False)
        wait_until(lambda: (node.connection.read_mail(), node.connection.outlets)[1])
        with handler(send, signal.SIGALRM):
            signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
            try:
                for _ in range(MESSAGES):
                    node.sender.send("out", b"\x01" * 4, None)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        node.sender.send("out", b"\x03", None)
        found = _received(inlet)
    assert sent > 0
    assert (found.count(1), found.count(2), found.count(3)) == (MESSAGES, sent, 1)


def test_a_handler_sends_while_its_node_waits_for_an_event(daemon: FakeDaemon) -> None:
    box = daemon.other(10)
    inlet = box.inlet(box.rings[0])
    with attached(daemon) as node:
        daemon.introduce(box, blocking=False)

        def send() -> None:
            node.sender.send("out", b"\x07", None)
            push(daemon.outlet("in"), b"x")

        with handler(send, signal.SIGALRM):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            event = node.receiver.next(DEADLINE_S)
        assert event is not None
        assert event["type"] == "INPUT"
        assert _received(inlet) == [7]


def test_a_handler_that_would_deadlock_with_the_interrupted_call_gets_an_error(
    daemon: FakeDaemon,
) -> None:
    errors: list[str] = []
    found: list[Any] = []

    def receive() -> None:
        found.append(node.receiver.try_recv())
        found.append(node.receiver.is_empty())
        try:
            node.receiver.next(None)
        except RuntimeError as error:
            errors.append(str(error))
        push(daemon.outlet("in"), b"x")

    with attached(daemon) as node:
        with handler(receive, signal.SIGALRM):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            event = node.receiver.next(DEADLINE_S)
        assert event is not None
        assert event["type"] == "INPUT"
    assert found == [None, True]
    assert len(errors) == 1
    assert "already receiving" in errors[0]


def test_a_handler_sends_a_request_while_its_node_waits_for_an_answer(daemon: FakeDaemon) -> None:
    answers: list[Any] = []
    with attached(daemon) as node:
        table = DaemonTable(node.connection)

        def answer() -> None:
            first = daemon.receive("ext_load")
            signal.raise_signal(signal.SIGUSR1)  # its handler runs in the main thread
            second = daemon.receive("ext_load")
            for packet in (second, first):
                text = packet.text("key")
                daemon.send("ext_refused", error=f"no {text}", ask=packet.fields["ask"])

        def ask(key: str) -> None:
            try:
                table.load("space", key, False)
            except RuntimeError as error:
                answers.append((key, str(error)))

        with handler(lambda: ask("inner")), in_thread(answer) as answered:
            ask("outer")
            answered()
    assert answers == [("inner", "no inner"), ("outer", "no outer")]


def test_packets_that_arrive_during_handling_are_handled_in_order(daemon: FakeDaemon) -> None:
    seen: list[str] = []
    with attached(daemon) as node:
        connection = node.connection
        handle = connection.daemon_events.handle

        def slow(packet: Any) -> None:
            if not seen:
                seen.append("first begins")
                daemon.send("param", key="b", value=2)
                connection.read_mail()
                seen.append("first ends")
            else:
                seen.append("second")
            handle(packet)

        connection.daemon_events.handle = slow
        daemon.send("param", key="a", value=1)
        deadline = time.monotonic() + DEADLINE_S
        while len(seen) < 3 and time.monotonic() < deadline:
            connection.read_mail()
    assert seen == ["first begins", "first ends", "second"]
