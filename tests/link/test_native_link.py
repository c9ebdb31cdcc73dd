"""The native steps of a link beside the Python ones: the same frames, queues and counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import zenoh
from hypothesis import example, given
from hypothesis import strategies as st

from dorad.link import frames
from dorad.link.config import ChannelIn
from dorad.link.delivery import Delivery, push
from dorad.link.direct import MAX_DIRECT, DirectIn, DirectOut
from dorad.link.forward import ForwardedInput
from dorad.link.frames import Content, FrameError, Numbering, Opening, Start
from dorad.link.hello import Grant, Window
from dorad.link.incoming import Incoming
from dorad.link.machine import In
from dorad.link.numbering import Mark
from dorad.link.outgoing import Outgoing
from dorad.link.pace import Pace
from dorad.node.correlation import MARKING
from dorad.shm import native
from tests.link.twolinks import loop_sleep, sample
from tests.shm.edge import Edge, content, edge

pytestmark = pytest.mark.skipif(
    native.module is None, reason=f"the extension is not used: {native.describe()}"
)

OUT = "a/out"
SENDER, OPENING = 5, Opening(0, 1, 5)
MAX_SIZE = 5000
WINDOW = Window(8, 4000)


# -- receiving


class Receiving:
    """A link that receives one output, and a node that receives it from there."""

    def __init__(self, e: Edge, *, plain: bool) -> None:
        """Only ends that are `plain` are served by native steps."""
        self.edge = e
        e.outlet.plain = plain
        connection: Any = SimpleNamespace(
            outlets={OUT: (e.outlet,)},
            late_outputs=set(),
            grow=e._grow,
            retire=e.retired.append,
        )
        self.delivery = Delivery(connection, 0)
        machine: Any = None
        self.each = In(ChannelIn(OUT, "alpha", OUT, max_size=MAX_SIZE), 0, machine)
        window = self.each.channel
        self.each.channel = Incoming(0, 7, WINDOW, window.max_size, window.inline)
        self.each.channel.open()
        self.each.channel.arrive(Start(OPENING, 0, Numbering(3, 0)), self.delivery.allocate)
        self.sleep = loop_sleep()
        self.queue: deque[Any] = deque()
        self.direct = DirectIn(
            self.sleep, {0: self.each}, self.delivery, "alpha", self.queue, self._queue_one
        )
        self.wakes = 0
        self.held: list[Any] = []

    def _queue_one(self, one: Any) -> None:
        self.queue.append(one.payload)

    def receive(self, data: bytes, *, asleep: bool) -> None:
        """Let a sample of Zenoh arrive while the loop sleeps, or works."""
        if asleep:
            self.sleep.working.release()
        self.direct.take(sample(zenoh.ZBytes(data)))
        if asleep:
            self.sleep.working.acquire()

    def turn(self) -> str:
        """Handle what is queued as the loop does; return what is wrong with it."""
        channel, problem = self.each.channel, ""
        while self.queue:
            try:
                for frame in frames.decode(self.queue.popleft().to_bytes()):
                    channel.arrive(frame, self.delivery.allocate)
            except FrameError as error:
                problem = str(error)
            while channel.arrived:
                push(self.delivery, self.each, channel.arrived[0])
                channel.handled()
        return problem

    def take(self, *, hold: bool) -> object:
        """Let the node take a message, and keep its memory or not."""
        taken = self.edge.inlet.take()
        if taken is None:
            return None
        if hold:
            self.held.append(taken[6])
        return taken[:5], content(taken), taken[8]

    def state(self) -> object:
        channel = self.each.channel
        return (
            (channel.grant, channel.received, channel.owes, channel.ack_due),
            (channel._bytes, channel._bytes_handled, self.each.latencies),
            [reached[1:] for reached in self.delivery.reached.values()],
            [payload.to_bytes() for payload in self.queue],
            (self.edge.counters.received, self.edge.counters.queued, self.edge.counters.dropped),
            self.edge.outlet.head,
            self.edge.outlet._bytes,
            self.sleep.had_data,
            self.sleep.fault is None,
        )


@contextmanager
def receivers() -> Iterator[tuple[Receiving, Receiving]]:
    with ExitStack() as stack:
        ends = [stack.enter_context(edge(5)) for _ in range(2)]
        yield Receiving(ends[0], plain=True), Receiving(ends[1], plain=False)


u64 = st.one_of(st.integers(0, 20), st.integers(0, (1 << 64) - 1))
sizes = st.one_of(st.integers(0, 200), st.sampled_from((176, 177, 1000, MAX_SIZE, MAX_SIZE + 1)))


@st.composite
def whole(draw: st.DrawFn) -> bytes:
    """A whole message, of which any field may be wrong."""
    size = draw(sizes)
    opening = draw(st.sampled_from((OPENING, OPENING, OPENING, Opening(0, 2, 5), Opening(1, 1, 5))))
    metadata = draw(st.one_of(st.just(b""), st.binary(max_size=190)))
    stamp, code, length, nulls = draw(st.tuples(u64, st.integers(0, 255), u64, u64))
    flags = draw(st.sampled_from((0, 0, 0, 1)))
    sequence = draw(st.one_of(st.integers(0, 9), u64))
    number = draw(st.one_of(st.just(sequence), st.integers(0, 9), u64))
    fields = Content(stamp, code, length, nulls, size, flags)
    data = frames.message_head(opening, sequence, number, fields, metadata) + bytes(size)
    change = draw(st.sampled_from(("", "", "", "byte", "short", "long")))
    if change == "byte":
        at = draw(st.integers(0, min(len(data), 80) - 1))
        data = data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]
    return {"short": data[:-1], "long": data + b"x"}.get(change, data)


def good(sequence: int, size: int = 4, metadata: bytes = b"", stamp: int = 9) -> bytes:
    """A message that follows the ones before it."""
    fields = Content(stamp, 5, size, 0, size, 0)
    head = frames.message_head(OPENING, sequence, sequence, fields, metadata)
    return head + bytes(range(256)) * (size // 256) + bytes(range(size % 256))


steps = st.one_of(
    st.tuples(st.just("next"), sizes, st.booleans()),
    st.tuples(st.just("data"), whole(), st.booleans()),
    st.tuples(st.just("data"), st.binary(max_size=90), st.booleans()),
    st.tuples(st.just("take"), st.booleans(), st.just(False)),
    st.tuples(st.sampled_from(("ack", "turn", "reopen")), st.just(0), st.just(False)),
)


@given(st.lists(steps, max_size=20))
@example([("next", size, True) for size in (0, 4, 177, 1000, 3, 5000)])
def test_any_sample_is_delivered_queued_and_counted_alike(
    acts: list[tuple[str, Any, bool]],
) -> None:
    with receivers() as (fast, slow):
        sequence = 0
        for act, what, asleep in acts:
            found = []
            for each in (fast, slow):
                if act == "next":
                    each.receive(good(sequence, what), asleep=asleep)
                elif act == "data":
                    each.receive(what, asleep=asleep)
                elif act == "take":
                    found.append(each.take(hold=what))
                elif act == "ack":
                    found.append(each.each.channel.acknowledge())
                elif act == "turn":
                    found.append(each.turn())
                else:
                    each.each.channel.close()
                    each.each.channel.open()
            sequence += act == "next"
            assert found[:1] == found[1:]
            assert fast.state() == slow.state()


def test_plain_messages_are_delivered_without_python(monkeypatch: pytest.MonkeyPatch) -> None:
    with receivers() as (fast, _):
        for sequence in range(2):
            # Python handles the first sample of a thread, and the first message of a channel.
            fast.receive(good(sequence), asleep=True)
        monkeypatch.setattr(DirectIn, "pass_on", None)
        for sequence, (size, metadata) in enumerate(((4, b""), (100, b"{}" * 30), (176, b"")), 2):
            assert fast.take(hold=False)
            fast.receive(good(sequence, size, metadata), asleep=True)
        assert fast.sleep.fault is None
        assert not fast.queue
        assert fast.each.channel.received == fast.each.latencies == 5


def test_the_loop_is_woken_if_an_acknowledgement_is_due_or_it_would_sleep_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    woken: list[int] = []
    monkeypatch.setattr("dorad.link.direct.LoopSleep.wake", lambda _self: woken.append(sequence))
    with receivers() as (fast, slow):
        for each in (fast, slow):
            for sequence in range(6):
                each.sleep.wakes_soon = sequence != 4
                each.receive(good(sequence), asleep=True)
                if each.each.channel.ack_due:
                    each.each.channel.acknowledge()
    assert woken == [1, 3, 4, 5] * 2


def test_a_fault_while_data_are_delivered_ends_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    wakes: list[object] = []

    def fail(self: object) -> None:
        wakes.append(self)
        if len(wakes) == 1:
            raise RuntimeError("a bug")

    with receivers() as (fast, _):
        for sequence in range(2):
            fast.receive(good(sequence), asleep=True)
        monkeypatch.setattr("dorad.link.direct.LoopSleep.wake", fail)
        fast.receive(good(2), asleep=True)
        assert len(wakes) == 2, "the loop is woken to raise it"
        assert str(fast.sleep.fault) == "a bug"
        assert fast.sleep.working.locked()


# -- sending


class Sending:
    """A link that sends one output, and the node that it comes from."""

    def __init__(self, e: Edge, room: int, error: type[Exception] | None) -> None:
        self.edge = e
        connection: Any = SimpleNamespace(box=e.box, segments=e.segments, spaces={})
        item = {"id": "x", "ring": e.ring.base, "blocking": False, "source": "a"}
        self.input = ForwardedInput(connection, item)
        self.input.number_from(Mark(3, 4))
        self.sent: list[bytes] = []
        self.error = error
        self.channel = Outgoing(
            SENDER, reliable=True, numbering=3, next_number=4, pace=Pace(lambda: 0.0)
        )
        self.channel.open(Grant(0, 1, 7, WINDOW, SENDER, 0, 0, 0))
        out: Any = SimpleNamespace(channel=self.channel, inputs=[self.input])
        self.out = out
        self.room = room

    def prepare(self) -> DirectOut:
        assert self.input.offset is not None
        return DirectOut(self.out, self.input.offset, self.room, self._put)

    def _put(self, frame: bytes) -> None:
        self.sent.append(frame)
        if self.error is not None:
            raise self.error("not sent")

    def push(self, payload: bytes, metadata: bytes, stamp: int) -> None:
        if len(payload) + len(metadata) <= 176:
            self.edge.push(payload, metadata, stamp)
        else:
            self.edge.push_sample(payload)

    def state(self, prepared: DirectOut) -> object:
        unsent = prepared.unsent
        return (
            (prepared.frame, self.sent, repr(prepared.error)),
            unsent and (*unsent[:5], content(unsent), unsent[8]),
            (self.input.inlet.received, self.edge.counters.queued),
        )


metadata_bytes = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([f'{{"{key}":"x"}}'.encode() for key in sorted(MARKING)]),
    st.just(b'{"width":640}'),
)
messages = st.tuples(st.binary(max_size=300), metadata_bytes, st.integers(0, (1 << 63) - 1))
errors = st.sampled_from((None, zenoh.ZError, RuntimeError))


@given(st.lists(messages, max_size=4), st.sampled_from((0, 50, 1 << 20)), errors)
@example([(b"x" * 177, b"", 1)], 1 << 20, None)
@example([(b"", b'{"goal_id":"x"}', 1)], 1 << 20, None)
def test_the_message_that_ends_a_sleep_is_sent_alike(
    pushed: list[tuple[bytes, bytes, int]], room: int, error: type[Exception] | None
) -> None:
    with edge(3) as one, edge(3) as two:
        fast, slow = (Sending(each, room, error) for each in (one, two))
        sleep = loop_sleep()
        for message in pushed:
            for each in (fast, slow):
                each.push(*message)
        while True:
            prepared = fast.prepare(), slow.prepare()
            sleep.prepared = [prepared[0]]
            sleep.sleep(0)
            prepared[1].send()
            assert fast.state(prepared[0]) == slow.state(prepared[1])
            if prepared[0].frame is None:
                break
            for each in (fast, slow):
                each.channel.add_sent(each.sent[-1])
        assert sleep.working.locked()


def test_a_number_that_was_used_before_is_left_to_the_loop() -> None:
    with edge(3) as one:
        sending, sleep = Sending(one, 1 << 20, None), loop_sleep()
        one.push(b"x")
        sending.channel.next_number = 5
        sleep.prepared = [sending.prepare()]
        sleep.sleep(0)
        assert sleep.prepared[0].unsent is not None
        assert not sending.sent


def test_samples_of_the_greatest_direct_size_are_delivered_by_native_steps() -> None:
    with receivers() as (fast, slow):
        for each in (fast, slow):
            each.each.channel.max_size = 1 << 20
            for sequence, size in enumerate((4, 4, MAX_DIRECT - frames.OVERHEAD)):
                each.receive(good(sequence, size), asleep=True)
            assert not each.queue
            each.receive(good(3, MAX_DIRECT - frames.OVERHEAD + 1), asleep=True)
            assert len(each.queue) == 1
        assert fast.state() == slow.state()
