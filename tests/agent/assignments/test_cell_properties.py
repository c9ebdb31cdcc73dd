"""Machines of one group under loss, delay, cuts and power cuts in any order: what always holds."""

from __future__ import annotations

import itertools
from copy import deepcopy
from functools import cache

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dorad.agent.assignments.model import ReleaseRecord
from tests.agent.assignments.simcell import KINDS, NAMES, SimCell

names = st.sampled_from(NAMES)
A, B, C, D, E = KINDS


class Cell(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.cell = SimCell()
        self.coordinator = self.cell.coordinator

    # -- what happens

    @rule(release=st.sampled_from([*KINDS]))
    def rolls_out(self, release):
        self.coordinator.roll_out(release)

    @precondition(lambda self: self.coordinator.generation)
    @rule(name=names, lost=st.booleans())
    def sends(self, name, lost):
        self.coordinator.send(name, lost=lost)

    @precondition(lambda self: self.coordinator.generation)
    @rule()
    def sends_to_all(self):
        for name in NAMES:
            self.coordinator.send(name)

    @precondition(lambda self: self.coordinator.late)
    @rule(data=st.data())
    def a_late_order_arrives(self, data):
        number = data.draw(st.integers(0, len(self.coordinator.late) - 1))
        self.coordinator.deliver(*self.coordinator.late[number])

    @precondition(lambda self: self.coordinator.open and self.coordinator.votes())
    @rule()
    def commits(self):
        self.coordinator.commit()

    @precondition(lambda self: self.coordinator.open)
    @rule()
    def aborts(self):
        self.coordinator.abort()

    @precondition(lambda self: not self.coordinator.open and len(self.coordinator.committed) > 1)
    @rule()
    def undoes(self):
        self.coordinator.undo()

    @rule()
    def another_coordinator_takes_over(self):
        self.coordinator.epoch += 1

    @rule(name=names, up=st.booleans())
    def network(self, name, up):
        self.cell.members[name].up = up

    @rule(name=names)
    def loses_power(self, name):
        self.cell.members[name].cut_power()

    @rule(ticks=st.integers(1, 8))
    def time_passes(self, ticks):
        for _ in range(ticks):
            self.cell.tick()

    @rule(seconds=st.integers(300, 700))
    def much_time_passes(self, seconds):
        self.cell.wait(seconds)

    @rule(release=st.sampled_from([*KINDS]))
    def a_rollout_succeeds(self, release):
        self.rolls_out(release)
        self.sends_to_all()
        self.time_passes(6)
        if self.coordinator.votes():
            self.coordinator.commit()

    # -- what holds

    @invariant()
    def a_machine_confirms_only_what_the_coordinator_has_committed(self):
        # `SimMember.act` checks each step, also that none goes back to what is rejected.
        for member in self.cell.members.values():
            assert {*member.confirmed} <= {"a" * 64, "b" * 64, "e" * 64}

    @invariant()
    def each_record_can_be_stored(self):
        for member in self.cell.members.values():
            stored = msgspec.json.decode(member.disk, type=ReleaseRecord | None)
            assert stored == member.record

    def teardown(self):
        """With a whole network, all run what was committed last."""
        self.cell.settle()
        states = {name: each.state() for name, each in self.cell.members.items()}
        assert self.cell.settled, states
        for member in self.cell.members.values():
            assert member.runs == (self.coordinator.release or "")


Cell.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestCell = pytest.mark.long(Cell.TestCase)


@cache
def in_probation():
    """Return a cell that has committed A, and tries B; every machine is healthy."""
    cell = SimCell()
    for release in (A, B):
        cell.coordinator.roll_out(release)
        for name in NAMES:
            cell.coordinator.send(name)
        for _ in range(10):
            cell.tick()
        assert cell.coordinator.votes()
        if release == A:
            cell.coordinator.commit()
            for name in NAMES:
                cell.coordinator.send(name)
            cell.tick()
    return cell


EVENTS = ("tell r1", "tell r2", "power r1", "power r2", "cut r1", "heal r1", "wait", "wait long")


@pytest.mark.parametrize("decision", ["commit", "abort"])
@pytest.mark.parametrize("first", EVENTS)
def test_after_a_decision_all_follow_it_whatever_comes_between(decision, first):
    for others in itertools.product(EVENTS, repeat=2):
        cell = deepcopy(in_probation())
        getattr(cell.coordinator, decision)()
        for event in (first, *others):
            verb, _, name = event.partition(" ")
            match verb:
                case "tell":
                    cell.coordinator.send(name)
                case "power":
                    cell.members[name].cut_power()
                case "cut" | "heal":
                    cell.members[name].up = verb == "heal"
                case "wait":
                    cell.wait(700 if name else 10)
        cell.settle()
        wanted = B if decision == "commit" else A
        found = {name: (each.state().phase, each.runs) for name, each in cell.members.items()}
        assert found == dict.fromkeys(NAMES, ("confirmed", wanted)), (first, *others)
