"""What comes between the steps of sending and receiving: signals, other threads, hostile words."""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest

from dorad.node.clock import Clock
from dorad.node.inputs import RingInput
from dorad.shm import doorbell, layout, native
from dorad.shm.inlet import Inlet
from tests.node.fakedaemon import DEADLINE_S, FakeDaemon, attached, daemon_of, in_thread, push
from tests.shm.edge import Edge, edge
from tests.shm.test_native import Side

NO_DESCRIPTOR = 1 << 30
"""Above all open ones."""


daemon = daemon_of({"a": 10})


# -- receiving ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1 << 62, 1 << 63, (1 << 64) - 1])
def test_any_count_of_packets_is_survived(daemon: FakeDaemon, value: int) -> None:
    with attached(daemon) as node:
        daemon.box.words[layout.BOX_MAIL] = value
        push(daemon.outlet("a"), b"x")
        event = node.receiver.next(DEADLINE_S)
        assert event is not None
        assert event["value"].to_pylist() == [120]


def test_a_spin_that_finds_nothing_counts_as_failed_when_the_bell_rings(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        inputs = node.ring_receiver.inputs
        spin = inputs._spin
        assert inputs.poll() is None
        spin.budget_ns = 1000
        doorbell.ring(inputs.connection.bell)
        inputs.wait(None)
        assert spin.budget_ns == 500


def test_the_longest_timeout_lasts_until_a_message_comes(daemon: FakeDaemon) -> None:
    with attached(daemon) as node, in_thread(lambda: node.receiver.next(1e12)) as received:
        push(daemon.outlet("a"), b"x")
        assert received()["value"].to_pylist() == [120]


def test_a_timeout_that_is_no_time_is_an_error(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        with pytest.raises(ValueError, match="NaN"):
            node.receiver.next(float("nan"))
        event = node.receiver.next(-1e10)
        assert event is not None
        assert event["type"] == "ERROR"


class _InterruptError(Exception):
    pass


def _interrupt(*_: object) -> None:
    raise _InterruptError


class _InterruptedLookup(dict[int, Any]):
    __missing__ = _interrupt


@contextmanager
def interrupted() -> Iterator[None]:
    """Raise `_InterruptError` soon, in a signal handler."""
    before = signal.signal(signal.SIGALRM, _interrupt)
    # More than once: the first may come before the call that it shall interrupt.
    signal.setitimer(signal.ITIMER_REAL, 0.2, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _let_seem_ready(daemon: FakeDaemon, node: Any) -> Any:
    """Let a word say that there is a message, while there is none to take, and return the ring."""
    (inlet,) = node.ring_receiver.inputs._rings
    inlet.freeze()
    push(daemon.outlet("a"), b"x")
    return inlet


def test_a_signal_is_handled_while_a_ring_only_seems_to_have_a_message(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        _let_seem_ready(daemon, node)
        with interrupted(), pytest.raises(_InterruptError):
            node.receiver.next(DEADLINE_S / 4)


def test_what_a_signal_handler_raises_while_a_message_is_taken_is_no_unreadable_message() -> None:
    with edge() as e:
        e.push_sample(b"x" * 1000)
        interrupted = RingInput("in", Inlet(e.box, e.ring, _InterruptedLookup(), None), Clock())
        with pytest.raises(_InterruptError):
            interrupted.take()
        assert e.counters.unreadable == 0
        assert e.take() == b"x" * 1000


def test_threads_run_while_a_ring_only_seems_to_have_a_message(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        inlet = _let_seem_ready(daemon, node)

        def release() -> None:
            inlet.limit = None

        timer = threading.Timer(0.05, release)
        timer.start()
        event = node.receiver.next(DEADLINE_S / 2)
        timer.join()
        assert event is not None
        assert event["type"] == "INPUT"


def test_a_way_to_poll_is_used_to_the_end_although_it_is_replaced_meanwhile(
    daemon: FakeDaemon,
) -> None:
    with attached(daemon) as node:
        receiver = node.ring_receiver

        class Poll:
            def __call__(self) -> Any:
                receiver.share(receiver.inputs.lock, receiver.inputs.poll)
                return None

        push(daemon.outlet("a"), b"x")
        receiver.share(receiver.inputs.lock, Poll())
        event = receiver.next(DEADLINE_S)
        assert event is not None
        assert event["type"] == "INPUT"


def test_a_forked_child_cannot_use_methods_that_its_parent_has_bound(daemon: FakeDaemon) -> None:
    with attached(daemon) as node:
        other = daemon.other(10)
        daemon.introduce(other, blocking=False)
        send, receive = node.sender.send, node.receiver.next
        send("out", pa.array([1]), None)
        counter = other.rings[0].base + layout.RING_HEAD
        child = os.fork()
        if child == 0:
            refused = 0
            for way in (lambda: send("out", pa.array([1]), None), lambda: receive(0.01)):
                try:
                    way()
                except RuntimeError as error:
                    refused += "belongs to its parent" in str(error)
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        assert other.words[counter] == 1


# -- sending -----------------------------------------------------------------------------------


class _Disconnecting(pa.ExtensionArray):
    """An array that connects the output to other inputs while it is encoded."""

    on_export: Any = None

    @property
    def type(self) -> Any:
        return self.storage.type

    def _export_to_c(self, *arguments: Any) -> Any:
        if self.on_export is not None:
            self.on_export()
        return self.storage._export_to_c(*arguments)


class _DisconnectingType(pa.ExtensionType):
    def __init__(self) -> None:
        super().__init__(pa.int64(), "dorad.test.disconnecting")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    def __arrow_ext_class__(self) -> type:
        return _Disconnecting


@pytest.mark.parametrize("length", [1, 1000])
def test_a_message_goes_to_the_inputs_that_were_connected_when_it_was_sent(length: int) -> None:
    with edge() as first, edge() as second:
        one = Side(first)
        one.sender.send("out", pa.array(range(1000)), None)
        first.take()
        outlets = one.sender._connection.outlets
        array = pa.ExtensionArray.from_storage(_DisconnectingType(), pa.array(range(length)))
        kept: list[Any] = []

        def reconnect() -> None:
            outlets["out"] = (second.outlet, second.outlet)
            # These take the place of a tuple that is freed too early.
            kept.extend((second.outlet,) for _ in range(50))

        array.on_export = reconnect
        one.sender.send("out", array, None)
        assert [first.counters.queued, second.counters.queued] == [1, 0]
        _forget(one)


def test_the_first_bell_that_cannot_be_rung_is_reported() -> None:
    with edge() as first, edge() as second:
        one = Side(first)
        one.sender._connection.outlets["out"] = (first.outlet, second.outlet)
        for each in (first, second):
            _break_bell(each)
        with pytest.raises(OSError, match="Bad file descriptor"):
            one.sender.send("out", pa.array([1]), None)
        assert [first.counters.queued, second.counters.queued] == [1, 1]
        for each in (first, second):
            each.box.words[layout.BOX_ASLEEP] = 0
        one.sender.send("out", pa.array([2]), None)
        _forget(one)


@pytest.fixture
def full_bell() -> Iterator[int]:
    """A doorbell that a peer has filled: writes block until it is read."""
    bell = doorbell.create()
    os.eventfd_write(bell, (1 << 64) - 2)
    os.set_blocking(bell, True)
    # If this process cannot read it, another one does: the test shall fail, not hang.
    watchdog = os.fork()
    if watchdog == 0:
        time.sleep(DEADLINE_S / 2)
        os.eventfd_read(bell)
        os._exit(0)
    yield bell
    os.kill(watchdog, signal.SIGKILL)
    os.waitpid(watchdog, 0)
    os.close(bell)


def test_threads_run_while_a_bell_cannot_be_rung(full_bell: int) -> None:
    with edge() as e:
        one = Side(e)
        one.sender.send("out", pa.array([1]), None)
        e.box.words[layout.BOX_ASLEEP] = 1
        e.peer.bell = full_bell
        read: list[int] = []
        timer = threading.Timer(0.05, lambda: read.append(os.eventfd_read(full_bell)))
        timer.start()
        one.sender.send("out", pa.array([2]), None)
        timer.join()
        assert read == [(1 << 64) - 2]
        _forget(one)


def test_a_signal_is_handled_while_a_bell_cannot_be_rung(full_bell: int) -> None:
    with edge() as e, interrupted():
        one = Side(e)
        one.sender.send("out", pa.array([1]), None)
        e.box.words[layout.BOX_ASLEEP] = 1
        e.peer.bell = full_bell
        with pytest.raises(_InterruptError):
            one.sender.send("out", pa.array([2]), None)
        assert e.counters.queued == 2
        _forget(one)


def _break_bell(e: Edge) -> None:
    e.box.words[layout.BOX_ASLEEP] = 1
    e.peer.bell = NO_DESCRIPTOR


def _forget(one: Side) -> None:
    vars(one).clear()


def test_a_timestamp_beyond_63_bits_counts_no_time_on_the_way() -> None:
    with edge() as e:
        one = Side(e)
        for stamp in (1 << 63, (1 << 64) - 1, (1 << 63) - 1):
            e.push(b"x", stamp=stamp)
            assert one.input.take() is not None
        assert e.counters.latency_sum == 0
        _forget(one)


@pytest.mark.skipif(native.module is None, reason="only C can forget a reference")
def test_a_borrow_that_is_refused_keeps_nothing() -> None:
    assert native.module is not None
    with edge() as e:
        view = e.box.words[1:]
        before = sys.getrefcount(view)
        for _ in range(10):
            with pytest.raises(ValueError, match="do not begin"):
                native.module.Borrow(view, 0, [], e.box)
        assert sys.getrefcount(view) == before


# -- finalizers --------------------------------------------------------------------------------


class _Cycle:
    """Garbage whose finalizer runs in any allocation that collects garbage."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._self = self
        self._work = work

    def __del__(self) -> None:
        self._work()


def test_finalizers_that_send_and_receive_lose_and_damage_nothing() -> None:
    with edge(5) as e:
        one = Side(e)
        one.sender.send("out", pa.array(range(1000)), None)
        arrays = [pa.array(range(length)) for length in (1, 200, 3000)]
        taken: list[Any] = []
        counts = {"sent": 1, "taken": 0}

        def send() -> None:
            counts["sent"] += 1
            number = counts["sent"] % len(arrays)
            one.sender.send("out", arrays[number], {"seq": number})

        def take() -> None:
            event = one.input.take()
            if event is not None:
                assert event["type"] == "INPUT", event
                assert event["value"][0].as_py() == 0
                counts["taken"] += 1
                taken.append(event)
                if len(taken) > 40:
                    del taken[::2]

        thresholds = gc.get_threshold()
        gc.set_threshold(1, 1, 1)
        try:
            for _ in range(1500):
                for work in (send, take, e.inlet.discard if counts["sent"] % 50 == 0 else take):
                    _Cycle(work)
                send()
                take()
        finally:
            gc.set_threshold(*thresholds)
        gc.collect()
        found = e.counters
        assert found.sent == counts["sent"]
        assert found.received == counts["taken"]
        assert found.unreadable == 0
        while taken:
            value = taken.pop()["value"]
            assert value.to_pylist() == list(range(len(value)))
            del value
        gc.collect()
        slots = range(e.ring.base + layout.RING_HAZARDS, e.ring.base + layout.RING_WORDS)
        assert sorted(e.inlet._free) == [*slots][: layout.HAZARDS]
        _forget(one)
