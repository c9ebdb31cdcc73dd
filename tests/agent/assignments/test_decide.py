"""What becomes of a release on a robot, in each case."""

import msgspec
import pytest

from dorad.agent.assignments.decide import decide, forgettable, state_of
from dorad.agent.assignments.model import Applied, Assignment, Down, Revision
from dorad.agent.assignments.orders import forget_epoch, take_order
from dorad.agent.assignments.runs import RunRecord
from dorad.agent.assignments.steps import MAX_CAUSE, MAX_DOWN, end_of, failures_of
from dorad.control.errors import ControlError
from dorad.control.messages import DataflowState, Failure, NodeResult
from dorad.control.messages.releases import Evidence, HealthRules
from tests.agent import orders as share_orders
from tests.agent.assignments.orders import A, B, C, health, order, record, seen, share


def taken(present, asked):
    return take_order(present, asked, record(asked))


def confirmed(release=A, asked=None):
    """Return the record of a robot that has confirmed a release."""
    present = decide(record(asked or order(release)), seen(release=release))
    assert present.phase == "switching"
    present = decide(present, seen(1, share=share()))
    assert present.phase == "probation"
    present = decide(present, seen(40, share=share(), health=health()))
    assert present.phase == "confirmed"
    return present


def on_probation(**more):
    """Return the record of a robot that tries B and has confirmed A, and its step."""
    present = taken(confirmed(), order(B, 2, **more))
    present = decide(present, seen(100, release=B, share=share(), contact=100))
    assert present.phase == "switching"
    present = decide(present, seen(101, share=share(present.step)))
    assert present.phase == "probation"
    return present


def test_the_phases_of_a_first_release():
    present = decide(record(order(switch=False)), seen(files="missing"))
    assert (present.phase, present.waiting) == ("pending", "files")
    present = decide(present, seen(files="received"))
    assert present.phase == "staging"
    present = decide(present, seen())
    assert (present.phase, present.waiting) == ("staged", "switch")
    present = decide(taken(present, order()), seen())
    assert (present.phase, present.applied.revision.release, present.step) == ("switching", A, 1)
    assert present.restarted == ["camera"]
    present = decide(present, seen(5, share=share(status="starting")))
    assert present.phase == "switching"
    present = decide(present, seen(6, share=share()))
    assert present.phase == "probation"
    present = decide(present, seen(7, share=share(), health=health(healthy=False)))
    assert (present.phase, present.confirmed) == ("probation", None)
    present = decide(present, seen(40, share=share(), health=health()))
    assert (present.phase, present.confirmed.revision.release) == ("confirmed", A)
    assert (present.sequence, present.baseline.rates) == (1, {"camera/image": 30.0})


def test_rates_that_are_not_certain_are_learned_once_while_the_release_runs():
    present = confirmed()
    assert present.baseline.settled == []
    rates = {"camera/image": 28.0, "camera/late": 5.0}
    present = decide(present, seen(80, share=share(), learned=rates))
    assert present.baseline.rates == rates
    assert present.baseline.settled == sorted(rates)
    again = decide(present, seen(120, share=share(), learned={"camera/image": 1.0}))
    assert again == present


def test_an_unhealthy_release_is_left_at_its_deadline_and_remembered():
    present = on_probation()
    bad = health(healthy=False)
    assert decide(present, seen(399, share=share(2), health=bad)).phase == "probation"
    present = decide(present, seen(401, share=share(2), health=bad))
    assert (present.phase, present.applied.revision.release) == ("reverting", A)
    assert "node camera" in present.reason
    present = decide(present, seen(402, share=share(present.step)))
    assert (present.phase, present.confirmed.revision.release) == ("reverted", A)
    again = decide(taken(present, order(B, 3)), seen(403, release=B, share=share(present.step)))
    assert (again.phase, again.refused) == ("pending", True)
    assert "failed on this robot before" in again.reason
    retried = decide(
        taken(present, order(B, 3, retry=True)), seen(403, release=B, share=share(present.step))
    )
    assert (retried.phase, retried.refused) == ("switching", False)


def test_of_what_was_bad_at_the_deadline_three_are_named():
    evidence = [Evidence(check=f"node n{n}", ok=n == 1, text="is off") for n in range(6)]
    bad = msgspec.structs.replace(health(healthy=False), evidence=evidence)
    present = decide(on_probation(), seen(401, share=share(2), health=bad))
    words = "node n0: is off; node n2: is off; node n3: is off"
    assert present.reason == f"not healthy after 300 s: {words}"


def test_a_release_waits_for_dorad_until_its_last_step_was_asked_for():
    present = on_probation()
    assert present.step == 2
    for asked, is_behind in ((None, True), (1, True), (2, False), (3, False)):
        asked_for = None if asked is None else RunRecord(share_orders.order(asked), "boot-1")
        assert Assignment(release=present, run=asked_for).is_behind is is_behind
    unused = record(order(switch=False))
    assert not Assignment(release=unused, run=None).is_behind
    assert not Assignment(release=None, run=RunRecord(share_orders.order(1), "boot-1")).is_behind


def test_other_parameters_are_other_content():
    present = on_probation()
    present = decide(present, seen(401, share=share(2), health=health(healthy=False)))
    present = decide(present, seen(402, share=share(present.step)))
    changed = taken(present, order(B, 3, params={"camera/rate": 5}))
    assert decide(changed, seen(403, release=B, share=share(3))).phase == "switching"


@pytest.mark.parametrize("status", ["failed", "finished"])
def test_a_dataflow_that_ends_on_probation_is_left_at_once(status):
    present = decide(on_probation(), seen(102, share=share(2, status, "camera crashed")))
    assert present.phase == "reverting"
    assert "camera crashed" in present.reason


def test_a_change_that_the_daemon_refuses_is_undone():
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share()))
    present = decide(present, seen(101, share=share(2, reason="the new camera exited with 1")))
    assert (present.phase, present.step) == ("reverting", 3)


def test_contact_is_needed_after_a_switch_if_there_was_contact_before_it():
    present = on_probation()
    present = decide(present, seen(200, share=share(2), health=health(), contact=100))
    assert (present.phase, present.reason) == (
        "probation",
        "it waits for contact to the coordinator",
    )
    assert decide(present, seen(201, share=share(2), health=health(), contact=200.5)).phase == (
        "confirmed"
    )
    cut = decide(present, seen(701, share=share(2), health=health(), contact=100))
    assert cut.phase == "reverting"
    # That says nothing about the release.
    assert cut.failed == []


def test_a_robot_that_is_healthy_late_is_not_cut_off_while_the_coordinator_is_heard():
    """On a slow machine the next sign of life comes a moment after that."""
    asked = order(B, 2, rules=HealthRules(healthy_deadline=300, confirm_deadline=15))
    present = taken(confirmed(), asked)
    present = decide(present, seen(100, release=B, share=share(), contact=100))
    present = decide(present, seen(101, share=share(present.step)))
    ill = health(healthy=False)
    present = decide(present, seen(115, share=share(2), health=ill, contact=114))
    well = decide(present, seen(117, share=share(2), health=health(), contact=116))
    assert (well.phase, well.reason) == ("probation", "it waits for contact to the coordinator")
    heard = seen(118, share=share(2), health=health(), contact=117.5)
    assert decide(well, heard).phase == "confirmed"
    # It goes back when it has heard nothing for that time.
    cut = seen(130.9, share=share(2), health=health(), contact=116)
    assert decide(well, cut).phase == "probation"
    cut = decide(well, seen(131, share=share(2), health=health(), contact=116))
    assert (cut.phase, cut.reason) == ("reverting", "no contact to the coordinator for 15 s")


def test_a_robot_without_contact_before_the_switch_confirms_by_itself():
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share(), contact=39))
    present = decide(present, seen(101, share=share(2)))
    assert decide(present, seen(140, share=share(2), health=health())).phase == "confirmed"


def test_a_switch_waits_while_the_robot_is_busy_and_no_longer():
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share(), busy="gripper: holds a cup"))
    assert (present.phase, present.waiting, present.reason) == (
        "staged",
        "busy",
        "gripper: holds a cup",
    )
    assert decide(present, seen(101, release=B, share=share())).phase == "switching"


def test_a_lease_does_not_hold_up_an_order_that_ignores_it():
    ignoring = taken(confirmed(), order(B, 2, busy="ignore"))
    assert decide(ignoring, seen(100, release=B, share=share(), busy="x")).phase == "switching"


def test_a_robot_that_is_busy_for_too_long_says_so_and_stays():
    present = taken(confirmed(), order(B, 2, busy_max=60))
    present = decide(present, seen(100, release=B, share=share(), busy="x"))
    present = decide(present, seen(161, release=B, share=share(), busy="x"))
    assert present.reason == "still busy after 60 s: x"
    assert decide(present, seen(200, release=B, share=share())).phase == "staged"
    later = taken(present, order(B, 3))
    assert decide(later, seen(201, release=B, share=share())).phase == "switching"


def test_a_lower_sequence_is_refused_unless_the_order_allows_it():
    present = confirmed(C)
    lower = decide(taken(present, order(B, 2)), seen(100, release=B, share=share()))
    assert lower.refused
    assert "its sequence 2 is below 3" in lower.reason
    allowed = taken(present, order(B, 2, allow_lower=True))
    assert decide(allowed, seen(100, release=B, share=share())).phase == "switching"


def test_a_release_that_cannot_be_used_is_refused_before_anything_changes():
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share(), refusal="for another machine"))
    assert (present.refused, present.reason) == (True, "for another machine")
    assert present.applied.revision.release == A


def test_nothing_is_switched_while_the_daemon_cannot_be_asked():
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share(), notices=None))
    assert present.phase == "staged"


def test_after_a_power_cut_a_switch_is_redone_and_probation_is_tried_once_more():
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share()))
    again = decide(present, seen(3, boot="boot-2", share=share(2, "pending")))
    assert (again.phase, again.switched) == ("switching", 3)
    present = decide(again, seen(5, boot="boot-2", share=share(2)))
    assert present.phase == "probation"
    present = decide(present, seen(3, boot="boot-3", share=share(2)))
    assert present.phase == "probation"
    present = decide(present, seen(3, boot="boot-4", share=share(2)))
    assert (present.phase, present.applied.revision.release) == ("reverting", A)
    present = decide(present, seen(3, boot="boot-5", share=share(2, "pending")))
    assert present.phase == "reverting"


def test_a_return_that_fails_is_repeated_and_the_robot_says_that_it_is_stuck():
    present = decide(on_probation(), seen(102, share=share(2, "failed", "crashed")))
    first = present.step
    present = decide(present, seen(103, share=share(first, "failed", "no disk")))
    assert (present.phase, present.step) == ("reverting", first + 1)
    present = decide(present, seen(500, share=share(first, "failed", "no disk")))
    assert present.phase == "stuck"
    assert "cannot go back" in present.reason
    assert decide(present, seen(600, share=share(present.step))).phase == "reverted"


def test_a_first_release_that_fails_leaves_nothing_running():
    present = decide(record(), seen())
    present = decide(present, seen(1, share=share()))
    present = decide(present, seen(2, share=share(1, "failed", "crashed")))
    assert (present.phase, present.applied, present.halting) == ("reverting", None, True)
    assert decide(present, seen(3, share=share(present.step, "stopped"))).phase == "reverted"


def test_a_dataflow_that_never_started_is_stopped_before_it_is_changed():
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share(1, "starting")))
    assert (present.phase, present.halting) == ("switching", True)
    present = decide(present, seen(101, release=B, share=share(2, "stopped")))
    assert (present.halting, present.step) == (False, 3)


def test_another_order_waits_until_a_switch_has_ended():
    present = taken(on_probation(), order(C, 3))
    assert (present.order.release, present.next.release) == (B, C)
    present = decide(present, seen(140, share=share(2), health=health(), contact=140))
    assert present.phase == "confirmed"
    present = decide(present, seen(141, release=C, share=share(2)))
    assert (present.order.release, present.phase) == (C, "pending")


def test_an_order_for_the_confirmed_release_ends_a_probation_at_once():
    present = taken(on_probation(), order(A, 3))
    present = decide(present, seen(102, share=share(2), health=health(healthy=False)))
    assert (present.phase, present.applied.revision.release, present.failed) == ("reverting", A, [])
    present = decide(present, seen(103, share=share(present.step)))
    assert (present.phase, present.order.generation) == ("confirmed", 3)


def test_an_order_with_auto_revert_off_leaves_a_bad_release_running():
    present = on_probation(auto_revert=False)
    present = decide(present, seen(402, share=share(2), health=health(healthy=False)))
    assert (present.phase, present.applied.revision.release) == ("stuck", B)
    assert decide(present, seen(403, share=share(2))) == present


def test_a_disabled_dataflow_is_stopped_and_an_enabled_one_runs_again():
    present = decide(taken(confirmed(), order(A, 2, enabled=False)), seen(100, share=share()))
    assert (present.phase, present.halting, present.step) == ("confirmed", True, 2)
    present = taken(present, order(A, 3))
    present = decide(present, seen(101, share=share(2, "stopped")))
    assert (present.phase, present.halting, present.step) == ("confirmed", False, 3)


def test_a_dataflow_that_has_ended_is_started_again_by_an_order_for_the_same_release():
    ended = {"share": share(1, "finished")}
    present = decide(confirmed(), seen(100, **ended))
    assert (present.phase, present.reason) == ("confirmed", "the dataflow has finished")
    assert state_of(present, seen(100, **ended), {}).running == ""
    present = decide(taken(present, order(A, 2, switch=False)), seen(101, **ended))
    assert (present.phase, present.waiting) == ("staged", "switch")
    present = decide(taken(present, order(A, 2)), seen(102, **ended))
    assert (present.phase, present.step) == ("switching", 2)
    present = decide(present, seen(103, share=share(2)))
    present = decide(present, seen(150, share=share(2), health=health()))
    assert (present.phase, present.reason) == ("confirmed", "")
    assert state_of(present, seen(150, share=share(2)), {}).running == A


def test_what_is_stopped_before_it_is_confirmed_does_not_come_back_without_a_switch():
    present = taken(on_probation(), order(B, 3, enabled=False))
    assert (present.halting, present.applied.revision.release) == (True, A)
    present = decide(present, seen(103, release=B, share=share(2)))
    present = taken(present, order(B, 4))
    present = decide(present, seen(104, release=B, share=share(3, "stopped")))
    assert (present.phase, present.applied.revision.release) == ("switching", B)


def test_an_order_without_a_release_stops_the_dataflow_and_is_forgotten():
    present = decide(taken(confirmed(), order(None, 2)), seen(100, share=share()))
    assert not forgettable(present, seen(100, share=share()))
    assert forgettable(present, seen(101, share=share(2, "stopped")))


def test_older_orders_and_other_content_under_one_number_are_refused():
    present = confirmed(asked=order(A, 5, epoch=2))
    for wrong in (order(A, 4, epoch=2), order(A, 9, epoch=1), order(B, 5, epoch=2)):
        with pytest.raises(ControlError, match=r"older|another release"):
            taken(present, wrong)
    assert taken(present, order(A, 5, epoch=3)).phase == "confirmed"


def test_the_same_order_again_changes_nothing():
    present = confirmed()
    assert taken(present, order()) == present
    trying = on_probation()
    assert taken(trying, order(B, 2)).phase == "probation"


def test_a_new_number_for_the_same_content_continues_the_switch():
    present = taken(on_probation(), order(B, 7, rollout="second"))
    assert (present.phase, present.order.generation, present.next) == ("probation", 7, None)


def test_the_record_survives_being_stored():
    present = on_probation()
    assert msgspec.json.decode(msgspec.json.encode(present), type=type(present)) == present


def test_what_is_reported():
    state = state_of(on_probation(), seen(102, share=share(2)), {})
    assert (state.phase, state.running, state.confirmed, state.release) == ("probation", B, A, B)
    ended = state_of(confirmed(), seen(102, share=share(1, "failed")), {})
    assert (ended.running, ended.confirmed) == ("", A)


def test_an_observation_that_changes_nothing_leaves_the_record_as_it_is():
    present = confirmed()
    assert decide(present, seen(80, share=share())) is present
    present = decide(present, seen(80, share=share(), learned={"b/x": 1.0, "a/x": 1.0}))
    assert decide(present, seen(90, share=share(), learned={"a/x": 9.0})) is present


def test_an_order_that_waited_is_taken_once():
    present = taken(on_probation(), order(C, 3))
    present = decide(present, seen(140, share=share(2), health=health(), contact=140))
    present = decide(present, seen(141, release=C, share=share(2)))
    assert (present.order.release, present.next) == (C, None)
    present = decide(present, seen(142, release=C, share=share(2)))
    assert present.phase == "switching"


def test_a_new_order_begins_without_what_was_known_of_the_one_before():
    present = msgspec.structs.replace(
        confirmed(), waiting="busy", refused=True, busy_since=5.0, gave_up=True, reason="x",
        evidence=health().evidence, restarted=["camera"],
    )  # fmt: skip
    assert present.evidence
    new = taken(present, order(B, 2))
    assert (new.phase, new.reason, new.waiting, new.refused) == ("pending", "", "", False)
    assert (new.busy_since, new.gave_up, new.evidence, new.restarted) == (None, False, [], [])


def test_another_fleet_may_begin_its_epochs_again():
    def forgotten(release):
        return forget_epoch(Assignment(None, release)).release

    trying = forgotten(on_probation(epoch=7))
    assert (trying.version, trying.next, trying.phase) == ((0, 2), None, "probation")
    waiting = forgotten(taken(on_probation(), order(C, 3, epoch=9)))
    assert (waiting.order.epoch, waiting.version, waiting.next.release) == (0, (0, 3), C)
    assert taken(waiting, order(C, 4, epoch=0)).version == (0, 4)


def run_of(status="failed", **outcome):
    found = share(status=status)
    return msgspec.structs.replace(
        found, outcome=DataflowState(uuid=found.uuid, name="flow", status=status, **outcome)
    )


def test_the_failed_nodes_of_a_run_are_named_with_the_last_line_of_each():
    results = [
        NodeResult("a", "failed", "exited with code 1"),
        NodeResult("b", "failed", "was killed"),
        NodeResult("c", "ok", "exited with code 0"),
        NodeResult("d", "cascading", "exited with code 0"),
    ]
    causes = [
        Failure("node a exited with code 1", ["Traceback", "KeyError: 'x'"]),
        Failure("node b was killed"),
    ]
    found = failures_of(run_of(results=results, failures=causes))
    assert found == {"a": "exited with code 1: KeyError: 'x'", "b": "was killed"}
    assert failures_of(run_of("finished", results=results)) == {}
    # Without results, the dataflow itself.
    alone = failures_of(run_of(failures=causes))
    assert alone == {"flow": "the dataflow has failed: node a exited with code 1: KeyError: 'x'"}
    many = [NodeResult(f"n{n}", "failed", "x" * 600) for n in range(MAX_DOWN + 3)]
    found = failures_of(run_of(results=many))
    assert len(found) == MAX_DOWN
    assert {len(text) for text in found.values()} == {MAX_CAUSE}


def test_the_end_of_a_run_says_why_as_far_as_it_is_known():
    assert end_of(share(status="failed", reason="no disk")) == "the dataflow has failed: no disk"
    assert end_of(share(status="finished")) == "the dataflow has finished"
    assert end_of(run_of()) == "the dataflow has failed"
    assert end_of(run_of(failures=[Failure("node b was killed")])) == (
        "the dataflow has failed: node b was killed"
    )


def test_what_is_reported_of_a_run_that_has_ended_are_its_failed_nodes():
    results = [NodeResult("camera", "failed", "was killed")]
    present = confirmed()
    state = state_of(present, seen(100, share=run_of(results=results)), {A: "lost"})
    assert (state.failed, state.ended, state.running) == ({"camera": "was killed"}, {}, "")
    assert state.damaged == {A: "lost"}
    down = Down(failed={"x": "crashed"}, ended={"y": "its inputs had closed"})
    state = state_of(present, seen(100, share=share(), down=down), {B: "of no interest"})
    assert (state.failed, state.ended, state.running) == (down.failed, down.ended, A)
    assert state.damaged == {}
    state = state_of(present, None, {})
    assert (state.failed, state.leases, state.running) == ({}, [], A)


@pytest.mark.parametrize(("contact", "needed"), [(40.0, True), (39.9, False), (None, False)])
def test_contact_within_a_minute_before_a_switch_makes_it_needed_afterwards(contact, needed):
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share(), contact=contact))
    assert (present.phase, present.contact) == ("switching", needed)


def test_the_files_of_all_releases_that_an_order_or_a_return_may_need_are_kept():
    present = msgspec.structs.replace(confirmed(), previous=Revision(C))
    assert (present.in_use, present.kept) == ({A}, {A, C})
    waiting = taken(taken(on_probation(), order(C, 3)), order("d" * 64, 4))
    assert (waiting.in_use, waiting.kept) == ({A, B}, {A, B, "d" * 64})
    former = msgspec.structs.replace(confirmed(), former=Applied(Revision(B), {"camera": C}))
    assert former.kept == {A, B, C}
    new = record(order(None, 1))
    assert (new.in_use, new.kept, new.alive, new.target) == (set(), set(), [], None)


def test_a_new_record_has_confirmed_and_done_nothing():
    new = record()
    assert (new.sequence, new.switched_sequence, new.step, new.tries) == (0, 0, 0, 0)
    assert (new.halting, new.contact, new.gave_up, new.refused) == (False, False, False, False)
    state = state_of(new, None, {})
    assert (state.sequence, state.running, state.confirmed, state.previous) == (0, "", "", "")


def test_an_order_for_what_is_being_tried_takes_the_place_of_one_that_waits():
    present = taken(taken(on_probation(), order(C, 3)), order(B, 4))
    assert (present.phase, present.order.generation, present.next) == ("probation", 4, None)


def test_the_newest_order_that_waits_counts():
    present = taken(on_probation(), order(C, 3))
    later = taken(present, order("d" * 64, 4))
    assert (later.order.release, later.next.release, later.version) == (B, "d" * 64, (1, 4))
    again = taken(present, order(C, 3, retry=True))
    assert (again.next.retry, again.order.release) == (True, B)
    with pytest.raises(ControlError, match="is older"):
        taken(later, order(C, 3))


def test_a_release_is_being_staged_until_its_plan_is_known():
    for found in (seen(files="received"), seen(plan=None), seen(files="received", plan=None)):
        present = decide(record(), found)
        assert (present.phase, present.waiting, present.applied) == ("staging", "", None)
    failing = decide(record(), seen(files="received", trouble="the disk is full"))
    assert (failing.phase, failing.reason) == ("staging", "the disk is full")
    waiting = decide(record(), seen(files="missing", trouble="it cannot be read"))
    assert (waiting.phase, waiting.reason, waiting.waiting) == (
        "pending", "it cannot be read", "files",
    )  # fmt: skip


def test_a_disabled_dataflow_makes_its_next_release_ready_and_does_not_switch():
    disabled = taken(confirmed(), order(B, 2, enabled=False))
    present = decide(disabled, seen(100, release=B, share=share()))
    assert (present.phase, present.reason, present.waiting, present.halting) == (
        "staged", "the dataflow is disabled", "switch", True,
    )  # fmt: skip
    missing = decide(disabled, seen(100, files="missing", share=share()))
    assert (missing.phase, missing.waiting, missing.halting) == ("pending", "files", True)
    again = decide(present, seen(101, release=B, share=share(2, "stopped")))
    assert (again.step, again.halting) == (present.step, True)


def test_a_release_that_is_ordered_while_the_dataflow_stops_waits_until_it_has_stopped():
    present = decide(taken(confirmed(), order(A, 2, enabled=False)), seen(100, share=share()))
    present = taken(present, order(B, 3))
    stopping = decide(present, seen(101, release=B, share=share(2)))
    assert (stopping.phase, stopping.halting, stopping.step) == ("pending", True, 2)
    stopped = decide(stopping, seen(102, release=B, share=share(2, "stopped")))
    assert (stopped.phase, stopped.halting) == ("switching", False)
