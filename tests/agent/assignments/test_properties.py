"""A robot under orders, reboots, cuts and failures in any order: what holds at all times."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dorad.agent.assignments.decide import decide, forgettable
from dorad.agent.assignments.model import ReleaseRecord
from dorad.agent.assignments.orders import take_order
from tests.agent.assignments.orders import SEQUENCES, UUID, health, order, plan, seen, share

GOOD = {"a" * 64, "b" * 64}
KINDS = {
    "a" * 64: "good",
    "b" * 64: "good",
    "c" * 64: "unhealthy",
    "d" * 64: "dies",
    "e" * 64: "refused",
    "f" * 64: "hangs",
}
SEQUENCES.update({release: number for number, release in enumerate(KINDS, start=1)})
TICK_S = 10.0


class Robot(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.record: ReleaseRecord | None = None
        self.generation = 0
        self.now = 1.0
        self.boots = 1
        self.busy = ""
        self.contact = True
        self.files: set[str] = set()
        self.ordered = (0, None)
        """What the daemon was ordered last: step and release."""
        self.runs: str | None = None
        self.status, self.reason = "stopped", ""
        self.failures = 0
        """How often the daemon will fail to do what is possible."""
        self.sequence = 0

    # -- what happens

    @rule(release=st.sampled_from(sorted(KINDS)), more=st.fixed_dictionaries({
        "switch": st.booleans(), "retry": st.booleans(), "allow_lower": st.booleans(),
        "enabled": st.sampled_from([True, True, True, False]),
    }))  # fmt: skip
    def ordered(self, release, more):
        self.generation += 1
        self._take(order(release, self.generation, **more))

    @precondition(lambda self: self.record is not None)
    @rule(switch=st.booleans())
    def ordered_again(self, switch):
        newest = self.record.next or self.record.order
        self._take(msgspec.structs.replace(newest, switch=switch))

    def _take(self, asked):
        new = ReleaseRecord(asked, UUID, self._boot, since=0.0)
        self.record = take_order(self.record, asked, new)

    @rule(release=st.sampled_from(sorted(KINDS)))
    def files_arrive(self, release):
        self.files.add(release)

    @rule(busy=st.booleans())
    def becomes_busy(self, busy):
        self.busy = "gripper" if busy else ""

    @rule(failures=st.integers(1, 5))
    def becomes_flaky(self, failures):
        self.failures = failures

    @rule(contact=st.booleans())
    def network(self, contact):
        self.contact = contact

    @rule()
    def reboots(self):
        """A power cut: only what was stored stays."""
        self.record = msgspec.json.decode(
            msgspec.json.encode(self.record), type=ReleaseRecord | None
        )
        self.boots += 1
        self.now = 1.0
        if self.runs is not None:
            self.status, self.reason = "pending", ""

    @rule(ticks=st.integers(1, 8))
    def time_passes(self, ticks):
        for _ in range(ticks):
            self._tick()

    # -- the world

    @property
    def _boot(self):
        return f"boot-{self.boots}"

    def _tick(self):
        self.now += TICK_S
        if self.record is None:
            return
        for _ in range(4):
            self._look()
            self._daemon()

    def _look(self):
        record = self.record
        release = record.order.release
        there = release in self.files
        ok = KINDS.get(self.runs) == "good"
        view = seen(
            self.now,
            boot=self._boot,
            release=release,
            files="staged" if there else "missing",
            plan=plan(release) if there else None,
            share=share(self.ordered[0], self.status, self.reason) if self.ordered[0] else None,
            busy=self.busy,
            contact=self.now if self.contact else None,
            health=health(healthy=ok) if self.status == "running" else None,
        )
        after = decide(record, view)
        if after.phase == "switching" and record.phase == "staged":
            assert not self.busy
            assert after.order.switch
            assert after.order.enabled
            digest = after.target.digest
            assert digest not in [each.digest for each in after.failed]
        self.record = after
        assert not forgettable(after, view)

    def _daemon(self):
        """Do what the record says, as the shares do."""
        record = self.record
        if record.step > self.ordered[0]:
            if self.status == "starting" and not record.halting:
                return  # it cannot be changed
            release = None
            if record.applied is not None and not record.halting:
                release = record.applied.revision.release
            self.ordered = (record.step, release)
            if release is None:
                self.runs, self.status, self.reason = None, "stopped", ""
            elif self.status == "running" and (KINDS[release] == "refused" or self._fails()):
                self.reason = "the new camera did not call Node()"
            else:
                self.runs, self.status, self.reason = release, "pending", ""
        elif self.status == "pending":
            outcome = {"dies": "failed", "refused": "failed", "hangs": "starting"}
            self.status = outcome.get(KINDS[self.runs], "running")
            if self.status == "running" and self._fails():
                self.status = "failed"

    def _fails(self):
        self.failures -= 1
        return self.failures >= 0

    # -- what holds

    @invariant()
    def only_good_releases_are_confirmed(self):
        if self.record is not None and self.record.confirmed is not None:
            assert self.record.confirmed.revision.release in GOOD

    @invariant()
    def the_sequence_never_falls(self):
        if self.record is not None:
            assert self.record.sequence >= self.sequence
            self.sequence = self.record.sequence

    @invariant()
    def only_the_release_that_is_tried_or_was_confirmed_runs(self):
        record = self.record
        if record is None or self.runs is None:
            return
        allowed = {each.revision.release for each in (record.applied, record.confirmed) if each}
        assert self.runs in allowed or self.ordered[0] < record.step
        if record.phase in ("confirmed", "reverted", "staged", "staging", "pending"):
            assert record.applied == record.confirmed

    @invariant()
    def the_record_can_be_stored(self):
        encoded = msgspec.json.encode(self.record)
        assert msgspec.json.decode(encoded, type=ReleaseRecord | None) == self.record

    def teardown(self):
        """Left alone for long enough, a robot runs exactly what it has confirmed."""
        self.failures = 0
        for _ in range(200):
            self._tick()
        record = self.record
        if record is None:
            return
        assert record.phase not in ("switching", "probation", "reverting", "stuck"), record
        confirmed = record.confirmed
        wanted = confirmed.revision.release if confirmed and record.order.enabled else None
        assert self.runs == wanted
        assert self.status == ("stopped" if wanted is None else "running")


Robot.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRobot = Robot.TestCase
