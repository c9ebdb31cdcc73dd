"""What arrives from other machines reaches the queues of the nodes here, over real rings."""

import os
from select import select
from types import SimpleNamespace
from typing import Any

import pytest

from dorad.link.delivery import Delivery, NoMemory
from dorad.link.forward import ForwardedInput
from dorad.link.frames import Content, Numbering
from dorad.link.incoming import Arrived
from dorad.link.numbering import Mark
from dorad.node.correlation import session_of
from dorad.node.latching import MAX_KEPT
from dorad.shm import create, hops, layout
from dorad.shm.hoplog import HopCursor
from dorad.shm.inlet import Inlet
from dorad.shm.lane import LanedInlet
from dorad.shm.latch import LatchedInlet, LatchedOutlet
from dorad.shm.mapping import Mapping
from dorad.shm.pool import Sample
from tests.shm.edge import Edge, content, edge, read_hops

OUT = "a/out"


class Link:
    """The outputs of a link process, without the process."""

    def __init__(self, *edges: Edge, full: bool = False) -> None:
        """If the memory is `full`, no payload can be kept in it."""
        self.full = full
        self.grown: list[Mapping] = []
        self.retired: list[int] = []
        self.connection: Any = SimpleNamespace(
            outlets={}, late_outputs=set(), grow=self._grow, retire=self.retired.append
        )
        self.feed(*edges)
        self.delivery = Delivery(self.connection, 0)

    def feed(self, *edges: Edge) -> None:
        self.connection.outlets[OUT] = tuple(each.outlet for each in edges)

    def _grow(self, size: int) -> tuple[int, Mapping]:
        if self.full:
            raise OSError(28, "no space")
        memory = create.create_pool(size)
        mapping = Mapping(memory.owner)
        for descriptor in memory:
            os.close(descriptor)
        self.grown.append(mapping)
        return len(self.grown), mapping

    def push(self, number: int, payload: bytes = b"x", **more: Any) -> bool:
        memory = more.get("memory")
        made = Content(number + 1, 5, len(payload), 0, len(payload), more.get("flags", 0))
        arrived = Arrived(
            number, number, Numbering(more.get("numbering", 7), 0), made, b"", memory, payload
        )
        return self.delivery.push(OUT, arrived)


def latched(of: Edge) -> Edge:
    """Make an edge latched."""
    of.box.words[of.ring.base + layout.RING_LATCHED] = 1
    of.outlet = LatchedOutlet(of.peer, of.ring, blocking=of.blocking)
    return of


def taken(of: Edge) -> list[bytes]:
    found = []
    while (entry := of.inlet.take()) is not None:
        found.append(content(entry))
    return found


def test_every_receiver_gets_each_message_and_counts_what_is_missing_before_it() -> None:
    with edge() as one, edge() as other:
        link = Link(one, other)
        assert link.push(0, b"a")
        assert link.push(1, b"b")
        assert link.push(4, b"c")
        assert link.push(5, b"d")
        assert [taken(each) for each in (one, other)] == [[b"a", b"b", b"c", b"d"]] * 2
        assert (one.counters.lost, other.counters.lost) == (2, 2)


@pytest.mark.skipif(hops.context is None, reason="hops are not recorded here")
def test_the_trace_of_a_message_goes_on_here_if_somebody_receives_it() -> None:
    parent = b"00-0123456789abcdef0011223344556677-8899aabbccddeeff-01"
    metadata = b'{"open_telemetry_context":"traceparent:%s;"}' % parent
    with edge() as one:
        link = Link()
        link.connection.box = one.box
        item = Arrived(0, 0, Numbering(7, 0), Content(9, 5, 1, 0, 1, 0), metadata, None, b"x")
        link.delivery.record_context(OUT, item)
        assert read_hops(one.box.words, HopCursor())[0] == []
        one.outlet.output = 3
        link.feed(one)
        link.delivery.record_context(OUT, item)
        (hop,) = read_hops(one.box.words, HopCursor())[0]
        assert (hop.kind, hop.place, hop.stamp) == (layout.HOP_CONTEXT, 3, 9)


def test_a_message_that_comes_again_is_pushed_to_those_that_lack_it_only() -> None:
    with edge() as one, edge() as other:
        link = Link(one)
        link.push(0, b"a")
        link.feed(one, other)
        assert link.push(0, b"a")
        assert link.push(1, b"b")
        assert (taken(one), taken(other)) == ([b"a", b"b"], [b"b"])
        assert (one.counters.lost, other.counters.lost) == (0, 0)


def test_what_came_while_there_was_no_receiver_is_no_loss_of_the_first_one() -> None:
    with edge() as one:
        link = Link()
        link.push(0)
        link.feed(one)
        link.push(3)
        assert one.counters.lost == 2
        # Of another numbering all count.
        other = Link()
        other.push(5, numbering=8)
    with edge() as one:
        other.feed(one)
        other.push(2)
        assert one.counters.lost == 2


def test_another_numbering_begins_without_losses() -> None:
    with edge() as one:
        link = Link(one)
        link.push(5, b"a")
        link.push(6, b"b")
        before = one.counters.lost
        link.push(0, b"c", numbering=8)
        link.push(1, b"d", numbering=8)
        link.push(4, b"e", numbering=8)
        assert taken(one) == [b"a", b"b", b"c", b"d", b"e"]
        assert one.counters.lost - before == 2


def test_a_message_of_an_exchange_takes_the_lane() -> None:
    with edge(lane=True) as one:
        link = Link(one)
        link.push(0, b"a")
        link.push(1, b"b", flags=1)
        head = one.ring.base + layout.RING_HEAD
        lane = one.ring.base + layout.RING_LANE_HEAD
        assert (one.box.words[head], one.box.words[lane]) == (1, 1)


def test_an_input_with_backpressure_that_is_full_blocks_and_asks_for_its_bell() -> None:
    with edge(2, blocking=True) as one, edge(2) as other:
        link = Link(one, other)
        waiting = one.ring.base + layout.RING_WAITING
        assert not link.delivery.is_blocked(OUT)
        assert not link.delivery.is_blocked("no/output")
        link.push(0)
        assert not link.delivery.is_blocked(OUT)
        link.push(1)
        assert link.delivery.is_blocked(OUT)
        assert one.box.words[waiting] == 1
        assert other.box.words[other.ring.base + layout.RING_WAITING] == 0
        taken(one)
        assert not link.delivery.is_blocked(OUT)
        link.delivery.unblock(OUT)
        assert one.box.words[waiting] == 0


def test_a_closed_or_dropping_input_blocks_nothing() -> None:
    with edge(1) as drops, edge(1, blocking=True) as closed:
        link = Link(drops, closed)
        link.push(0)
        closed.outlet.closed = True
        assert drops.outlet.full()
        assert not link.delivery.is_blocked(OUT)
        link.delivery.unblock(OUT)
        assert drops.box.words[drops.ring.base + layout.RING_WAITING] == 0


def test_one_full_input_blocks_the_others_until_it_takes_a_message() -> None:
    with edge(1, blocking=True) as full, edge(5, blocking=True) as empty:
        link = Link(full, empty)
        link.push(0)
        assert link.delivery.is_blocked(OUT)
        assert empty.box.words[empty.ring.base + layout.RING_WAITING] == 0


class LateRoom:
    """An outlet whose consumer takes a message at the moment of the announcement."""

    blocking, closed = True, False

    def __init__(self) -> None:
        self.announced: list[bool] = []

    def full(self) -> bool:
        return not self.announced

    def announce_waiting(self, waiting: bool) -> None:
        self.announced.append(waiting)


def test_room_that_is_made_during_the_announcement_is_used() -> None:
    link, outlet = Link(), LateRoom()
    link.connection.outlets[OUT] = (outlet,)
    assert not link.delivery.is_blocked(OUT)
    assert outlet.announced == [True, False]


# -- memory


def test_without_memory_a_message_is_dropped_and_the_reason_kept() -> None:
    with edge() as one:
        link = Link(one, full=True)
        memory = link.delivery.allocate(1 << 20)
        assert isinstance(memory, NoMemory)
        assert memory.reason.startswith("a message of 1048576 bytes cannot be delivered: ")
        memory.write(0, b"abc")
        assert not link.push(0, b"", memory=memory)
        assert taken(one) == []
        # The next one shows that it is missing.
        assert link.push(1)
        assert one.counters.lost == 1


def test_a_message_that_finds_no_memory_when_it_is_pushed_is_lost_and_counted() -> None:
    with edge() as one:
        link = Link(one, full=True)
        assert not link.push(0, bytes(layout.INLINE + 1))
        assert link.push(1, b"next")
        assert (taken(one), one.counters.lost) == ([b"next"], 1)


def test_the_memory_of_a_message_that_never_became_complete_is_used_again() -> None:
    with edge() as one:
        link = Link(one)
        first: Sample | NoMemory = link.delivery.allocate(100_000)
        assert not isinstance(first, NoMemory)
        link.delivery.drop(first)
        link.delivery.drop(NoMemory("full"))
        again = link.delivery.allocate(100_000)
        assert not isinstance(again, NoMemory)
        assert (again.segment, again.offset) == (first.segment, first.offset)
        link.delivery.drop(again)


# -- late subscribers


def test_a_late_subscriber_gets_the_last_message_that_had_no_receiver() -> None:
    with edge() as one, edge() as other:
        link = Link()
        assert link.push(0, b"first")
        assert link.push(1, b"last")
        link.feed(latched(one), other)
        link.connection.late_outputs.add(OUT)
        link.delivery.catch_up(0.0)
        assert (taken(one), taken(other)) == ([b"last"], [])
        assert not link.connection.late_outputs
        link.connection.late_outputs.add(OUT)
        link.delivery.catch_up(0.0)
        assert taken(one) == [], "it has it"


def test_an_empty_message_is_kept_like_others() -> None:
    with edge() as one:
        link = Link()
        link.push(0, b"")
        link.feed(latched(one))
        link.connection.late_outputs.add(OUT)
        link.delivery.catch_up(0.0)
        assert taken(one) == [b""]


def test_a_large_message_is_not_kept_and_an_output_that_is_gone_is_skipped() -> None:
    with edge() as one:
        link = Link()
        link.push(0, b"not the last one")
        link.push(1, bytes(MAX_KEPT + 1))
        link.feed(latched(one))
        link.connection.late_outputs |= {OUT, "b/removed"}
        link.delivery.catch_up(0.0)
        assert taken(one) == []


def test_the_kept_message_is_forgotten_once_there_are_receivers() -> None:
    with edge() as one, edge() as late:
        link = Link()
        link.push(0, b"old")
        link.feed(latched(one))
        link.push(1, b"new")
        link.feed(one, latched(late))
        link.connection.late_outputs.add(OUT)
        link.delivery.catch_up(0.0)
        assert (taken(one), taken(late)) == ([b"new"], [b"new"])


def test_without_memory_a_late_message_is_not_delivered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR")  # a kept warning would keep the memory
    with edge() as one:
        link = Link(full=True)
        large = bytes(layout.INLINE + 1)
        link.push(0, large)
        link.feed(latched(one))
        link.connection.late_outputs.add(OUT)
        link.delivery.catch_up(0.0)
        assert taken(one) == []


# -- the inputs that a link takes from


def forwarded(of: Edge, **more: Any) -> ForwardedInput:
    """Return the input of a link that takes from an edge."""
    spaces = more.pop("spaces", {})
    connection: Any = SimpleNamespace(box=of.box, segments=of.segments, spaces=spaces)
    item = {"id": "x", "ring": of.ring.base, "blocking": of.blocking, "source": "a"}
    return ForwardedInput(connection, item | more)


def test_a_link_takes_messages_unchanged_and_returns_no_events() -> None:
    with edge() as one:
        item = forwarded(one)
        one.push(b"abc", b"{}", 9)
        assert item.holds()
        assert item.moved()
        message = item.take_message()
        assert message is not None
        assert message.content == Content(9, 5, 3, 0, 3, 0)
        assert (bytes(message.payload), message.metadata, message.owner) == (b"abc", b"{}", None)
        assert item.take_message() is None
        assert not item.holds()
        assert not item.moved()
        assert (item.ready(), item.take()) == (False, None)


@pytest.mark.parametrize(
    ("metadata", "flags"),
    [
        (b"", 0),
        (b"{}", 0),
        (b'{"request_id":"x"}', layout.CORRELATED),
        (b'{"goal_status":"x","flush":true}', layout.CORRELATED | layout.FLUSH),
        (b'{"flush":true}', layout.FLUSH),
        (b'{"flush":false}', 0),
        (b'{"text":"request_id"}', 0),
        (b'{"request_id"', 0),
    ],
)
def test_the_flags_of_a_message_are_those_that_its_metadata_ask_for(
    metadata: bytes, flags: int
) -> None:
    with edge() as one:
        item = forwarded(one)
        one.push(b"abc", metadata)
        message = item.take_message()
        assert message is not None
        assert (message.content.flags, message.metadata) == (flags, metadata)


def test_an_input_with_a_lane_keeps_sessions_in_order_and_one_without_has_none() -> None:
    with edge() as plain, edge(lane=True) as laned:
        assert type(forwarded(plain).inlet) is Inlet
        inlet = forwarded(laned).inlet
        assert isinstance(inlet, LanedInlet)
        assert inlet.session_of is session_of
        assert inlet.on_lost is not None
    with edge() as kept:
        assert isinstance(forwarded(latched(kept)).inlet, LatchedInlet)


def test_only_the_newest_message_of_a_latched_input_is_taken_again_for_a_new_process() -> None:
    with edge() as kept, edge() as plain:
        for of, again in ((latched(kept), [b"b"]), (plain, [])):
            item = forwarded(of)
            for payload in (b"a", b"b"):
                of.push(payload)
                assert item.take_message() is not None
            item.repeat()
            found = []
            while (message := item.take_message()) is not None:
                found.append(bytes(message.payload))
            assert found == again


def test_a_link_that_stops_or_loses_a_ring_takes_only_what_is_queued() -> None:
    for end in ("stop", "leave"):
        with edge() as one:
            item = forwarded(one)
            one.push(b"a")
            getattr(item, end)()
            one.push(b"b")
            message = item.take_message()
            assert message is not None
            assert bytes(message.payload) == b"a"
            del message
            assert item.take_message() is None
            assert item.removed == (end == "leave")


def test_nothing_is_taken_of_a_waiting_sender_before_its_bell_has_come() -> None:
    """The link is ready before the nodes that it serves are connected."""
    with edge(blocking=True) as one:
        spaces: dict[str, int] = {}
        item = forwarded(one, spaces=spaces)
        one.push(b"a")
        assert item.take_message() is None
        spaces["a"] = one.space
        one.outlet.announce_waiting(True)
        message = item.take_message()
        assert message is not None
        assert select([one.space], [], [], 0)[0], "the sender was told that there is room"
        # A source without a node has no bell.
        other = forwarded(one, source=None)
        one.push(b"b")
        assert other.take_message() is not None


def test_a_sender_that_does_not_wait_is_told_of_no_room() -> None:
    for blocking in (False, True):
        with edge(blocking=blocking) as one:
            item = forwarded(one, spaces={"a": one.space})
            one.push(b"a")
            one.outlet.announce_waiting(True)
            assert item.take_message() is not None
            assert bool(select([one.space], [], [], 0)[0]) == blocking


def test_numbers_continue_after_what_was_taken() -> None:
    with edge() as one:
        item = forwarded(one)
        item.number_from(Mark(7, 100))
        one.push(b"a")
        item.take_message()
        assert item.last_number(7, 100) == 100
        assert item.mark() == Mark(7, 101)
        one.push(b"b")
        item.take_message()
        assert item.last_number(7, 101) == 101
        # Another ring of the input was at 200 meanwhile.
        one.push(b"c")
        item.take_message()
        assert item.last_number(7, 200) == 200
        assert item.mark() == Mark(7, 201)
        one.push(b"d")
        item.take_message()
        assert item.last_number(7, 201) == 201


def test_a_ring_without_numbers_begins_with_the_lowest() -> None:
    with edge() as one:
        item = forwarded(one)
        one.push(b"a")
        item.take_message()
        assert item.mark() is None
        assert item.last_number(7, 41) == 41
        assert item.mark() == Mark(7, 42)


def test_an_idle_output_trims_its_memory_by_the_clock_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with edge() as one:
        link = Link(one)
        trims: list[int] = []
        monkeypatch.setattr(link.delivery.pool, "trim", trims.append)
        link.push(0)
        link.push(1)
        link.delivery.catch_up(2.5)
        assert trims == [2_500_000_000], "not by the stamps of messages"


def test_messages_of_an_exchange_that_were_dropped_are_in_the_log_with_the_input(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with edge(lane=True) as laned:
        inlet = forwarded(laned).inlet
        assert isinstance(inlet, LanedInlet)
        inlet.on_lost(3)
        assert "input x: 3 messages of an exchange were dropped" in caplog.text


def test_an_input_that_joins_counts_from_where_the_furthest_one_is() -> None:
    with edge() as one, edge() as behind, edge() as late:
        link = Link(one)
        link.push(0)
        link.push(1)
        link.feed(one, behind)
        link.push(2)
        link.feed(behind, one)
        link.connection.outlets[OUT] = (one.outlet,)
        link.push(3)
        # `behind` expects 3, `one` expects 4: for the one that joins now, 4 is the next.
        link.feed(behind, one, late)
        link.push(5)
        assert [each.counters.lost for each in (one, behind, late)] == [1, 2, 1]
