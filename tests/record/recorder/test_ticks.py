"""Which ticks of timers are recorded, and which events keep an incident."""

from hypothesis import given
from hypothesis import strategies as st

from dorad.record.recorder.session import MAX_DUE, MAX_KNOWN, MIN_INTERVAL_NS, Ticks, Triggers

SECOND = 1_000_000_000


@given(
    interval=st.integers(MIN_INTERVAL_NS, 10 * SECOND),
    epoch=st.integers(0, 10**12),
    joined=st.integers(0, 10 * SECOND),
    steps=st.lists(st.integers(0, SECOND // 10), max_size=20),
)
def test_every_tick_since_the_start_is_recorded_once_at_its_time(interval, epoch, joined, steps):
    now = epoch + joined
    ticks = Ticks({"a/tick": interval}, epoch, now)
    found = []
    for step in steps:
        now += step
        found += ticks.due(now, 5)
    first = -(-joined // interval)
    wanted = range(first, (now - epoch) // interval + 1) if steps else range(0)
    assert [each.sequence for each in found] == list(wanted)
    assert [each.stamp for each in found] == [epoch + n * interval + 5 for n in wanted]
    assert {each.topic for each in found} <= {"dora/tick/a/tick"}


def test_a_machine_that_slept_does_not_get_all_ticks_at_once():
    ticks = Ticks({"a/tick": MIN_INTERVAL_NS}, 0, 0)
    found = list(ticks.due(3600 * SECOND, 0))
    assert len(found) == MAX_DUE
    assert found[-1].stamp == 3600 * SECOND
    assert list(ticks.due(3600 * SECOND, 0)) == []


def test_timers_that_are_too_fast_are_left_out():
    ticks = Ticks({"a/fast": 1, "a/slow": SECOND}, 0, 0)
    assert [each.topic for each in ticks.due(SECOND, 0)] == ["dora/tick/a/slow"] * 2


FAILED = {"node": "arm", "text": "exited with code 3"}


def test_failures_and_broken_inputs_ask_for_an_incident_and_other_events_do_not():
    made = Triggers()
    assert made.mark("node-failed", FAILED, SECOND).note == "node arm: exited with code 3"
    assert made.mark("input-broken", FAILED, SECOND).source == "input-broken"
    assert made.mark("node-restarting", {**FAILED, "failed": True}, SECOND) is not None
    for what, value in (
        ("node-restarting", {**FAILED, "node": "leg", "failed": False}),
        ("node-restarting", {**FAILED, "node": "leg"}),
        ("node-exited", FAILED),
        ("input-recovered", FAILED),
        ("param-changed", {}),
    ):
        assert made.mark(what, value, SECOND) is None


def test_a_node_that_crashes_again_and_again_makes_one_incident_at_a_time():
    made = Triggers()
    value = {**FAILED, "failed": True}
    marks = [made.mark("node-restarting", value, second * SECOND) for second in range(1, 60)]
    assert [second for second, mark in enumerate(marks, 1) if mark is not None] == [1, 22, 43]
    assert made.mark("node-restarting", {**value, "node": "leg"}, 2 * SECOND) is not None
    # The clock was set back by an hour: what happens now is worth an incident.
    assert made.mark("node-restarting", value, -3600 * SECOND) is not None


def test_the_nodes_that_are_remembered_are_bounded():
    """A stranger may name as many as it likes; a node may make another incident then."""
    made = Triggers()
    assert made.mark("node-failed", FAILED, SECOND) is not None
    for number in range(MAX_KNOWN - 1):
        made.mark("node-failed", {**FAILED, "node": f"n{number}"}, SECOND)
    assert made.mark("node-failed", FAILED, SECOND) is None
    made.mark("node-failed", {**FAILED, "node": "one more"}, SECOND)
    assert made.mark("node-failed", FAILED, SECOND) is not None
