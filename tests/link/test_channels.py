"""The two ends of a channel over a connection that breaks at any moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from dorad.link import frames
from dorad.link.config import ChannelOut, LinkConfig
from dorad.link.frames import (
    Ack,
    Content,
    Event,
    EventKind,
    FrameError,
    Message,
    Numbering,
    Opening,
    Part,
    Start,
)
from dorad.link.hello import Grant, Window
from dorad.link.incoming import MAX_EVENTS, Arrived, Incoming
from dorad.link.machine import Out
from dorad.link.numbering import Mark
from dorad.link.outgoing import Outgoing
from dorad.link.pace import Pace
from tests.link.twolinks import FakeLink, TwoLinks
from tests.shm.edge import edge

SMALL = 16


class Buffer:
    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def write(self, at: int, data: Any) -> None:
        self.data[at : at + len(data)] = data


class Unlimited(Pace):
    """The pace of a line that is so fast that only the credit counts."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)

    def allows(self, on_the_way: int, size: int, credit: int) -> bool:
        self.limit = credit + 1
        return super().allows(on_the_way, size, credit)


@dataclass
class Wire:
    """Both ends, and what is on the way between them."""

    reliable: bool
    window: Window
    outgoing: Outgoing = field(init=False)
    incoming: Incoming = field(init=False)
    forth: deque[bytes] = field(default_factory=deque)
    back: deque[bytes] = field(default_factory=deque)
    taken: list[bytes] = field(default_factory=list)
    delivered: list[bytes] = field(default_factory=list)
    processes: int = 100
    numbers: list[int] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    events_sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outgoing = Outgoing(1, reliable=self.reliable, numbering=7, pace=Unlimited())
        self.incoming = self.new_receiver()

    def new_receiver(self) -> Incoming:
        self.processes += 1
        return Incoming(0, self.processes, window=self.window, max_size=1 << 30, inline=SMALL)

    # -- steps ---------------------------------------------------------------------------------

    def connect(self) -> None:
        self.incoming.open()
        self.outgoing.open(self.incoming.grant)

    def cut(self, survive: int = 0) -> None:
        """Lose all but the first frames on the way, then the connection."""
        for _ in range(min(survive, len(self.forth))):
            self.pass_one()
        self.forth.clear()
        self.back.clear()
        self.outgoing.close()
        self.incoming.close()

    def send(self, payload: bytes) -> bool:
        if not self.outgoing.wants:
            return False
        content = Content(len(self.taken), 5, len(payload), 0, len(payload), 0)
        self.outgoing.add(len(self.taken), content, b"{}", memoryview(payload), None)
        self.taken.append(payload)
        return True

    def pump(self) -> None:
        while (frame := self.outgoing.next_sample()) is not None:
            self.forth.append(frame)
            messages, size = self.outgoing.on_the_way
            assert messages <= self.window.messages + 1 + len(self.events_sent)
            # A receiver that has not handled a message yet holds all of it, however it came.
            largest = max((len(payload) for payload in self.taken), default=0)
            assert size <= max(self.window.bytes, frames.MAX_FRAGMENT + 2, largest + 2)

    def event(self, text: str) -> None:
        self.outgoing.add_event(EventKind.FAILED, text)
        self.events_sent.append(text)

    def pass_one(self) -> None:
        if self.forth:
            for frame in frames.decode(self.forth.popleft()):
                assert isinstance(frame, Start | Message | Part | Event)
                self.incoming.arrive(frame, Buffer)

    def handle(self) -> None:
        while self.incoming.arrived:
            item = self.incoming.arrived[0]
            if isinstance(item, Arrived):
                memory = item.memory
                data = bytes(memory.data) if isinstance(memory, Buffer) else item.payload
                self.delivered.append(data)
                self.numbers.append(item.number)
            else:
                self.events.append(item.text)
            self.incoming.handled()

    def acknowledge(self) -> None:
        if self.incoming.owes:
            self.back.append(frames.encode_ack(self.incoming.acknowledge()))
        while self.back:
            [ack] = frames.decode(self.back.popleft())
            assert isinstance(ack, Ack)
            self.outgoing.acknowledge(ack)

    def settle(self) -> None:
        """Connect, and run until nothing moves."""
        self.cut()
        self.connect()
        for _ in range(10_000):
            self.handle()
            self.pump()
            if not self.forth and not self.incoming.owes:
                return
            while self.forth:
                self.pass_one()
            self.handle()
            self.acknowledge()
        raise AssertionError("it never settles")


Step = tuple[str, int]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 40)),
        st.tuples(st.just("send"), st.integers(1 << 19, 3 << 20)),
        st.tuples(st.just("pump"), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 4)),
        st.tuples(st.just("handle"), st.just(0)),
        st.tuples(st.just("acknowledge"), st.just(0)),
        st.tuples(st.just("event"), st.just(0)),
        st.tuples(st.just("cut"), st.integers(0, 5)),
        st.tuples(st.just("connect"), st.just(0)),
    ),
    max_size=60,
)
windows = st.builds(Window, st.integers(1, 8), st.integers(1, 4 << 20))


def carry_out(wire: Wire, what: list[Step]) -> None:
    for number, (step, argument) in enumerate(what):
        match step:
            case "send":
                wire.send(bytes([number % 251]) * argument)
            case "pump":
                wire.pump()
            case "pass":
                for _ in range(argument):
                    wire.pass_one()
            case "handle":
                wire.handle()
            case "acknowledge":
                wire.acknowledge()
            case "event":
                wire.event(str(number))
            case "cut":
                wire.cut(argument)
            case "connect":
                wire.cut()
                wire.connect()


@given(windows, steps)
def test_a_reliable_channel_delivers_everything_once_and_in_order(
    window: Window, what: list[Step]
) -> None:
    wire = Wire(True, window)
    carry_out(wire, what)
    wire.settle()
    assert wire.delivered == wire.taken
    assert wire.events == wire.events_sent
    assert wire.outgoing.lost == wire.outgoing.uncertain == 0
    assert wire.outgoing.sent == wire.incoming.received == len(wire.taken)
    assert wire.outgoing.idle


@given(windows, steps)
@example(Window(1, 1), [("connect", 0), ("send", 0), ("connect", 0), ("pump", 0)])
def test_every_loss_of_an_unreliable_channel_is_counted_by_the_sender(
    window: Window, what: list[Step]
) -> None:
    wire = Wire(False, window)
    carry_out(wire, what)
    wire.settle()
    wire.send(b"the last")
    wire.settle()
    assert len(wire.taken) == len(wire.delivered) + wire.outgoing.lost
    assert wire.outgoing.uncertain == 0
    left = iter(wire.taken)
    assert all(any(each == other for other in left) for each in wire.delivered), "out of order"
    assert wire.events == wire.events_sent


@given(windows, steps, steps)
def test_a_receiver_that_restarts_gets_everything_of_a_reliable_channel_at_least_once(
    window: Window, before: list[Step], after: list[Step]
) -> None:
    wire = Wire(True, window)
    carry_out(wire, before)
    wire.cut()
    wire.incoming = wire.new_receiver()
    carry_out(wire, after)
    wire.settle()
    assert sorted(set(wire.numbers)) == list(range(len(wire.taken)))
    assert wire.outgoing.uncertain == 0


def opened(window: Window) -> Wire:
    wire = Wire(False, window)
    wire.connect()
    return wire


def test_a_message_larger_than_the_window_passes_piece_by_piece() -> None:
    wire = opened(Window(1, 1))
    payload = bytes(range(256)) * (5 << 12)
    assert wire.send(payload)
    wire.pump()
    assert len(wire.forth) == 2, "a start, and one piece"
    while wire.forth:
        wire.pass_one()
        wire.handle()
        wire.acknowledge()
        wire.pump()
    assert wire.delivered == [payload]


def test_small_messages_travel_together_and_a_large_one_ends_the_sample() -> None:
    wire = opened(Window(100, 4 << 20))
    sent = [b"%d" % number for number in range(50)] + [bytes(3 << 20)]
    for payload in sent:
        assert wire.send(payload)
    assert not wire.send(b"more"), "enough waits already"
    wire.pump()
    assert len(wire.forth) == 4, "a start, one sample up to the first piece, and two more pieces"
    while wire.forth:
        wire.pass_one()
    wire.handle()
    assert wire.delivered == sent


@pytest.mark.parametrize(
    ("size", "samples"), [(frames.MAX_BATCH - 3, 2), (frames.MAX_BATCH - 2, 3)]
)
def test_a_sample_that_is_full_takes_no_further_message(size: int, samples: int) -> None:
    """Each message has 2 bytes of metadata, and the first sample is a start."""
    wire = opened(Window(100, 4 << 20))
    wire.send(bytes(size))
    wire.send(b"x")
    wire.pump()
    assert len(wire.forth) == samples


def test_without_acknowledgements_nothing_is_taken_beyond_the_window() -> None:
    wire = opened(Window(3, 1 << 20))
    for _ in range(5):
        wire.send(b"x")
        wire.pump()
    assert len(wire.taken) == 3


def test_a_machine_that_has_stopped_costs_its_sender_nothing_once_its_credit_is_used_up() -> None:
    links = TwoLinks(reliable=False, messages=4)
    with closing(links):
        links.settle()
        links.send(10)
        links.turn("alpha")
        alpha = links.links["alpha"]
        for _ in range(3):
            links.send(1)
            assert not alpha.sending.send(), "it finds nothing to do"
        assert not alpha.session.sent
        (out,) = alpha.channels.outs
        assert out.watched == [], "no message keeps the loop awake"
        links.settle()
        assert out.watched, "the machine continues, and so does the flow"


def test_messages_that_wait_at_the_receiver_take_up_credit_over_a_reconnection() -> None:
    wire = Wire(True, Window(3, 1 << 20))
    for _ in range(4):
        wire.cut()
        wire.connect()
        for _ in range(5):
            wire.send(b"x")
            wire.pump()
            wire.pass_one()
    assert len(wire.incoming.arrived) == 3


def start(first: int, **changed: Any) -> Start:
    incarnation = changed.get("incarnation", 1)
    opening = Opening(0, changed.get("opening", 1), incarnation)
    return Start(opening, first, Numbering(incarnation, first))


def message(sequence: int, size: int, first: int, **changed: Any) -> Message:
    content = Content(1, 5, size, 0, size, 0)
    opening = Opening(0, changed.get("opening", 1), changed.get("incarnation", 1))
    return Message(opening, sequence, sequence, content, b"", memoryview(bytes(first)))


def part(sequence: int, offset: int, size: int) -> Part:
    return Part(Opening(0, 1, 1), sequence, offset, memoryview(bytes(size)))


@pytest.mark.parametrize(
    "bad",
    [
        message(0, 50, 50),
        message(2, 1 << 31, 100),
        part(1, 20, 10),
        part(1, 60, 10),
        part(2, 50, 10),
        part(1, 50, 60),
        Event(Opening(0, 1, 1), 1, EventKind.CLOSED, ""),
    ],
    ids=["old", "huge", "overlap", "hole", "other", "overlong", "event"],
)
def test_a_frame_that_cannot_follow_is_refused(bad: Message | Part | Event) -> None:
    incoming = Incoming(0, 7, window=Window(4, 1 << 20), max_size=1 << 30, inline=SMALL)
    incoming.open()
    incoming.arrive(start(1), Buffer)
    incoming.arrive(message(1, 100, 50), Buffer)
    with pytest.raises(FrameError):
        incoming.arrive(bad, Buffer)


def test_a_message_may_have_the_largest_size_and_no_more() -> None:
    incoming = Incoming(0, 7, window=Window(4, 1 << 20), max_size=1000, inline=SMALL)
    incoming.open()
    incoming.arrive(start(0), Buffer)
    incoming.arrive(message(0, 1000, 1000), Buffer)
    with pytest.raises(FrameError, match="a message of 1001 bytes; 1000 are allowed"):
        incoming.arrive(message(1, 1001, 10), Buffer)


@pytest.mark.parametrize("later", [0, 1, 5])
def test_a_message_comes_after_all_earlier_ones_and_some_may_be_missing(later: int) -> None:
    incoming = Incoming(0, 7, window=Window(4, 1 << 20), max_size=1 << 30, inline=SMALL)
    incoming.open()
    incoming.arrive(start(1), Buffer)
    incoming.arrive(message(2, 9, 9), Buffer)  # the first one was dropped
    with pytest.raises(FrameError, match="message 2 comes after 2"):
        incoming.arrive(message(2, 9, 9), Buffer)
    with pytest.raises(FrameError, match="message 1 comes after 2"):
        incoming.arrive(message(1, 9, 9), Buffer)
    incoming.arrive(message(3 + later, 9, 9), Buffer)
    assert [item.number for item in incoming.arrived] == [2, 3 + later]


@pytest.mark.parametrize(
    "sent",
    [
        (message(number, 10, 10) for number in range(100_000)),
        (message(number, SMALL, SMALL) for number in range(100_000)),
        (message(number, 1 << 19, 1 << 19) for number in range(100_000)),
        (Event(Opening(0, 1, 1), n, EventKind.FAILED, "") for n in range(100_000)),
    ],
    ids=["small", "inline", "large", "events"],
)
def test_a_sender_that_exceeds_its_credit_is_refused_before_it_fills_the_memory(
    sent: Iterator[Message | Event],
) -> None:
    """The nodes here take nothing, so that everything waits."""
    incoming = Incoming(0, 7, window=Window(100, 1 << 20), max_size=1 << 20, inline=SMALL)
    incoming.open()
    incoming.arrive(start(0), Buffer)
    with pytest.raises(FrameError, match="exceeds its credit"):
        for frame in sent:
            incoming.arrive(frame, Buffer)
    assert len(incoming.arrived) < 1300
    assert (
        sum(len(each.payload) for each in incoming.arrived if isinstance(each, Arrived)) < 4 << 20
    )


def test_a_frame_of_an_earlier_opening_is_ignored() -> None:
    incoming = Incoming(0, 7, window=Window(4, 1 << 20), max_size=1 << 30, inline=SMALL)
    incoming.open()
    incoming.open()
    incoming.arrive(start(0, opening=2), Buffer)
    incoming.arrive(message(5, 50, 50, opening=1), Buffer)
    assert not incoming.arrived
    incoming.arrive(message(0, 50, 50, opening=2), Buffer)
    assert len(incoming.arrived) == 1


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    wire = opened(Window(4, 1 << 20))
    wire.send(b"x")
    wire.pump()
    for ack in (Ack(Opening(0, 1, 9), 2, 1), Ack(Opening(0, 1, 9), 1, 1000)):
        with pytest.raises(FrameError, match="only 1 and 3 were sent"):
            wire.outgoing.acknowledge(ack)


def test_a_message_has_the_numbering_of_its_sender() -> None:
    incoming = Incoming(0, 7, window=Window(4, 1 << 20), max_size=1 << 30, inline=SMALL)
    incoming.open()
    incoming.arrive(start(7), Buffer)
    incoming.arrive(message(7, 5, 5), Buffer)
    incoming.arrive(start(0, incarnation=2), Buffer)
    incoming.arrive(message(0, 5, 5, incarnation=2), Buffer)
    numberings = [each.numbering for each in incoming.arrived if isinstance(each, Arrived)]
    assert numberings == [Numbering(1, 7), Numbering(2, 0)]


def test_a_channel_is_that_of_its_input_and_of_its_node() -> None:
    """Two outputs go to beta and one of them to gamma; each has its own queue."""
    sent = [
        ChannelOut("a/out", "beta", "x"),
        ChannelOut("b/out", "beta", "y"),
        ChannelOut("b/out", "gamma", "y"),
    ]
    config = LinkConfig("flow", "alpha", outgoing=sent[:1])
    with edge(10) as queue:
        link = FakeLink(config, 1, queue, [])
        item = {"id": "y", "ring": queue.ring.base, "blocking": False, "source": "b"}
        link.channels.make_input(item)
        link.channels.add(replace(config, outgoing=sent), 0.0)

        def names(outs: Iterator[Out]) -> list[tuple[str, str]]:
            return [(out.spec.name, out.spec.machine) for out in outs]

        channels = link.channels
        both = [("b/out", "beta"), ("b/out", "gamma")]
        assert names(channels.outs_of("x")) == names(channels.sent_from("a")) == [("a/out", "beta")]
        assert names(channels.outs_of("y")) == names(channels.sent_from("b")) == both
        assert names(channels.outs_of("z")) == names(channels.sent_from("z")) == []
        channels.remove(replace(config, outgoing=sent[:2]), 0.0)
        assert names(channels.outs_of("y")) == names(channels.sent_from("b")) == both[:1]
        channels.remove(replace(config, outgoing=[]), 0.0)
        assert names(channels.outs_of("x")) == names(channels.sent_from("a")) == []


def test_frames_of_a_channel_that_was_removed_meanwhile_change_nothing() -> None:
    links = TwoLinks(reliable=False, messages=4)
    with closing(links):
        links.settle()
        links.send(3)
        links.turn("alpha")
        beta = links.links["beta"]
        beta.channels.remove(LinkConfig("flow", "beta"), 0.0)
        links.arrive("beta", 10)
        beta.arrivals.handle_all(0.0)
        alpha = beta.channels.machines["alpha"]
        assert (alpha.problem, alpha.greeting.up) == ("", True)


def test_a_frame_of_a_channel_that_never_was_opens_all_channels_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("ERROR")  # a kept warning would keep the memory
    links = TwoLinks(reliable=False, messages=4)
    with closing(links):
        links.settle()
        beta = links.links["beta"]
        number = beta.channels.next_number
        frame = frames.encode_start(Start(Opening(number, 1, 1), 0, Numbering(1, 0)))
        links.on_the_way["beta"].append(("data", frame))
        links.arrive("beta", 1)
        beta.arrivals.handle_all(0.0)
        alpha = beta.channels.machines["alpha"]
        assert alpha.problem == f"channel {number} is not one of this machine"
        assert not alpha.greeting.up
        links.settle()
        links.send(3)
        links.settle()
        assert links.received == [[0, 1, 2]]


def test_a_new_channel_has_sent_nothing_and_its_numbers_begin_at_0() -> None:
    out = Outgoing(1, reliable=True, numbering=7, pace=Unlimited())
    assert (out.next_number, out.sent, out.repeated, out.lost, out.uncertain) == (0, 0, 0, 0, 0)
    assert (out.opened, out.wants, out.idle, out.receiver) == (False, False, True, None)
    assert (out.on_the_way, out.next_sample()) == ((0, 0), None)
    assert Mark(7, 5).lost == 0


def test_a_large_message_that_was_cut_is_sent_again_from_its_beginning() -> None:
    for reliable in (True, False):
        wire = Wire(reliable, Window(1, 1))
        wire.connect()
        payload = bytes(range(256)) * (5 << 12)
        assert wire.send(payload)
        wire.pump()
        wire.pass_one()
        wire.pass_one()
        wire.cut()
        wire.settle()
        assert wire.delivered == [payload]
        assert (wire.outgoing.sent, wire.outgoing.repeated, wire.outgoing.lost) == (1, 0, 0)


def test_large_messages_are_wanted_again_once_they_were_sent() -> None:
    wire = opened(Window(100, 64 << 20))
    for _ in range(5):
        assert wire.outgoing.wants
        wire.send(bytes(frames.MAX_BATCH))
        assert not wire.outgoing.wants
        wire.pump()
        # An event has no payload that would wait.
        wire.event("x")
        wire.pump()
    assert wire.outgoing.wants


class Recorded(Pace):
    """A pace that says what it was told, and that allows nothing while `closed`."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.calls: list[tuple[object, ...]] = []
        self.closed = False

    def open(self) -> None:
        self.calls.append(("open",))

    def allows(self, on_the_way: int, size: int, credit: int) -> bool:
        self.calls.append(("allows", on_the_way, size, credit))
        return not self.closed

    def sent(self, total: int, on_the_way: int, size: int) -> None:
        self.calls.append(("sent", total, on_the_way, size))

    def acknowledged(self, total: int, on_the_way: int) -> None:
        self.calls.append(("acknowledged", total, on_the_way))


def test_the_pace_of_a_channel_hears_of_all_that_is_sent_and_acknowledged() -> None:
    wire = Wire(False, Window(9, 1000))
    pace = Recorded()
    wire.outgoing = Outgoing(1, reliable=False, numbering=7, pace=pace)
    wire.connect()
    wire.send(b"123")
    wire.send(b"4567")
    wire.pump()
    while wire.forth:
        wire.pass_one()
    wire.handle()
    wire.acknowledge()
    # With 2 bytes of metadata each.
    assert pace.calls == [
        ("open",),
        ("allows", 0, 5, 1000),
        ("allows", 5, 6, 1000),
        ("sent", 11, 11, 11),
        ("acknowledged", 11, 0),
    ]
    pace.calls.clear()
    pace.closed = True
    wire.send(b"8")
    wire.pump()
    assert (len(wire.forth), pace.calls) == (0, [("allows", 0, 3, 1000)])
    pace.closed = False
    wire.pump()
    assert len(wire.forth) == 1


def test_a_message_waits_for_credit_or_the_pace_but_not_for_a_closed_channel() -> None:
    wire = Wire(True, Window(2, 1000))
    out = wire.outgoing
    assert not out.waits(queued=True), "not connected"
    wire.connect()
    wire.send(b"1")
    wire.pump()
    assert not out.waits(queued=True), "the next one would be taken"
    wire.send(b"2")
    wire.pump()
    assert (out.waits(queued=True), out.waits(queued=False)) == (True, False)
    wire.cut()
    assert not out.waits(queued=True)


def test_a_message_that_was_taken_waits_while_the_pace_holds_it_up() -> None:
    wire = Wire(False, Window(9, 1000))
    pace = Recorded()
    wire.outgoing = Outgoing(1, reliable=False, numbering=7, pace=pace)
    wire.connect()
    pace.closed = True
    wire.send(b"123")
    wire.pump()
    assert (wire.outgoing.waits(queued=False), wire.outgoing.bytes) == (True, 0)
    pace.closed = False
    wire.pump()
    # With 2 bytes of metadata.
    assert (wire.outgoing.waits(queued=False), wire.outgoing.bytes) == (False, 5)


def test_after_a_reconnection_only_what_is_handled_from_then_on_is_acknowledged() -> None:
    wire = Wire(True, Window(2, 1 << 20))
    wire.connect()
    for _ in range(2):
        wire.send(b"x")
    wire.pump()
    while wire.forth:
        wire.pass_one()
    incoming = wire.incoming
    assert (incoming.owes, incoming.ack_due) == (False, False)
    wire.cut()
    assert not incoming.owes
    wire.connect()
    assert (incoming.owes, incoming.ack_due) == (False, False)
    incoming.handled()
    assert (incoming.owes, incoming.ack_due) == (True, True)
    incoming.acknowledge()
    assert (incoming.owes, incoming.ack_due) == (False, False)
    incoming.handled()
    incoming.close()
    assert not incoming.owes, "the sender has disconnected"


def test_a_reconnection_does_not_acknowledge_again_what_was_acknowledged_before() -> None:
    wire = Wire(True, Window(9, 1 << 20))
    wire.connect()
    for payload in (b"first", b"second", b"x"):
        wire.send(payload)
    wire.pump()
    while wire.forth:
        wire.pass_one()
    wire.incoming.handled()
    wire.acknowledge()
    assert wire.outgoing.on_the_way == (2, 11)
    wire.cut()
    wire.connect()
    assert wire.outgoing.on_the_way == (2, 11)
    wire.incoming.handled()
    wire.acknowledge()
    assert wire.outgoing.on_the_way == (1, 3)
    wire.handle()
    wire.acknowledge()
    assert (wire.outgoing.on_the_way, wire.outgoing.idle) == ((0, 0), True)


def test_an_acknowledgement_is_due_for_each_quarter_of_the_credit_in_bytes() -> None:
    size = 1000
    wire = Wire(True, Window(1000, 40 * size))
    wire.connect()
    due = []
    for _ in range(35):
        wire.send(b"x" * (size - 2))  # and 2 bytes of metadata
        wire.pump()
        while wire.forth:
            wire.pass_one()
        wire.incoming.handled()
        due.append(wire.incoming.ack_due)
        if wire.incoming.ack_due:
            wire.outgoing.acknowledge(wire.incoming.acknowledge())
    assert [number for number, each in enumerate(due, start=1) if each] == [10, 20, 30]


def test_a_sender_may_have_twice_its_credit_and_some_events_waiting_and_no_more() -> None:
    incoming = Incoming(0, 7, window=Window(5, 1 << 20), max_size=1 << 20, inline=SMALL)
    incoming.open()
    incoming.arrive(start(0), Buffer)
    accepted = 2 * 5 + MAX_EVENTS + 1
    for number in range(accepted):
        incoming.arrive(message(number, 1, 1), Buffer)
    with pytest.raises(FrameError, match=f"exceeds its credit: {accepted} messages wait"):
        incoming.arrive(message(accepted, 1, 1), Buffer)


def test_bytes_that_wait_are_bounded_by_twice_the_credit_and_one_message() -> None:
    incoming = Incoming(0, 7, window=Window(1000, 100), max_size=1000, inline=SMALL)
    incoming.open()
    incoming.arrive(start(0), Buffer)
    for number in range(12):  # 1200 bytes are the bound, which the twelfth reaches
        incoming.arrive(message(number, 100, 100), Buffer)
    incoming.arrive(message(12, 1, 1), Buffer)
    with pytest.raises(FrameError, match="exceeds its credit"):
        incoming.arrive(message(13, 1, 1), Buffer)


def sent(count: int, *, reliable: bool, size: int = 3) -> Outgoing:
    """Return a channel that has sent messages under its first grant."""
    out = Outgoing(1, reliable=reliable, numbering=7, pace=Unlimited())
    out.open(Grant(0, 1, 50, Window(100, 1 << 30)))
    for number in range(count):
        content = Content(1, 5, size, 0, size, 0)
        out.add(number, content, b"", memoryview(bytes(size)), None)
    while out.next_sample() is not None:
        pass
    assert out.sent == count
    return out


def again(**more: int) -> Grant:
    """Return the next grant of the receiver, which has had messages of this sender."""
    return Grant(0, 2, 50, Window(100, 1 << 30), **{"sender": 1} | more)


def test_after_a_reconnection_the_receiver_says_what_it_holds() -> None:
    out = sent(3, reliable=True)
    assert out.on_the_way == (3, 9)
    out.open(again(next=3, handled=2, held=3))
    assert (out.on_the_way, out.idle) == ((1, 3), False)
    assert out.next_sample() is None, "it lacks nothing"
    out.acknowledge(Ack(Opening(0, 2, 50), 3, 3))
    assert (out.on_the_way, out.idle) == ((0, 0), True)
    # What it has handled is not sent again, even by mistake.
    out.open(again(next=0, handled=0))
    assert (out.next_sample(), out.repeated) == (None, 0)


def test_after_a_reconnection_what_the_receiver_lacks_is_repeated_or_lost() -> None:
    kept, lossy = sent(5, reliable=True), sent(5, reliable=False)
    for out in (kept, lossy):
        out.open(again(next=2, handled=1, held=3))
        while out.next_sample() is not None:
            pass
    assert (kept.sent, kept.repeated, kept.lost, kept.uncertain) == (5, 3, 0, 0)
    assert (lossy.sent, lossy.repeated, lossy.lost, lossy.uncertain) == (5, 0, 3, 0)
    other = sent(5, reliable=False)
    # Another process of the receiver: it is not known what the one before has handled.
    other.open(Grant(0, 1, 51, Window(100, 1 << 30)))
    assert (other.lost, other.uncertain) == (0, 5)


def test_large_messages_that_are_sent_again_wait_like_new_ones() -> None:
    out = sent(2, reliable=True, size=frames.MAX_BATCH)
    assert out.wants
    out.open(again())
    assert not out.wants
    while out.next_sample() is not None:
        pass
    assert out.wants
    assert out.bytes_on_the_way == 2 * frames.MAX_BATCH


def test_a_message_that_is_not_acknowledged_itself_is_sent_again() -> None:
    """The receiver has handled the one before it, and is replaced then."""
    wire = Wire(True, Window(5, 1 << 20))
    wire.connect()
    for payload in (b"a", b"b", b"c"):
        wire.send(payload)
    wire.pump()
    while wire.forth:
        wire.pass_one()
    wire.incoming.handled()
    wire.acknowledge()
    wire.incoming = wire.new_receiver()
    wire.settle()
    assert wire.delivered == [b"b", b"c"]


def test_the_next_process_of_a_link_continues_the_numbers_of_a_channel_that_has_sent_nothing() -> (
    None
):
    config = LinkConfig("flow", "alpha", outgoing=[ChannelOut("a/out", "beta", "x")])
    with edge(10) as queue:
        lacking = replace(config, outgoing=[ChannelOut("a/out", "beta", "y")])
        with pytest.raises(RuntimeError, match="the link has no input 'y'"):
            FakeLink(lacking, 1, queue, [])
        numberings = set()
        for incarnation in (1, 2):
            link = FakeLink(config, incarnation, queue, [])
            (out,) = link.channels.outs_of("x")
            numberings.add(out.channel.numbering)
            assert out.channel.next_number == 0
        assert len(numberings) == 1


def test_a_numbering_has_never_the_id_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dorad.link.channels.secrets.randbits", lambda _: 0)
    config = LinkConfig("flow", "alpha", outgoing=[ChannelOut("a/out", "beta", "x")])
    with edge(10) as queue:
        (out,) = FakeLink(config, 1, queue, []).channels.outs_of("x")
        assert out.channel.numbering == 1


@pytest.mark.parametrize("reliable", [True, False])
def test_what_was_abandoned_is_neither_sent_nor_lost_and_the_channel_can_be_opened_again(
    reliable: bool,
) -> None:
    out = sent(3, reliable=reliable)
    out.open(again(next=3, handled=2, held=3))
    assert out.on_the_way == (1, 3)
    for number in (3, 4):
        assert out.next_sample() is None
        out.add(number, Content(1, 5, 3, 0, 3, 0), b"", memoryview(b"abc"), None)
        if number == 3:
            assert out.next_sample() is not None
    out.abandon()
    assert (out.opened, out.idle, out.on_the_way, out.lost) == (False, True, (0, 0), 0)
    # The same receiver, which has forgotten the sender.
    out.open(Grant(0, 3, 50, Window(100, 1 << 30)))
    assert (out.idle, out.on_the_way, out.lost, out.uncertain) == (True, (0, 0), 0, 0)
    out.add(5, Content(1, 5, 3, 0, 3, 0), b"", memoryview(b"def"), None)
    (start,) = frames.decode(out.next_sample() or b"")
    (message,) = frames.decode(out.next_sample() or b"")
    assert start == Start(Opening(0, 3, 1), 5, Numbering(7, 5))
    assert isinstance(message, Message)
    assert (message.sequence, bytes(message.payload)) == (5, b"def")
