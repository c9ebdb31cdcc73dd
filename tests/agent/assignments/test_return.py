"""A switch over restarts, a return, and where a robot goes back to: single decisions."""

import msgspec
import pytest
from msgspec.structs import replace

from dorad.agent.assignments.decide import decide, state_of
from dorad.agent.assignments.model import Baseline, Down, ReleaseRecord, Revision
from dorad.agent.assignments.switch import (
    MAX_CHANGES,
    MAX_SWITCH_BOOTS,
    REVERT_RETRY_S,
    STUCK_RETRY_S,
)
from dorad.control.messages.releases import Rejection
from tests.agent.assignments.orders import A, B, C, health, order, seen, share
from tests.agent.assignments.test_decide import confirmed, on_probation, taken

DEAD = Down(failed={"camera": "has failed: it exited with code 1"})


def switching():
    """Return the record of a robot that switches from A to B since second 100."""
    present = taken(confirmed(), order(B, 2))
    return decide(present, seen(100, release=B, share=share()))


def reverting():
    """Return the record of a robot that returns to A since second 102, and its step."""
    present = decide(on_probation(), seen(102, share=share(2, "failed", "camera crashed")))
    assert (present.phase, present.step) == ("reverting", 3)
    return present


def confirmed_twice():
    """Return the record of a robot that has confirmed A, then B."""
    present = decide(on_probation(), seen(140, share=share(2), health=health(), contact=140))
    assert (present.phase, present.former.revision.release) == ("confirmed", A)
    return present


def trying(record, release, generation, now=200, **more):
    """Return the record of a robot that tries a release."""
    present = taken(record, order(release, generation, allow_lower=True, retry=True, **more))
    present = decide(present, seen(now, release=release, share=share(record.step), contact=now))
    assert present.phase == "switching"
    present = decide(present, seen(now + 1, share=share(present.step)))
    assert present.phase == "probation"
    return present


def test_a_switch_that_takes_long_is_not_taken_for_restarts_of_the_machine():
    present = switching()
    for second in range(101, 399, 10):
        present = decide(present, seen(second, share=share(2, "starting")))
    assert (present.phase, present.tries, present.switched) == ("switching", 0, 100)


def test_a_switch_is_repeated_after_each_of_three_restarts_and_then_reverted():
    present = switching()
    for boot in range(2, 2 + MAX_SWITCH_BOOTS):
        present = decide(present, seen(3, boot=f"boot-{boot}", share=share(2, "pending")))
        assert (present.phase, present.tries, present.switched) == ("switching", boot - 1, 3)
        # The same boot, seen again, is no restart.
        again = decide(present, seen(4, boot=f"boot-{boot}", share=share(2, "pending")))
        assert again.tries == present.tries
    present = decide(present, seen(3, boot="boot-9", share=share(2, "pending")))
    assert (present.phase, present.applied.revision.release) == ("reverting", A)
    assert "restarted 4 times during the switch" in present.reason


def test_a_restart_gives_a_switch_its_whole_time_again():
    present = decide(switching(), seen(3, boot="boot-2", share=share(2, "starting")))
    late = decide(present, seen(302, boot="boot-2", share=share(2, "starting")))
    assert late.phase == "switching"
    late = decide(present, seen(303, boot="boot-2", share=share(2, "starting")))
    assert late.phase == "reverting"


@pytest.mark.parametrize(
    ("status", "reason"),
    [("starting", ""), ("running", "the old camera did not start"), ("pending", "")],
)
def test_a_return_is_over_only_when_the_former_release_runs(status, reason):
    present = decide(reverting(), seen(103, share=share(3, status, reason)))
    assert present.phase == "reverting"
    later = decide(present, seen(110, share=share(present.step)))
    assert later.phase == "reverted"


def test_a_return_to_nothing_is_over_only_when_the_dataflow_has_ended():
    present = taken(on_probation(), order(B, 2))
    present = replace(present, confirmed=None)
    present = decide(present, seen(102, share=share(2, "running"), health=health(fatal="bad")))
    assert (present.phase, present.applied, present.halting) == ("reverting", None, True)
    assert decide(present, seen(103, share=share(3, "running"))).phase == "reverting"
    assert decide(present, seen(103, share=share(3, "stopping"))).phase == "reverting"
    assert decide(present, seen(103, share=share(3, "stopped"))).phase == "reverted"


def test_a_return_that_fails_is_repeated_after_a_pause_that_grows_when_it_is_stuck():
    present = decide(reverting(), seen(103, share=share(3, "failed", "no disk")))
    assert (present.step, present.retry_at) == (4, 103 + REVERT_RETRY_S)
    early = decide(present, seen(104, share=share(4, "failed", "no disk")))
    assert early.step == 4
    present = decide(present, seen(403, share=share(4, "failed", "no disk")))
    assert (present.phase, present.step) == ("stuck", 5)
    assert present.reason.startswith("cannot go back: no disk; before that: ")
    present = decide(present, seen(420, share=share(5, "failed", "no disk")))
    assert present.retry_at == 420 + STUCK_RETRY_S


def test_a_running_dataflow_that_cannot_be_changed_back_is_stopped_in_the_end():
    present, halts = reverting(), []
    for number in range(MAX_CHANGES):
        now = 103 + 10 * number
        present = decide(present, seen(now, share=share(present.step, "running", "refused")))
        halts.append(present.halting)
    assert halts == [False] * (MAX_CHANGES - 1) + [True]


# -- contact


def test_only_a_sign_of_life_at_the_end_of_the_healthy_time_confirms():
    present = on_probation()
    # The cable is cut three seconds after the switch.
    for second in range(103, 180, 10):
        well = health(healthy=second >= 140)
        present = decide(present, seen(second, share=share(2), health=well, contact=103))
        assert present.phase == "probation"
    assert (present.healthy_at, present.reason) == (143, "it waits for contact to the coordinator")
    early = decide(present, seen(181, share=share(2), health=health(), contact=142.9))
    assert early.phase == "probation"
    assert decide(present, seen(181, share=share(2), health=health(), contact=143)).phase == (
        "confirmed"
    )


def test_contact_before_a_failure_of_the_health_does_not_count_after_it():
    present = decide(on_probation(), seen(140, share=share(2), health=health(), contact=103))
    present = decide(present, seen(150, share=share(2), health=health(healthy=False), contact=149))
    assert present.healthy_at is None
    present = decide(present, seen(190, share=share(2), health=health(), contact=149))
    assert (present.phase, present.healthy_at) == ("probation", 190)


def test_a_restart_in_probation_begins_the_healthy_time_again():
    present = decide(on_probation(), seen(140, share=share(2), health=health(), contact=103))
    present = decide(present, seen(2, boot="boot-2", share=share(2)))
    assert (present.phase, present.healthy_at) == ("probation", None)


# -- rejected releases


def test_a_robot_goes_back_to_the_release_before_the_one_that_was_undone():
    undone = Rejection(release=B, reason="undone by ana")
    present = trying(confirmed_twice(), C, 4, rejects=[undone])
    assert present.is_rejected(Revision(B))
    present = decide(present, seen(210, share=share(present.step, "failed", "crashed")))
    assert (present.phase, present.applied.revision.release) == ("reverting", A)
    assert (present.confirmed.revision.release, present.former, present.previous) == (A, None, None)
    present = decide(present, seen(211, share=share(present.step)))
    assert (present.phase, state_of(present, None, {}).confirmed) == ("reverted", A)


def test_a_robot_with_no_release_left_stays_and_asks():
    present = trying(confirmed_twice(), A, 4, rejects=[Rejection(release=B)])
    step = present.step
    present = decide(present, seen(210, share=share(step, "failed", "crashed")))
    assert (present.phase, present.step, present.applied.revision.release) == ("stuck", step, A)
    assert "crashed; it stays: every release that was confirmed here has failed" in present.reason
    for now in (300, 900):
        assert decide(present, seen(now, share=share(step))) == present
    rebooted = seen(3, boot="boot-2", share=share(step))
    assert decide(present, rebooted) == present


def test_a_release_that_fails_when_it_is_started_again_is_not_gone_back_to():
    present = decide(confirmed_twice(), seen(190, share=share(2), down=DEAD))
    present = taken(present, order(B, 3))
    present = decide(present, seen(200, release=B, share=share(2), down=DEAD, contact=200))
    assert present.phase == "switching"
    present = decide(present, seen(201, share=share(present.step, "failed", "crashed")))
    assert (present.phase, present.applied.revision.release) == ("reverting", A)


def test_the_only_release_that_fails_when_it_is_started_again_stays_and_asks():
    present = decide(confirmed(), seen(90, share=share(), down=DEAD))
    present = taken(present, order(A, 2))
    present = decide(present, seen(100, share=share(), down=DEAD))
    assert present.phase == "switching"
    present = decide(present, seen(101, share=share(present.step)))
    bad = seen(402, share=share(present.step), health=health(healthy=False))
    present = decide(present, bad)
    assert (present.phase, present.applied.revision.release) == ("stuck", A)
    # It runs what was confirmed: that alone does not end the question.
    assert decide(present, seen(410, share=share(present.step))).phase == "stuck"
    again = taken(present, order(A, 3, retry=True))
    assert decide(again, seen(411, share=share(present.step))).phase != "stuck"


def test_what_was_undone_may_be_ordered_again():
    present = trying(confirmed_twice(), A, 4, rejects=[Rejection(release=B)])
    present = decide(present, seen(240, share=share(present.step), health=health(), contact=240))
    assert present.phase == "confirmed"
    present = taken(present, order(B, 5))
    assert not present.is_rejected(Revision(B))
    assert present.rejected == []


def test_an_order_does_not_reject_what_it_orders():
    present = taken(confirmed(), order(A, 2, rejects=[Rejection(release=A)]))
    assert present.rejected == []


def test_other_parameters_are_not_rejected_with_a_release():
    undone = Rejection(release=A, params={"camera/rate": 5})
    present = taken(confirmed(), order(A, 2, rejects=[undone]))
    assert present.is_rejected(Revision(A, {"camera/rate": 5}))
    assert not present.is_rejected(Revision(A))


def test_a_probation_of_what_is_undone_ends_at_once():
    present = trying(confirmed_twice(), C, 4)
    present = taken(present, order(A, 5, retry=True, rejects=[Rejection(release=C)]))
    present = decide(present, seen(210, share=share(present.step), health=health(), contact=210))
    assert (present.phase, present.applied.revision.release) == ("reverting", B)
    assert present.next.release == A


# -- nodes that have ended


def test_a_confirmed_robot_says_which_nodes_do_not_run():
    down = Down(
        failed={"camera": "has failed: it exited with code 1"},
        ended={"log": "has ended: its inputs closed"},
    )
    present = decide(confirmed(), seen(90, share=share(), down=down))
    assert present.reason == (
        "node camera has failed: it exited with code 1, node log has ended: its inputs closed"
    )
    state = state_of(present, seen(90, share=share(), down=down), {})
    assert (state.failed, state.ended) == (down.failed, down.ended)
    # An observation without an answer of the daemon changes nothing.
    assert decide(present, seen(95, share=share())).reason == present.reason
    assert decide(present, seen(100, share=share(), down=Down())).reason == ""


def test_an_order_for_the_confirmed_release_starts_dead_nodes_unless_it_stays():
    present = decide(confirmed(), seen(90, share=share(), down=DEAD))
    switched = decide(taken(present, order(A, 2)), seen(91, share=share(), down=DEAD))
    assert (switched.phase, switched.step) == ("switching", present.step + 1)
    assert switched.restarted == ["camera"]
    stays = decide(taken(present, order(A, 2, stay=True)), seen(91, share=share(), down=DEAD))
    assert (stays.phase, stays.step) == ("confirmed", present.step)
    got_ready = decide(
        taken(present, order(A, 2, switch=False)), seen(91, share=share(), down=DEAD)
    )
    assert got_ready.phase == "staged"


def test_nodes_that_have_finished_by_themselves_are_neither_run_nor_missed_again():
    present = replace(confirmed(), baseline=Baseline(nodes=["camera", "once"]))
    present = taken(present, order(B, 2))
    finished = Down(finished=["once"])
    present = decide(present, seen(100, release=B, share=share(), down=finished))
    assert present.phase == "switching"
    assert present.baseline.nodes == ["camera"]


def test_the_nodes_that_run_after_a_switch_are_those_that_ran_and_new_ones():
    present = confirmed()
    applied = replace(present.applied, nodes={"camera": A, "once": A, "new": B})
    known = replace(present.confirmed, nodes={"camera": A, "once": A})
    present = replace(present, applied=applied, confirmed=known)
    assert present.alive == ["camera", "new"]
    assert replace(present, applied=None).alive == []


def test_the_nodes_of_a_run_that_has_failed_are_named():
    present = confirmed()
    ended = seen(100, share=share(1, "failed", "no power"))
    state = state_of(decide(present, ended), ended, {})
    assert state.failed == {"flow": "the dataflow has failed: no power"}
    for status in ("stopped", "finished"):
        ended = seen(100, share=share(1, status))
        assert state_of(decide(present, ended), ended, {}).failed == {}


# -- times, restarts and stops on the way


def test_a_switch_that_stops_the_dataflow_first_waits_until_it_has_stopped():
    present = taken(confirmed(), order(B, 2))
    present = decide(present, seen(100, release=B, share=share(1, "starting")))
    assert present.halting
    waiting = decide(present, seen(101, share=share(2, "stopping")))
    assert (waiting.halting, waiting.step, waiting.reason) == (
        True,
        2,
        "the old dataflow does not stop",
    )
    done = decide(waiting, seen(102, share=share(2, "stopped")))
    assert (done.halting, done.step) == (False, 3)


def test_a_switch_says_what_it_waits_for():
    present = decide(switching(), seen(101, share=share(2, "starting")))
    assert present.reason == "the dataflow is starting"
    present = decide(present, seen(102, share=share(2, "starting", "no camera yet")))
    assert present.reason == "no camera yet"
    assert decide(present, seen(103, share=share(1))).reason == "the daemon has not begun"


def test_a_probation_ends_at_its_deadline_and_not_before():
    bad = health(healthy=False)
    assert decide(on_probation(), seen(399.9, share=share(2), health=bad)).phase == "probation"
    assert decide(on_probation(), seen(400, share=share(2), health=bad)).phase == "reverting"


def test_a_restart_in_probation_is_counted_once():
    present = decide(on_probation(), seen(2, boot="boot-2", share=share(2)))
    assert (present.boot, present.tries, present.switched) == ("boot-2", 1, 2)
    again = decide(present, seen(3, boot="boot-2", share=share(2), health=health(healthy=False)))
    assert (again.phase, again.tries) == ("probation", 1)


def test_a_return_begins_with_the_clocks_of_its_own_boot():
    trying_again = replace(on_probation(), tries=1, retry_at=500.0)
    present = decide(trying_again, seen(50, boot="boot-1", share=share(2, "failed", "crashed")))
    assert (present.boot, present.switched, present.tries, present.retry_at) == (
        "boot-1",
        50,
        0,
        0.0,
    )
    late = replace(switching(), tries=MAX_SWITCH_BOOTS)
    assert decide(late, seen(3, boot="boot-7", share=share(2))).boot == "boot-7"
    present = decide(present, seen(60, share=share(present.step, "failed", "no disk")))
    rebooted = decide(present, seen(4, boot="boot-2", share=share(present.step, "starting")))
    assert (rebooted.boot, rebooted.switched, rebooted.tries, rebooted.retry_at) == (
        "boot-2",
        4,
        0,
        0.0,
    )


def test_a_return_waits_for_its_own_order_and_is_stuck_without_an_answer():
    for answer in (None, share(2)):
        present = decide(reverting(), seen(103, share=answer))
        assert present.phase == "reverting"
        assert decide(present, seen(401.9, share=answer)).phase == "reverting"
        present = decide(present, seen(402, share=answer))
        assert present.phase == "stuck"
        assert present.reason.startswith("cannot go back: the daemon has not begun; before that: ")


def test_a_return_that_must_stop_the_dataflow_starts_it_afterwards():
    present = decide(
        on_probation(), seen(102, share=share(2, "starting"), health=health(fatal="x"))
    )
    assert (present.phase, present.halting) == ("reverting", True)
    waiting = decide(present, seen(103, share=share(3, "stopping")))
    assert (waiting.halting, waiting.step) == (True, 3)
    late = decide(waiting, seen(403, share=share(3, "stopping")))
    assert late.reason.startswith("cannot go back: the dataflow does not stop; ")
    started = decide(waiting, seen(104, share=share(3, "stopped")))
    assert (started.halting, started.step) == (False, 4)
    assert decide(started, seen(105, share=share(4))).phase == "reverted"


def test_a_return_that_only_waits_has_not_failed():
    present = decide(reverting(), seen(103, share=share(3, "starting", "no camera yet")))
    assert (present.step, present.tries) == (3, 0)


def test_a_return_is_repeated_at_the_end_of_its_pause():
    present = decide(reverting(), seen(103, share=share(3, "failed")))
    again = decide(present, seen(103 + REVERT_RETRY_S, share=share(4, "failed")))
    assert again.step == 5


def test_the_release_before_is_reported_and_kept_by_the_same_release_again():
    present = confirmed_twice()
    assert state_of(present, None, {}).previous == A
    assert {A, B} <= present.kept
    again = decide(
        taken(present, order(B, 9)),
        seen(200, release=B, share=share(2), down=DEAD, contact=200),
    )
    again = decide(again, seen(201, share=share(again.step)))
    again = decide(again, seen(240, share=share(again.step), health=health(), contact=240))
    assert (again.phase, again.previous.release, again.former.revision.release) == (
        "confirmed",
        A,
        A,
    )


def test_each_failed_revision_is_remembered_once_with_its_last_reason():
    present = decide(on_probation(), seen(102, share=share(2, "failed", "first")))
    present = decide(present, seen(103, share=share(present.step)))
    present = trying(present, C, 3)
    present = decide(present, seen(210, share=share(present.step, "failed", "other")))
    present = decide(present, seen(211, share=share(present.step)))
    present = trying(present, B, 4, now=300)
    present = decide(present, seen(310, share=share(present.step, "failed", "x" * 2000)))
    assert [each.digest for each in present.failed] == [Revision(C).digest, Revision(B).digest]
    assert len(present.failed[-1].reason) == 1000


def test_on_a_return_past_an_undone_release_its_nodes_run_that_ran():
    present = confirmed_twice()
    former = replace(present.former, nodes={"camera": A, "log": A, "once": A})
    known = replace(present.confirmed, nodes={"camera": B, "once": B})
    present = replace(present, former=former, confirmed=known)
    present = trying(present, C, 4, rejects=[Rejection(release=B)])
    present = decide(present, seen(210, share=share(present.step, "failed", "crashed")))
    # `camera` ran when B was confirmed; B had no `log`; `once` had finished.
    assert present.baseline.nodes == ["camera", "log"]
    assert present.alive == ["camera", "log"]


def test_of_a_record_of_an_earlier_version_nothing_is_known_before_what_is_confirmed():
    """So a rejected release is kept, with a question, rather than stopped."""
    old = msgspec.to_builtins(confirmed())
    del old["first"]
    present = msgspec.convert(old, ReleaseRecord)
    present = decide(
        present,
        seen(200, share=share(), down=DEAD),
    )
    present = taken(present, order(A, 2, rejects=[Rejection(release=A)], withdraw=True))
    present = decide(present, seen(201, share=share(), down=DEAD))
    assert (present.phase, present.confirmed.revision.release) == ("stuck", A)
