"""What each decision about a release changes in its record: these fields, and no others."""

import pytest
from msgspec.structs import replace

from dorad.agent.assignments.decide import decide, forgettable, state_of
from dorad.agent.assignments.model import Applied, Baseline, Down, Failed, Plan, Revision
from dorad.agent.assignments.switch import REVERT_RETRY_S
from dorad.control.messages.releases import Evidence
from tests.agent.assignments.orders import A, B, C, health, order, record, seen, share
from tests.agent.assignments.test_decide import confirmed, on_probation, taken

DEAD = Down(
    failed={"arm": "has failed: it was killed"},
    ended={"log": "has ended: its inputs closed", "gone": "has ended: it was stopped"},
    finished=["once"],
)
LEFT = [Evidence(check="of the last switch", ok=False, text="off")]


def changes(before, after):
    """Return the fields of a record that differ, with their new values."""
    names = before.__struct_fields__
    return {n: getattr(after, n) for n in names if getattr(after, n) != getattr(before, n)}


def used(present):
    """Return a record that holds something of an earlier switch everywhere."""
    return replace(
        present, boot="boot-0", switched=-1.0, tries=2, retry_at=3.0, contact=True, healthy_at=1.0,
        voted=Baseline(), busy_since=1.0, evidence=LEFT, restarted=["x"], reason="x",
        waiting="switch", soaks_since=1.0, switched_sequence=9,
    )  # fmt: skip


def test_a_switch_begins_with_nothing_of_the_one_before():
    rates = {"camera/image": 1.0}
    before = used(record(baseline=Baseline(rates=rates, nodes=["camera", "once"])))
    nodes = dict.fromkeys(("camera", "arm", "log", "once"), A)
    after = decide(
        before, seen(5, notices=["old"], down=DEAD, plan=Plan(nodes, ["log", "camera"], 7))
    )
    assert changes(before, after) == {
        "phase": "switching", "since": 1e9 + 5, "reason": "", "waiting": "",
        "boot": "boot-1", "switched": 5, "tries": 0, "contact": False, "healthy_at": None,
        "voted": None, "busy_since": None, "evidence": [], "switched_sequence": 7,
        # What is new, and what has died of what the release has.
        "restarted": ["arm", "camera", "log"],
        "baseline": Baseline(rates=rates, nodes=["camera"], notices=["old"]),
        "applied": Applied(Revision(A), nodes), "step": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "halting"),
    [("starting", True), ("ready", True), ("running", False), ("failed", False), (None, False)],
)
def test_only_a_dataflow_that_has_not_started_completely_is_stopped_before_a_change(
    status, halting
):
    found = None if status is None else share(1, status)
    present = decide(taken(confirmed(), order(B, 2)), seen(100, release=B, share=found))
    assert (present.phase, present.halting, present.step) == ("switching", halting, 2)


def test_nothing_is_switched_while_the_daemon_stops_the_dataflow():
    before = taken(confirmed(), order(B, 2))
    after = decide(before, seen(100, release=B, share=share(1, "stopping")))
    reason = "the daemon cannot be asked, or stops the dataflow"
    assert changes(before, after) == {
        "phase": "staged", "since": 1e9 + 100, "reason": reason, "waiting": "switch",
    }  # fmt: skip
    assert changes(before, decide(before, seen(100, release=B, notices=None))) == {
        "phase": "staged", "since": 1e9 + 100, "reason": reason, "waiting": "switch",
    }  # fmt: skip


def busy(present, now, what, **more):
    return decide(present, seen(now, release=B, share=share(), busy=what, **more))


def test_the_time_of_being_busy_counts_from_its_begin_in_each_boot():
    before = taken(confirmed(), order(B, 2, busy_max=60))
    before = replace(before, boot="boot-0")
    first = busy(before, 100, "holds a cup")
    assert changes(before, first) == {
        "phase": "staged", "since": 1e9 + 100, "reason": "holds a cup", "waiting": "busy",
        "boot": "boot-1", "busy_since": 100,
    }  # fmt: skip
    assert busy(first, 130, "holds a cup") == first
    assert changes(first, busy(first, 159.9, "holds a pan")) == {"reason": "holds a pan"}
    over = busy(first, 160, "holds a cup")
    assert changes(first, over) == {"reason": "still busy after 60 s: holds a cup", "gave_up": True}
    # It has given up: whatever is seen now.
    for what in ("", "x", None):
        assert busy(over, 170, what) == over
    assert changes(first, busy(first, 3, "holds a cup", boot="boot-2")) == {
        "boot": "boot-2", "busy_since": 3,
    }  # fmt: skip
    # The answer comes with the next observation.
    assert busy(first, 500, None) == first
    ignoring = taken(confirmed(), order(B, 2, busy="ignore"))
    assert {busy(ignoring, 100, what).phase for what in ("", "x", None)} == {"switching"}


@pytest.mark.parametrize(
    ("arm", "what", "waiting"),
    [(5.0, "x", "busy"), (5.0, "", "switch"), (0.0, "x", "switch"), (5.0, None, "switch")],
)
def test_an_armed_release_says_that_it_waits_for_the_robot(arm, what, waiting):
    before = taken(confirmed(), order(B, 2, switch=False, arm=arm))
    after = busy(before, 100, what)
    assert changes(before, after) == {
        "phase": "staged", "since": 1e9 + 100, "waiting": waiting,
        **({"reason": what} if what else {}),
    }  # fmt: skip


# -- stopped, and running again


def test_a_dataflow_that_is_ordered_not_to_run_is_stopped_once():
    for asked, more in (
        (order(None, 2), {}),
        (order(A, 2, enabled=False), {"phase": "confirmed", "reason": "the dataflow is disabled"}),
    ):
        before = replace(taken(confirmed(), asked), boot="boot-0")
        after = decide(before, seen(50, share=share()))
        since = {"since": 1e9 + 50} if more else {}
        assert changes(before, after) == {
            "step": 2, "halting": True, "switched": 50, "boot": "boot-1", **more, **since,
        }  # fmt: skip
        assert decide(after, seen(60, share=share(2))) == after
        # Nothing runs here: there is nothing to stop.
        unused = taken(record(order(A, switch=False)), asked)
        assert decide(unused, seen(50)).halting is False


def stopped(**more):
    """Return the record of a robot whose dataflow was stopped at second 100, for a minute."""
    present = taken(confirmed(), order(A, 2, enabled=False, resume_after=60, **more))
    present = decide(present, seen(100, share=share()))
    assert (present.phase, present.halting, present.step) == ("confirmed", True, 2)
    return present


@pytest.mark.parametrize(
    ("contact", "boot", "due"),
    [
        (None, "boot-1", 160),
        (50, "boot-1", 160),
        (120, "boot-1", 180),
        # The stop was by another clock.
        (None, "boot-2", 60),
        (20, "boot-2", 80),
    ],
)
def test_a_machine_that_hears_nothing_runs_its_part_again(contact, boot, due):
    present = stopped()

    def at(now, status="stopped"):
        return decide(present, seen(now, boot=boot, share=share(2, status), contact=contact))

    assert at(due - 0.1) == present
    assert changes(present, at(due)) == {"halting": False, "step": 3}
    # Not before it has stopped.
    assert at(due, "stopping") == present


def test_a_machine_that_runs_its_part_again_stops_it_when_it_hears_something():
    present = decide(stopped(), seen(160, share=share(2, "stopped")))
    running = share(3)
    assert decide(present, seen(170, share=running)) == present
    again = decide(present, seen(171, share=running, contact=171))
    assert changes(present, again) == {"halting": True, "step": 4, "switched": 171}


def test_a_time_to_resume_may_be_a_second():
    present = taken(confirmed(), order(A, 2, enabled=False, resume_after=1.0))
    present = decide(present, seen(100, share=share()))
    assert decide(present, seen(101, share=share(2, "stopped"))).step == 3


def test_without_a_time_to_resume_a_stopped_dataflow_stays_stopped():
    present = taken(confirmed(), order(A, 2, enabled=False))
    present = decide(present, seen(100, share=share()))
    assert decide(present, seen(1e6, share=share(2, "stopped"))) == present


@pytest.mark.parametrize(
    ("found", "forgotten"),
    [
        (None, True),
        (share(2, "stopped"), True),
        (share(2, "running"), False),
        (share(1, "stopped"), False),
        (share(1, "running"), False),
    ],
)
def test_a_removed_release_is_forgotten_once_its_last_run_has_ended(found, forgotten):
    present = decide(taken(confirmed(), order(None, 2)), seen(100, share=share()))
    assert forgettable(present, seen(101, share=found)) == forgotten
    assert not forgettable(confirmed(), seen(101, share=found))


# -- another order during a switch


def test_an_order_for_what_is_confirmed_takes_the_place_of_the_present_one():
    before = used(taken(on_probation(), order(A, 3)))
    after = decide(before, seen(102, share=share(2), health=health(), contact=102))
    assert changes(before, after) == {
        "order": order(A, 3), "next": None, "phase": "reverting", "since": 1e9 + 102,
        "reason": "another order has arrived", "waiting": "", "boot": "boot-1", "switched": 102,
        "tries": 0, "retry_at": 0.0, "soaks_since": None, "voted": None,
        "applied": before.confirmed, "step": 3,
    }  # fmt: skip


# -- the steps of a switch


def test_a_switch_in_another_boot_begins_again():
    present = decide(taken(confirmed(), order(B, 2)), seen(100, release=B, share=share()))
    after = decide(present, seen(7, boot="boot-2", share=share(2, "starting")))
    assert changes(present, after) == {
        "boot": "boot-2", "switched": 7, "tries": 1, "reason": "the dataflow is starting",
    }  # fmt: skip
    runs = decide(after, seen(9, boot="boot-2", share=share(2)))
    assert changes(after, runs) == {
        "tries": 0, "phase": "probation", "since": 1e9 + 9, "reason": "",
    }  # fmt: skip


def test_a_switch_goes_on_once_the_old_dataflow_has_stopped():
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share(1, "starting")))
    after = decide(present, seen(101, share=share(2, "stopped")))
    assert changes(present, after) == {
        "halting": False, "step": 3, "reason": "the daemon has not begun",
    }  # fmt: skip


def test_a_restart_on_probation_is_counted():
    before = replace(on_probation(), healthy_at=110.0)
    after = decide(before, seen(7, boot="boot-2", share=share(2), health=health()))
    assert changes(before, after) == {
        "boot": "boot-2", "switched": 7, "tries": 1, "healthy_at": None,
    }  # fmt: skip


def test_each_look_at_the_health_is_kept_and_the_first_good_one_dated():
    present = on_probation()
    bad, good = health(healthy=False), health()
    ill = decide(present, seen(110, share=share(2), health=bad))
    assert changes(present, ill) == {"evidence": bad.evidence}
    well = decide(ill, seen(120, share=share(2), health=good))
    assert changes(ill, well) == {
        "evidence": good.evidence, "healthy_at": 120,
        "reason": "it waits for contact to the coordinator",
    }  # fmt: skip
    assert decide(well, seen(130, share=share(2), health=good)) == well
    # The daemon was not asked: that says nothing about the health.
    assert changes(well, decide(well, seen(130, share=share(2)))) == {"reason": ""}


@pytest.mark.parametrize(("soak_time", "soaks_since"), [(0, None), (60, 140)])
def test_a_confirmation_stores_what_the_next_release_is_compared_with(soak_time, soaks_since):
    present = on_probation(soak_time=soak_time)
    found = replace(health(), misses={"camera": 0.5}, settled=["camera/image"])
    after = decide(present, seen(140, share=share(2), health=found, contact=140))
    assert changes(present, after) == {
        "phase": "confirmed", "since": 1e9 + 140, "evidence": found.evidence,
        "confirmed": present.applied, "former": present.confirmed, "previous": Revision(A),
        "sequence": 2, "baseline": Baseline(
            rates=found.rates, nodes=["camera"], misses={"camera": 0.5}, settled=["camera/image"]
        ),
        **({} if soaks_since is None else {"soaks_since": soaks_since}),
        "first": False,
    }  # fmt: skip


def test_a_lower_release_that_was_allowed_does_not_lower_the_sequence():
    present = taken(confirmed(C), order(B, 2, allow_lower=True))
    present = decide(present, seen(100, release=B, share=share()))
    present = decide(present, seen(101, share=share(2)))
    present = decide(present, seen(140, share=share(2), health=health()))
    assert (present.phase, present.sequence, present.switched_sequence) == ("confirmed", 3, 2)


def test_a_failure_is_remembered_once_for_each_revision_with_its_last_reason():
    before = used(on_probation())
    known = [Failed(Revision(B).digest, "first"), Failed(Revision(C).digest, "other")]
    before = replace(before, boot="boot-1", failed=known)
    after = decide(before, seen(102, share=share(2, "failed", "y" * 2000)))
    text = f"the dataflow has failed: {'y' * 2000}"
    assert changes(before, after) == {
        "failed": [before.failed[1], Failed(Revision(B).digest, text[:1000])],
        "phase": "reverting", "since": 1e9 + 102, "reason": text, "waiting": "", "switched": 102,
        "tries": 0, "retry_at": 0.0, "soaks_since": None, "voted": None,
        "applied": before.confirmed, "step": 3,
    }  # fmt: skip


def test_what_stays_as_ordered_is_stuck_from_then_on():
    before = on_probation(auto_revert=False)
    after = decide(before, seen(402, share=share(2, "failed", "crashed")))
    reason = "the dataflow has failed: crashed"
    assert changes(before, after) == {
        "failed": [Failed(Revision(B).digest, reason)], "switched": 402, "phase": "stuck",
        "since": 1e9 + 402, "reason": f"{reason}; it stays, as ordered",
    }  # fmt: skip
    # While it switches there is nothing that could stay.
    switching = decide(
        taken(confirmed(), order(B, 2, auto_revert=False)), seen(100, release=B, share=share())
    )
    assert decide(switching, seen(101, share=share(2, "failed", "crashed"))).phase == "reverting"


# -- the steps of a return


def returning():
    """Return the record of a robot that returns to A since second 102, and its step."""
    present = decide(on_probation(), seen(102, share=share(2, "failed", "crashed")))
    assert (present.phase, present.step, present.switched) == ("reverting", 3, 102)
    return present


def test_a_return_in_another_boot_begins_again():
    before = replace(returning(), tries=2, retry_at=110.0)
    after = decide(before, seen(7, boot="boot-2", share=share(3, "starting")))
    assert changes(before, after) == {
        "boot": "boot-2", "switched": 7, "tries": 0, "retry_at": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tries", "status", "halting"),
    [(0, "running", False), (2, "running", True), (2, "failed", False), (5, "running", True)],
)
def test_a_return_that_fails_is_ordered_again_after_a_pause(tries, status, halting):
    before = replace(returning(), tries=tries, retry_at=110.0)
    found = share(3, status, "no disk")
    assert decide(before, seen(109.9, share=found)) == before
    after = decide(before, seen(110, share=found))
    assert changes(before, after) == {
        "tries": tries + 1, "retry_at": 110 + REVERT_RETRY_S, "step": 4,
        **({"halting": True} if halting else {}),
    }  # fmt: skip


def test_a_return_that_does_not_come_in_time_is_stuck_and_says_why():
    before = returning()
    late = before.switched + before.order.rules.healthy_deadline
    for found, reason in (
        (None, "the daemon has not begun"),
        (share(2), "the daemon has not begun"),
        (share(3, "starting"), "the dataflow is starting"),
        (share(3, "starting", "no camera yet"), "no camera yet"),
    ):
        assert decide(before, seen(late - 0.1, share=found)) == before
        after = decide(before, seen(late, share=found))
        assert changes(before, after) == {
            "phase": "stuck", "since": 1e9 + late,
            "reason": f"cannot go back: {reason}; before that: {before.reason}",
        }  # fmt: skip
    stopping = replace(before, halting=True)
    after = decide(stopping, seen(late, share=share(2)))
    assert after.reason.startswith("cannot go back: the dataflow does not stop; ")
    # What has stopped is started at once.
    done = decide(stopping, seen(103, share=share(3, "stopped")))
    assert changes(stopping, done) == {"halting": False, "step": 4}


def test_a_robot_that_goes_back_two_releases_measures_their_rates_again():
    twice = decide(on_probation(), seen(140, share=share(2), health=health(), contact=140))
    nodes = {"camera": A, "once": A, "arm": A}
    before = replace(
        twice, soaks_since=140.0, former=Applied(Revision(A), nodes), previous=Revision(A),
        confirmed=Applied(Revision(B), {"camera": B, "once": B}),
        baseline=Baseline(nodes=["camera", "once"], notices=["old"], rates={"x/y": 1.0}),
    )  # fmt: skip
    before = replace(before, applied=before.confirmed)
    down = Down(failed={"camera": "has failed: it was killed"}, finished=["once"])
    after = decide(before, seen(150, share=share(2), down=down))
    reason = "failed after its confirmation: node camera has failed: it was killed"
    assert changes(before, after) == {
        "phase": "reverting", "since": 1e9 + 150, "reason": reason,
        "failed": [Failed(Revision(B).digest, reason)],
        "switched": 150, "soaks_since": None, "confirmed": before.former, "former": None,
        "previous": None, "applied": before.former, "step": 3,
        # `once` had finished, `arm` is new again.
        "baseline": Baseline(nodes=["camera", "arm"], notices=["old"]),
    }  # fmt: skip


# -- what is reported


def test_every_field_of_the_report_is_that_of_the_record():
    present = used(on_probation(rollout="r-1"))
    found = seen(103, share=share(2), leases=[], armed=True, down=DEAD, health=health())
    state = state_of(present, found, {B: "of B", C: "of C"})
    assert changes(state_of(record(order(None, 2)), None, {}), state) == {
        "phase": "probation", "since": present.since, "release": B, "running": B, "confirmed": A,
        "sequence": 1, "rollout": "r-1", "reason": "x", "waiting": "switch", "evidence": LEFT,
        "restarted": ["x"], "failed": DEAD.failed, "ended": DEAD.ended, "damaged": {B: "of B"},
    }  # fmt: skip
    staged = replace(present, phase="staged", refused=True, previous=Revision(C))
    state = state_of(staged, found, {})
    assert (state.armed, state.refused, state.previous) == (True, True, C)
    assert not state_of(staged, None, {}).armed
    assert not state_of(staged, replace(found, armed=False), {}).armed
    for status, running in (("running", B), ("starting", B), ("stopped", ""), ("failed", "")):
        assert state_of(present, seen(103, share=share(2, status)), {}).running == running
    assert state_of(replace(present, halting=True), None, {}).running == ""


# -- orders


def test_an_order_that_lets_a_robot_switch_asks_it_again_whether_it_is_busy():
    waiting = replace(record(order(switch=False)), busy_since=5.0, gave_up=True)
    after = taken(waiting, order())
    assert changes(waiting, after) == {"order": order(), "busy_since": None, "gave_up": False}
    waiting = replace(record(order()), busy_since=5.0, gave_up=True)
    for again in (order(rollout="r-2"), order(switch=False)):
        assert changes(waiting, taken(waiting, again)) == {"order": again}


@pytest.mark.parametrize("phase", ["pending", "staged", "confirmed", "reverted", "stuck"])
def test_only_what_has_ended_in_a_failure_is_tried_again(phase):
    failed = [Failed(Revision(A).digest, "bad"), Failed(Revision(B).digest, "other")]
    before = replace(record(order(), phase=phase), failed=failed, reason="x")
    again = order(retry=True)
    ended = {"phase": "pending", "reason": "", "failed": failed[1:]}
    expected = {"order": again} | (ended if phase in ("reverted", "stuck") else {})
    assert changes(before, taken(before, again)) == expected
    # It was ordered to be tried already.
    tried = replace(before, order=again)
    assert changes(tried, taken(tried, order(retry=True, rollout="r-2"))) == {
        "order": order(retry=True, rollout="r-2")
    }


def test_what_was_committed_stays_so_under_its_number():
    before = record(order(committed=True))
    assert taken(before, order()).order.committed
    assert not taken(before, order(generation=2)).order.committed
    assert taken(record(order()), order(committed=True)).order.committed


@pytest.mark.parametrize(
    ("asked", "reason", "continues"),
    [
        (order(A, 2, switch=False), "", True),
        (order(A, 2, switch=False), "a node has failed", False),
        (order(A, 2), "", False),
        (order(A, 2, stay=True), "a node has failed", True),
        (order(A, 2, switch=False, enabled=False), "", False),
        (order(B, 2, stay=True), "", False),
    ],
)
def test_an_order_for_what_runs_begins_nothing_unless_there_is_something_to_start(
    asked, reason, continues
):
    before = replace(confirmed(), reason=reason)
    after = taken(before, asked)
    if continues:
        assert changes(before, after) == {"order": asked}
    else:
        assert (after.phase, after.order) == ("pending", asked)


@pytest.mark.parametrize("phase", ["confirmed", "reverted", "stuck"])
def test_a_withdrawal_leaves_the_phase_to_the_next_decision(phase):
    before = replace(confirmed(), phase=phase, reason="x")
    asked = order(A, 2, withdraw=True)
    assert changes(before, taken(before, asked)) == {"order": asked}
    other = order(B, 2, withdraw=True)
    assert taken(before, other).phase == "pending"


def test_a_restart_of_the_machine_begins_the_soak_time_again():
    before = replace(confirmed(asked=order(soak_time=60)), boot="boot-0")
    assert before.soaks_since is not None
    after = decide(before, seen(7, share=share(), down=Down()))
    assert changes(before, after) == {"boot": "boot-1", "soaks_since": 7}
