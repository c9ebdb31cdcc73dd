"""Which robot is to have which secret, and what is sent to it: a model of a fleet."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dorad.control.messages.agent import HeldSecret, SecretsHeld
from dorafleet.coordinator.secretbook import (
    Recipient,
    Sealed,
    SecretRecord,
    lacking,
    matches,
    next_version,
    states,
    step_for,
    wanted,
)

ROBOTS = ("arm1", "arm2")
ZONES = ("hall", "lab")
TARGETS = ("*", "arm1", "arm2", "zone=hall", "zone=lab")
NAMES = ("key", "tls")


def record(target="*", version=1, *, name="key", removed=False):
    return SecretRecord(name, target, version, 0.0, "ann", removed=removed)


def recipient(robot="arm1", held=None, key="k1", **labels):
    found = None
    if held is not None:
        there = {n: HeldSecret(version=v, target=t) for n, (v, t) in held.items()}
        found = SecretsHeld(key=key, held=there)
    return Recipient(robot, labels, key, found)


def book(*records):
    return {(each.name, each.target): each for each in records}


def seal(records, robot="arm1", key="k1"):
    return {place: {robot: Sealed(each.version, key, "x")} for place, each in records.items()}


def state_of(records, sealed, of):
    ((_, name, state),) = states(records, sealed, of)
    assert name == "key"
    return state.state


@pytest.mark.parametrize(
    ("target", "expected"),
    [("*", True), ("arm1", True), ("arm2", False), ("zone=hall", True), ("zone=lab", False)],
)
def test_a_target_is_all_robots_one_or_those_with_a_label(target, expected):
    assert matches(target, "arm1", {"zone": "hall"}) == expected


def test_the_most_precise_target_counts_and_of_labels_the_one_that_was_set_last():
    records = book(record("*", 9), record("zone=hall", 3), record("gpu=yes", 4))
    found = wanted(records, recipient(zone="hall", gpu="yes"))
    assert found["key"].target == "gpu=yes"
    records |= book(record("arm1", 1))
    assert wanted(records, recipient(zone="hall"))["key"].target == "arm1"


def test_states_say_what_is_missing_and_why():
    records = book(record(version=2))
    sealed = seal(records)
    assert state_of(records, sealed, recipient(held={"key": (2, "*")})) == "held"
    assert state_of(records, sealed, recipient(held={"key": (1, "*")})) == "waiting"
    assert state_of(records, sealed, recipient()) == "waiting"
    assert state_of(records, {}, recipient(held={})) == "missing"
    assert state_of(records, sealed, recipient(held={}, key="k2")) == "missing"
    assert state_of(records, sealed, recipient(held={}, key="")) == "missing"
    assert state_of(records, sealed, recipient(held={"key": (3, "*")})) == "unknown"
    assert state_of({}, {}, recipient(held={"key": (3, "*")})) == "unknown"


def test_a_coordinator_that_was_restored_takes_nothing_away():
    records = book(record(version=1))
    newer = recipient(held={"key": (2, "*"), "other": (1, "arm1")})
    assert step_for(records, seal(records), newer) == ([], [])


def test_the_value_of_another_target_goes_although_the_new_one_is_not_sealed_for_this_robot():
    records = book(record("arm1", 3, removed=True), record("*", 2))
    of = recipient(held={"key": (1, "arm1")})
    assert step_for(records, {}, of).removes == ["key"]
    # An earlier value of its own target stays until the new one is there.
    of = recipient(held={"key": (1, "*")})
    assert step_for(records, {}, of).removes == []


def test_what_a_robot_lacks_is_known_before_its_nodes_start():
    records = book(record())
    assert lacking(records, recipient(held={}), ["key", "tls"]) == ["key", "tls"]
    assert lacking(records, recipient(held={"key": (1, "*")}), ["key", "tls"]) == ["tls"]
    assert lacking(records, recipient(), ["key", "tls"]) == ["tls"]


def test_a_new_version_is_above_all_before_also_if_the_clock_has_gone_back():
    records = book(record(version=5_000))
    assert next_version(records, "key", 2.0) == 5_001
    assert next_version(records, "key", 9.0) == 9_000
    assert next_version({}, "key", 0.0) == 0


class Fleet(RuleBasedStateMachine):
    """Operators set and remove secrets and labels; robots are away, get new keys, come back."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict = {}
        self.sealed: dict = {}
        self.zones = dict.fromkeys(ROBOTS, "hall")
        self.keys = dict.fromkeys(ROBOTS, 1)
        self.held: dict = {robot: {} for robot in ROBOTS}

    def of(self, robot):
        there = {n: HeldSecret(version=v, target=t) for n, (v, t) in self.held[robot].items()}
        key = f"{robot}-{self.keys[robot]}"
        return Recipient(robot, {"zone": self.zones[robot]}, key, SecretsHeld(key=key, held=there))

    @rule(name=st.sampled_from(NAMES), whose=st.sampled_from(TARGETS))
    def set(self, name, whose):
        target = whose
        version = next_version(self.records, name, 0.0)
        self.records[name, target] = SecretRecord(name, target, version, 0.0, "ann")
        self.sealed[name, target] = {
            robot: Sealed(version, self.of(robot).key, "x")
            for robot in ROBOTS
            if matches(target, robot, {"zone": self.zones[robot]})
        }

    @rule(name=st.sampled_from(NAMES), whose=st.sampled_from(TARGETS))
    def remove(self, name, whose):
        target = whose
        if (name, target) in self.records:
            version = next_version(self.records, name, 0.0)
            self.records[name, target] = SecretRecord(
                name, target, version, 0.0, "ann", removed=True
            )
            self.sealed.pop((name, target), None)

    @rule(robot=st.sampled_from(ROBOTS), zone=st.sampled_from(ZONES))
    def label(self, robot, zone):
        self.zones[robot] = zone

    @rule(robot=st.sampled_from(ROBOTS))
    def enrol_again(self, robot):
        self.keys[robot] += 1
        self.held[robot] = {}

    @rule(robot=st.sampled_from(ROBOTS))
    def deliver(self, robot):
        of = self.of(robot)
        step = step_for(self.records, self.sealed, of)
        for name in step.removes:
            del self.held[robot][name]
        for secret in step.puts:
            own = self.sealed[secret.name, secret.target][robot]
            # A robot is sent only what it can open, of a target that it belongs to.
            assert own.key == of.key
            assert matches(secret.target, robot, of.labels)
            self.held[robot][secret.name] = (secret.version, secret.target)
        assert step_for(self.records, self.sealed, self.of(robot)) == ([], [])
        for name, (_, target) in self.held[robot].items():
            kept = self.records[name, target]
            assert not kept.removed
            assert matches(target, robot, of.labels)
        for found, name, state in states(self.records, self.sealed, self.of(robot)):
            assert state.state in ("held", "missing")
            if state.state == "held":
                assert self.held[robot][name] == (found.version, found.target)

    @invariant()
    def every_secret_that_a_robot_is_to_have_has_one_state(self):
        for robot in ROBOTS:
            found = [name for _, name, _ in states(self.records, self.sealed, self.of(robot))]
            assert sorted(found) == sorted(wanted(self.records, self.of(robot)))


TestFleet = pytest.mark.long(Fleet.TestCase)
TestFleet.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
