"""The short ways of a message through a link lead to the same state as the long ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
import zenoh
from hypothesis import given
from hypothesis import strategies as st

from dorad.link import frames
from dorad.link.direct import MAX_DIRECT
from dorad.link.frames import Content, Event, EventKind, FrameError, Numbering, Opening, Start
from dorad.link.hello import Grant, Window
from dorad.link.incoming import Arrived, Incoming
from dorad.link.outgoing import Outgoing
from dorad.link.pace import Pace
from tests.link.twolinks import TwoLinks, sample

SENDER, RECEIVER, INLINE, MAX_SIZE = 5, 6, 16, 60
WINDOW = Window(8, 400)
OPENING = Opening(0, 1, SENDER)


class Buffer:
    """Memory of a payload."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def write(self, at: int, data: Any) -> None:
        """Copy bytes to `at`."""
        self.data[at : at + len(data)] = data


def content_of(size: int) -> Content:
    return Content(1, 2, 3, 4, size, 0)


def message(opening: Opening, sequence: int, size: int, metadata: bytes) -> bytes:
    # No zeros: memory that was not written has these.
    head = frames.message_head(opening, sequence, sequence, content_of(size), metadata)
    return head + bytes(range(1, size + 1))


openings = st.sampled_from((OPENING, OPENING, OPENING, Opening(0, 1, 9), Opening(0, 2, SENDER)))
messages = st.builds(
    message, openings, st.integers(0, 12), st.integers(0, MAX_SIZE + 2), st.binary(max_size=3)
)
samples = st.one_of(
    messages,
    messages.map(lambda each: each[:-1]),
    st.lists(messages, min_size=2, max_size=3).map(b"".join),
    st.builds(frames.part_head, openings, st.integers(0, 9), st.integers(0, 9)).map(
        lambda each: each + b"x"
    ),
    st.integers(0, 12).map(
        lambda at: frames.encode_event(Event(OPENING, at, EventKind.FAILED, "why"))
    ),
    st.just(frames.encode_start(Start(OPENING, 0, Numbering(3, 0)))),
    st.binary(min_size=frames.OVERHEAD, max_size=frames.OVERHEAD + 8),
)


def started() -> Incoming:
    channel = Incoming(0, RECEIVER, WINDOW, MAX_SIZE, INLINE)
    channel.open()
    channel.arrive(Start(OPENING, 0, Numbering(3, 0)), Buffer)
    return channel


def state(channel: Incoming) -> object:
    return channel.grant, channel.received, channel.owes, channel.ack_due, len(channel.arrived)


def contents(item: Arrived | Event) -> object:
    if isinstance(item, Event):
        return item
    payload = bytes(item.memory.data) if isinstance(item.memory, Buffer) else item.payload
    return item[:5], item.memory is None, payload


def handle(channel: Incoming, data: bytes, got: list[object], *, taken: bool) -> str:
    """Handle a sample as `Arrivals` does, and what has arrived if the nodes have room for it."""
    try:
        for frame in frames.decode(data):
            channel.arrive(frame, Buffer)
    except FrameError as error:
        return str(error)
    finally:
        while taken and channel.arrived:
            got.append(contents(channel.arrived[0]))
            channel.handled()
    return ""


@given(st.lists(st.tuples(samples, st.booleans()), max_size=12))
def test_a_sample_that_is_passed_on_leaves_the_channel_as_if_it_had_been_queued(
    steps: list[tuple[bytes, bool]],
) -> None:
    short, long = started(), started()
    got: tuple[list[object], list[object]] = ([], [])
    for data, taken in steps:
        passed = short.pass_on(data, Buffer) if taken else None
        if passed is None:
            problem = handle(short, data, got[0], taken=taken)
        else:
            got[0].append(contents(passed))
            problem = ""
        assert handle(long, data, got[1], taken=taken) == problem
        assert got[0] == got[1]
        assert state(short) == state(long)
        if problem:
            return


def test_a_whole_message_that_is_next_is_passed_on_and_counts_as_handled() -> None:
    channel = started()
    for sequence, size in ((0, 0), (1, INLINE), (4, INLINE + 1), (5, MAX_SIZE)):
        passed = channel.pass_on(message(OPENING, sequence, size, b"m"), Buffer)
        assert passed is not None
        assert (passed.sequence, passed.content.size, passed.metadata) == (sequence, size, b"m")
        assert (passed.memory is None) == (size <= INLINE)
        assert channel.grant.handled == sequence + 1
    assert channel.received == 4


def test_nothing_is_passed_on_that_has_to_wait_or_be_refused() -> None:
    first = message(OPENING, 0, 4, b"")
    refused: list[tuple[Callable[[Incoming], object], bytes]] = [
        (
            lambda channel: channel.arrive(frames.decode(first)[0], Buffer),
            message(OPENING, 1, 4, b""),
        ),
        (lambda channel: channel.close(), first),
        (lambda _channel: None, message(OPENING, 0, MAX_SIZE + 1, b"")),
        (lambda _channel: None, message(Opening(0, 1, SENDER + 1), 0, 4, b"")),
        (lambda _channel: None, message(Opening(0, 2, SENDER), 0, 4, b"")),
        (lambda _channel: None, first + first),
        (lambda _channel: None, first[:-1]),
        (lambda channel: channel.pass_on(first, Buffer), first),
    ]
    for prepare, data in refused:
        channel = started()
        prepare(channel)
        assert channel.pass_on(data, Buffer) is None, data


def next_message(channel: Outgoing, number: int, size: int, metadata: bytes) -> bytes:
    """Return the frame of the next message of a channel."""
    fields = (channel.opening, channel.next_sequence, number, content_of(size), metadata)
    return frames.message_head(*fields) + bytes(size)


def sender(*, reliable: bool, window: Window) -> Outgoing:
    pace = Pace(lambda: 0.0)
    channel = Outgoing(SENDER, reliable=reliable, numbering=3, pace=pace)
    channel.open(Grant(0, 1, RECEIVER, window, None, 0, 0, 0))
    assert channel.next_sample() is None, "without a message there is nothing to start"
    return channel


@given(
    st.booleans(),
    st.lists(
        st.one_of(
            st.integers(0, 300).map(lambda size: ("send", size)),
            st.just(("ack", 0)),
            st.just(("event", 0)),
            st.just(("reopen", 0)),
        ),
        max_size=25,
    ),
)
def test_a_message_that_is_sent_directly_leaves_the_channel_as_if_it_had_been_added(
    reliable: bool, steps: list[tuple[str, int]]
) -> None:
    short, long = (sender(reliable=reliable, window=WINDOW) for _ in range(2))
    sent: tuple[list[bytes], list[bytes]] = ([], [])
    number = opened = 0
    for act, size in steps:
        for channel, put in zip((short, long), sent, strict=True):
            if act == "event":
                channel.add_event(EventKind.CLOSED)
            elif act == "ack" and channel.sent:
                channel.acknowledge(frames.Ack(Opening(0, 1 + opened, RECEIVER), channel.sent, 0))
            elif act == "reopen":
                grant = Grant(0, 2 + opened, RECEIVER, WINDOW, SENDER, channel.sent, 0, 0)
                channel.open(grant)
            elif act == "send" and channel.wants:
                if channel is short and size + 2 <= short.direct_room():
                    put.append(next_message(short, number, size, b"{}"))
                    short.add_sent(put[-1])
                else:
                    payload = memoryview(bytes(size))
                    channel.add(number, content_of(size), b"{}", payload, None)
            while (sample := channel.next_sample()) is not None:
                put.append(sample)
        number += act == "send"
        opened += act == "reopen"
        assert sent[0] == sent[1]
        assert short.on_the_way == long.on_the_way
        counters = [(each.sent, each.repeated, each.bytes, each.lost) for each in (short, long)]
        assert counters[0] == counters[1]
        assert (short.wants, short.idle) == (long.wants, long.idle)


def test_nothing_is_sent_directly_before_what_waits_or_without_credit() -> None:
    channel = Outgoing(SENDER, reliable=True, numbering=3, pace=Pace(lambda: 0.0))
    assert channel.direct_room() == 0, "it is not open"
    channel.open(Grant(0, 1, RECEIVER, Window(2, 400), None, 0, 0, 0))
    assert channel.direct_room() == 0, "the receiver has to know where it starts"
    channel.add_event(EventKind.CLOSED)
    assert channel.next_sample() is not None
    assert channel.direct_room() == 0, "an event waits"
    assert channel.next_sample() is not None
    assert channel.direct_room() == frames.MAX_FRAGMENT
    channel.add_sent(next_message(channel, 0, 300, b""))
    assert channel.direct_room() == 0, "both messages of the window are on the way"
    channel.acknowledge(frames.Ack(OPENING._replace(incarnation=RECEIVER), 1, 0))
    assert channel.direct_room() == 100


@pytest.mark.parametrize(
    ("sent", "limit", "room"),
    [(0, 0, frames.MAX_FRAGMENT), (300, 301, 100), (300, 300, 0), (300, 299, 0), (400, 999, 0)],
)
def test_a_direct_message_keeps_to_the_credit_and_the_pace_unless_nothing_is_on_the_way(
    sent: int, limit: int, room: int
) -> None:
    pace = Pace(lambda: 0.0)
    channel = Outgoing(SENDER, reliable=False, numbering=3, pace=pace)
    channel.open(Grant(0, 1, RECEIVER, Window(9, 400), None, 0, 0, 0))
    channel.add_event(EventKind.CLOSED)
    while channel.next_sample() is not None:
        pass
    if sent:
        channel.add_sent(next_message(channel, 0, sent, b""))
    pace.limit = limit
    assert channel.direct_room() == room


def test_a_message_that_ends_a_sleep_is_sent_at_once_and_delivered_without_being_queued() -> None:
    with closing(flowing(messages=4)) as links:
        links.wake(1)
        assert [kind for kind, _ in links.on_the_way["beta"]] == ["data"]
        links.arrive("beta", 1, asleep=True)
        links.take()
        assert not links.links["beta"].session.data
        assert links.received == [[0, 1]]


def test_of_several_messages_the_first_is_sent_at_once_and_the_others_by_the_next_turn() -> None:
    with closing(flowing(messages=4)) as links:
        links.wake(3)
        assert len(links.on_the_way["beta"]) == 1
        links.turn("alpha")
        assert len(links.on_the_way["beta"]) == 2, "small messages travel together"
        links.settle()
        assert links.received == [[0, 1, 2, 3]]


def test_without_credit_nothing_is_taken_after_a_sleep() -> None:
    with closing(flowing(messages=2)) as links:
        for _ in range(3):
            links.wake(1)
        assert len(links.on_the_way["beta"]) == 2
        assert links.source.counters.queued == 1
        links.settle()
        assert links.received == [[0, 1, 2, 3]]


def test_nothing_is_delivered_at_once_that_is_too_large_or_not_of_that_machine() -> None:
    with closing(flowing(messages=4)) as links:
        links.wake(1)
        beta = links.links["beta"]
        frame = links.on_the_way["beta"][0][1]
        wrong = [("gamma", frame), ("alpha", bytes(MAX_DIRECT + 1)), ("alpha", b"short")]
        for machine, data in wrong:
            beta.sleep.working.release()
            beta.direct(machine).take(sample(zenoh.ZBytes(data)))
            beta.sleep.working.acquire()
            links.take()
            assert links.received == [[0]]
            assert beta.session.data.pop().payload.to_bytes() == data
        links.settle()
        assert links.received == [[0, 1]]


def flowing(messages: int) -> TwoLinks:
    """Return two links between which a message has flowed; `messages` is the credit."""
    links = TwoLinks(reliable=True, messages=messages)
    links.send(1)
    links.settle()
    return links
