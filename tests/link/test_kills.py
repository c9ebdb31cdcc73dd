"""Both link processes are killed at any moment: each edge knows exactly what it has lost."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dorad.shm import layout
from tests.link.twolinks import TwoLinks

MACHINES = st.sampled_from(("alpha", "beta"))


class Kills(RuleBasedStateMachine):
    """One edge over two machines, from its first message on."""

    @initialize(reliable=st.booleans(), messages=st.integers(1, 6))
    def begin(self, reliable: bool, messages: int) -> None:
        self.reliable = reliable
        self.both = TwoLinks(reliable=reliable, messages=messages)
        # Only what comes after the first message is certain to be counted.
        self.both.send(1)
        self.both.settle()
        assert self.both.received == [[0]]
        self.alpha_killed = False
        self.joined = [0]
        """By sink: the number that was to be delivered next when it was added."""

    @rule(count=st.integers(1, 5))
    def send(self, count: int) -> None:
        self.both.send(count)

    @rule(machine=MACHINES)
    def turn(self, machine: str) -> None:
        self.both.turn(machine)

    @rule(count=st.integers(1, 3))
    def wake(self, count: int) -> None:
        self.both.wake(count)

    @rule(machine=MACHINES, count=st.integers(1, 4), asleep=st.booleans())
    def arrive(self, machine: str, count: int, asleep: bool) -> None:
        self.both.arrive(machine, count, asleep=asleep)

    @rule()
    def take(self) -> None:
        self.both.take()

    @rule()
    def cut(self) -> None:
        self.both.cut()

    @rule(machine=MACHINES, survive=st.integers(0, 4))
    def kill(self, machine: str, survive: int) -> None:
        self.both.kill(machine, survive)
        self.alpha_killed |= machine == "alpha"

    @rule()
    def kill_both(self) -> None:
        self.both.kill("alpha")
        self.both.kill("beta")
        self.alpha_killed = True

    @rule()
    @precondition(lambda self: len(self.both.sinks) < 3)
    def add_sink(self) -> None:
        self.joined.append(len(self.both.received[0]) + next(self.both.lost))
        self.both.add_sink()

    def teardown(self) -> None:
        if not hasattr(self, "both"):
            return
        both = self.both
        try:
            both.settle()
            # A loss shows when the next message comes.
            both.send(1)
            both.settle()
            assert both.source.counters.dropped == 0
            for numbers, lost, joined in zip(both.received, both.lost, self.joined, strict=True):
                assert numbers == sorted(set(numbers)), "out of order, or twice"
                assert numbers[-1] == both.sent - 1
                begin = both.sent - len(numbers) - lost
                assert joined <= begin <= numbers[0]
                if self.reliable and not self.alpha_killed:
                    assert lost == 0
            assert begin == 0 or len(both.sinks) > 1
        finally:
            both.close()


TestKills = Kills.TestCase
TestKills.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def flowing(*, reliable: bool) -> TwoLinks:
    """Return two links between which messages have flowed."""
    both = TwoLinks(reliable=reliable, messages=4)
    both.send(5)
    both.settle()
    return both


def test_what_both_processes_take_along_is_counted() -> None:
    both = flowing(reliable=True)
    try:
        both.send(4)
        both.turn("alpha")
        both.kill("alpha")
        both.kill("beta")
        both.send(2)
        both.settle()
        assert both.received == [[0, 1, 2, 3, 4, 9, 10]]
        assert [*both.lost] == [4]
    finally:
        both.close()


def test_a_reliable_channel_whose_receiver_is_killed_delivers_each_message_once() -> None:
    both = flowing(reliable=True)
    try:
        both.send(3)
        both.turn("alpha")
        both.arrive("beta", 10)
        # It has delivered them, but acknowledged nothing.
        both.links["beta"].arrivals.handle_data()
        both.kill("beta")
        both.settle()
        assert both.received == [[*range(8)]]
        assert [*both.lost] == [0]
    finally:
        both.close()


def test_a_machine_that_was_rebooted_counts_from_zero() -> None:
    both = flowing(reliable=False)
    try:
        for sink in both.sinks:
            # Its rings are new, too.
            for word in (
                layout.RING_NUMBERING,
                layout.RING_NUMBER_OFFSET,
                layout.RING_NUMBER_BEGIN,
            ):
                sink.box.words[sink.ring.base + word] = 0
        both.kill("beta")
        both.settle()
        both.send(3)
        both.settle()
        assert both.received == [[*range(8)]]
        assert [*both.lost] == [0]
    finally:
        both.close()


def test_a_mark_that_was_overwritten_is_not_believed() -> None:
    both = flowing(reliable=True)
    try:
        (sink,) = both.sinks
        for value in ((1 << 64) - 1, 1 << 63, 7):
            for word in (layout.RING_NUMBER_OFFSET, layout.RING_NUMBER_BEGIN):
                sink.box.words[sink.ring.base + word] = value
            assert 0 <= next(both.lost) < layout.COUNT_LIMIT
            both.kill("beta")
            both.send(10)
            both.settle()
            assert both.received[0][-1] == both.sent - 1
    finally:
        both.close()


@pytest.mark.parametrize("reliable", [False, True])
def test_whatever_a_node_writes_into_a_message_the_link_goes_on(reliable: bool) -> None:
    both = flowing(reliable=reliable)
    try:
        largest = (1 << 64) - 1
        for stamp, length, nulls in ((largest, 1, 0), (1, largest, 0), (1, 1, largest)):
            entry = layout.ENTRY.pack(stamp, length, nulls, 1, 0, 0, 0, 0, 0, 5, 0, 0)
            both.source.outlet.push(entry + b"7", 1, stamp)
        both.send(2)
        both.settle()
        assert both.received == [[*range(5), 7, 7, 7, 5, 6]]
        assert [*both.lost] == [0]
    finally:
        both.close()


def test_a_message_that_is_too_large_for_links_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dorad.link.process.MAX_SIZE", 10)
    both = flowing(reliable=True)
    try:
        both.source.push(b"x" * 11, b"{}")
        both.send(2)
        both.settle()
        assert both.received == [[*range(5), 5, 6]]
        assert [*both.lost] == [1]
    finally:
        both.close()
