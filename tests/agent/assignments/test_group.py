"""A release that several machines run together: single decisions of one of them."""

import hashlib

import msgspec
import pytest
from msgspec.structs import replace

from dorad.agent.assignments.decide import decide, state_of
from dorad.agent.assignments.health import is_about_links
from dorad.agent.assignments.model import Baseline, Health, ReleaseRecord, Revision, revision_of
from dorad.agent.assignments.runs import BARRIER_S
from dorad.agent.assignments.switch import MAX_SWITCH_BOOTS
from dorad.control.errors import ControlError
from dorad.control.messages.releases import Evidence, Rejection, ReleaseOrder
from tests.agent.assignments.orders import (
    OTHER_UUID,
    UUID,
    A,
    B,
    C,
    group,
    health,
    order,
    record,
    seen,
    share,
)
from tests.agent.assignments.test_decide import taken

CELL = group()
WAITS = "it waits for the other machines of cell1"


def in_group(release=A, generation=1, **more):
    """Return an order for a group."""
    more.setdefault("group", CELL)
    return order(release, generation, **more)


def committed(release=A, generation=1, **more):
    """Return the order after every machine of the group was healthy."""
    return in_group(release, generation, committed=True, **more)


def began(present, asked, now=100, **more):
    """Return the record of a machine that is on probation with an order since `now`."""
    present = present if present is None else taken(present, asked)
    present = record(asked) if present is None else present
    more.setdefault("contact", now)
    runs = share(present.step) if present.applied is not None else None
    present = decide(present, seen(now, release=asked.release, share=runs, **more))
    assert present.phase == "switching"
    present = decide(present, seen(now + 1, share=share(present.step)))
    assert present.phase == "probation"
    return present


def looked(present, now, **more):
    """Return the record after an observation of what runs."""
    more.setdefault("health", health())
    return decide(present, seen(now, share=share(present.step), contact=now, **more))


def confirmed():
    """Return the record of a machine whose group has committed A."""
    present = looked(began(None, in_group()), 140)
    present = looked(taken(present, committed()), 141)
    assert (present.phase, present.confirmed.revision) == ("confirmed", Revision(A, group=CELL))
    return present


def on_probation(**more):
    """Return the record of a machine whose group has committed A and tries B since second 200."""
    return began(confirmed(), in_group(B, 2, **more), 200)


def reverted(present):
    """Return the record after its return."""
    assert present.phase == "reverting"
    present = decide(present, seen(900, share=share(present.step)))
    assert present.phase == "reverted"
    return present


# -- what a revision is


def test_a_revision_without_a_group_has_the_digest_that_versions_before_have_stored():
    stored = hashlib.sha256(msgspec.json.encode([A, {"camera/rate": 5}])).hexdigest()
    assert Revision(A, {"camera/rate": 5}).digest == stored
    old = msgspec.json.decode(b'{"release": "x"}', type=Revision)
    assert (old, old.digest) == (Revision("x"), Revision("x", {}).digest)


def test_another_placement_is_another_revision():
    moved = group(placement={"camera": "r2", "arm": "r2"})
    names = {Revision(A, group=each).digest for each in (None, CELL, moved)}
    assert len(names) == 3
    present = taken(confirmed(), in_group(A, 2, group=moved))
    assert decide(present, seen(200, share=share(present.step))).phase == "switching"
    with pytest.raises(ControlError, match="other machines"):
        taken(confirmed(), in_group(A, 1, group=moved))


def test_a_record_of_a_version_without_groups_loads():
    present = msgspec.to_builtins(confirmed())
    del present["order"]["group"], present["order"]["committed"]
    del present["voted"], present["applied"]["revision"]["group"]
    loaded = msgspec.convert(present, ReleaseRecord)
    assert (loaded.order.group, loaded.voted, loaded.run_uuid) == (None, None, UUID)


def test_the_run_of_a_group_has_the_uuid_that_its_machines_share():
    assert confirmed().run_uuid == OTHER_UUID
    alone = taken(confirmed(), order(B, 2))
    assert alone.run_uuid == OTHER_UUID
    assert began(confirmed(), order(B, 2)).run_uuid == UUID


# -- the vote


def test_a_healthy_machine_votes_and_waits():
    present = looked(on_probation(), 240)
    assert (present.phase, present.reason) == ("probation", WAITS)
    assert present.voted == Baseline({"camera/image": 30.0}, ["camera"])
    assert present.baseline.rates == {"camera/image": 30.0}


@pytest.mark.parametrize("contact", [None, 0.0])
def test_a_machine_of_a_group_never_confirms_by_itself(contact):
    present = began(confirmed(), in_group(B, 2), 200, contact=contact)
    assert not present.contact
    for now in range(240, 790, 50):
        present = looked(present, now)
        assert present.phase == "probation"


def test_it_is_reported_healthy_only_while_it_is():
    present = on_probation()
    now = seen(240, share=share(present.step), health=health())
    assert not state_of(present, now, {}).healthy
    present = decide(present, now)
    assert state_of(present, now, {}).healthy
    bad = seen(245, share=share(present.step), health=health(healthy=False))
    present = decide(present, bad)
    assert (present.reason, present.voted is None) == ("", False)
    for other in (bad, None, seen(245), replace(now, boot="boot-2")):
        assert not state_of(present, other, {}).healthy
    present = looked(taken(present, committed(B, 2)), 246)
    assert (present.phase, state_of(present, now, {}).healthy) == ("confirmed", False)


def test_a_machine_that_runs_a_release_alone_is_not_reported_as_waiting():
    alone = taken(confirmed(), order(B, 2))
    alone = decide(alone, seen(200, release=B, share=share(alone.step), contact=200))
    alone = decide(alone, seen(201, share=share(alone.step)))
    now = seen(240, share=share(alone.step), health=health(), contact=201)
    alone = decide(alone, now)
    assert (alone.phase, alone.voted, state_of(alone, now, {}).healthy) == (
        "probation", None, False,
    )  # fmt: skip


# -- the decision


def test_a_commit_confirms_at_once_with_what_the_machine_voted_for():
    present = looked(on_probation(), 240)
    present = taken(present, committed(B, 2))
    # It has become unhealthy after its vote, as a machine may after its confirmation.
    present = looked(present, 250, health=health(fatal="node camera has failed", rates={}))
    assert (present.phase, present.confirmed.revision) == ("confirmed", Revision(B, group=CELL))
    assert (present.baseline.rates, present.voted) == ({"camera/image": 30.0}, None)
    assert (present.former.revision.release, present.sequence) == (A, 2)


def test_a_commit_that_a_later_coordinator_repeats_counts():
    present = looked(on_probation(), 240)
    present = taken(present, committed(B, 2, epoch=7))
    assert looked(present, 241).phase == "confirmed"


def test_a_commit_is_not_taken_back():
    present = taken(looked(on_probation(), 240), committed(B, 2))
    present = taken(present, in_group(B, 2, epoch=2))
    assert (present.order.committed, present.order.epoch) == (True, 2)
    assert not taken(present, in_group(C, 3, epoch=2)).next.committed


def test_a_commit_for_a_machine_that_is_not_healthy_yet_confirms_it_once_it_is():
    present = taken(on_probation(), committed(B, 2))
    present = looked(present, 240, health=health(healthy=False))
    assert present.phase == "probation"
    assert looked(present, 250).phase == "confirmed"


def test_a_vote_counts_after_a_power_cut():
    present = looked(on_probation(), 240)
    present = decide(present, seen(3, boot="boot-2", share=share(present.step, "pending")))
    assert present.phase == "probation"
    present = taken(present, committed(B, 2))
    present = decide(present, seen(5, boot="boot-2", share=share(present.step, "starting")))
    assert present.phase == "confirmed"


def test_a_vote_counts_for_no_other_revision():
    present = taken(looked(on_probation(), 240), in_group(B, 3, enabled=False))
    present = looked(present, 241)
    present = began(replace(present, halting=False), committed(C, 4), 300)
    assert looked(present, 310, health=health(healthy=False)).phase == "probation"


# -- without a decision


@pytest.mark.parametrize("contact", [True, False])
def test_a_machine_that_hears_no_decision_goes_back_without_blame(contact):
    present = looked(on_probation(), 240)
    assert looked(present, 799).phase == "probation"
    after = decide(
        present,
        seen(801, share=share(present.step), health=health(), contact=801 if contact else None),
    )
    assert (after.phase, after.applied, after.failed) == ("reverting", after.confirmed, [])
    assert after.reason == "no word about the other machines of cell1 for 600 s"
    assert after.voted is None


def test_a_machine_that_fails_goes_back_at_once_with_blame():
    bad = health(healthy=False, fatal="node camera has failed: exited with code 1")
    present = looked(on_probation(), 210, health=bad)
    assert present.phase == "reverting"
    assert present.failure_of(Revision(B, group=CELL)).reason.startswith("node camera has failed")
    again = decide(
        taken(reverted(present), committed(B, 2)), seen(910, release=B, share=share(present.step))
    )
    assert (again.phase, again.order.committed) == ("reverted", True)


def test_a_time_out_blames_no_revision_of_a_group():
    present = looked(on_probation(), 501, health=health(healthy=False))
    assert (present.phase, present.failed) == ("reverting", [])
    assert "not healthy after 300 s: node camera" in present.reason


def test_restarts_of_the_machine_blame_no_revision_of_a_group():
    present = on_probation()
    for boot in (2, 3):
        present = decide(present, seen(3, boot=f"boot-{boot}", share=share(present.step)))
    assert (present.phase, present.failed) == ("reverting", [])
    present = taken(confirmed(), in_group(B, 2))
    present = decide(present, seen(200, release=B, share=share(present.step)))
    for boot in range(2, 3 + MAX_SWITCH_BOOTS):
        present = decide(present, seen(3, boot=f"boot-{boot}", share=share(2, "pending")))
    assert (present.phase, present.failed) == ("reverting", [])


def test_a_start_has_time_to_wait_for_the_links_and_blames_nothing():
    present = taken(confirmed(), in_group(B, 2))
    present = decide(present, seen(200, release=B, share=share(present.step)))
    for status in ("starting", "ready"):
        late = decide(present, seen(499 + BARRIER_S, share=share(present.step, status)))
        assert (late.phase, late.reason) == ("switching", f"the dataflow is {status}")
    late = decide(present, seen(500 + BARRIER_S, share=share(present.step, "starting")))
    assert (late.phase, late.failed) == ("reverting", [])


def bad(*evidence):
    return Health([Evidence(check=check, ok=False, text=text) for check, text in evidence])


def test_of_what_a_committed_machine_waits_for_three_are_named():
    away = [(f"link to r{n}", "is not up: absent") for n in range(2, 7)]
    present = looked(taken(on_probation(), committed(B, 2)), 501, health=bad(*away))
    assert present.reason.endswith("it waits for: link to r2, link to r3, link to r4")


@pytest.mark.parametrize(
    "evidence",
    [
        [("link to r2", "is not up: absent")],
        [("node camera", "gets nothing on: angle")],
        [("output arm/angle", "0/s, at least 10"), ("steady", "for less than 30 s")],
        [("steady", "for less than 30 s; before that node camera gets nothing on: angle")],
    ],
)
def test_a_machine_of_a_committed_group_does_not_leave_it_because_of_another_one(evidence):
    present = looked(taken(on_probation(), committed(B, 2)), 501, health=bad(*evidence))
    assert present.phase == "probation"
    assert present.reason.startswith("every machine was healthy with it; it waits for: ")
    assert looked(present, 9000, health=bad(*evidence)).phase == "probation"
    # Before the decision it goes back, and the others may be the cause.
    present = looked(on_probation(), 501, health=bad(*evidence))
    assert (present.phase, present.failed) == ("reverting", [])


@pytest.mark.parametrize(
    "evidence",
    [
        ("node camera", "is restarting: it exited with code 1"),
        ("output camera/image", "0/s, at least 10"),
        ("steady", "for less than 30 s; before that node camera has started again"),
        ("probe 1", "exited with code 1"),
    ],
)
def test_a_machine_of_a_committed_group_whose_own_nodes_are_not_healthy_is_the_one_that_fails(
    evidence,
):
    present = looked(taken(on_probation(), committed(B, 2)), 501, health=bad(evidence))
    assert present.phase == "reverting"
    assert present.failure_of(Revision(B, group=CELL)) is not None


# -- forward again


def left():
    """Return the record of a machine that has heard no decision."""
    return looked(looked(on_probation(), 240), 801)


def test_a_machine_that_left_a_committed_group_goes_forward_again_and_confirms_by_itself():
    present = reverted(left())
    assert taken(present, in_group(B, 2)).phase == "reverted"
    present = began(present, committed(B, 2), 1000)
    assert looked(present, 1040).phase == "confirmed"


def test_it_goes_forward_after_a_return_that_has_begun():
    present = left()
    for epoch in (1, 2):
        present = taken(present, committed(B, 2, epoch=epoch))
        assert (present.phase, present.next.epoch) == ("reverting", epoch)
    assert decide(present, seen(802, share=share(present.step, "starting"))).phase == "reverting"
    present = decide(present, seen(803, share=share(present.step)))
    assert present.phase == "reverted"
    present = decide(present, seen(804, release=B, share=share(present.step)))
    assert (present.phase, present.next) == ("pending", None)
    present = decide(present, seen(805, release=B, share=share(present.step)))
    assert (present.phase, present.applied.revision.release) == ("switching", B)


def test_an_abort_after_a_commit_was_heard_by_mistake_still_wins():
    present = taken(left(), committed(B, 2))
    present = taken(present, in_group(A, 3))
    assert present.next.release == A
    present = decide(present, seen(803, share=share(present.step)))
    present = decide(present, seen(804, share=share(present.step)))
    present = decide(present, seen(805, share=share(present.step)))
    assert (present.phase, present.confirmed.revision.release) == ("confirmed", A)


def test_an_abort_sends_a_machine_back_to_the_placement_before():
    moved = group(placement={"camera": "r1", "arm": "r1"})
    present = looked(began(confirmed(), in_group(B, 2, group=moved), 200), 240)
    present = taken(present, in_group(A, 3))
    present = looked(present, 241)
    assert (present.phase, present.applied.revision) == ("reverting", Revision(A, group=CELL))
    present = decide(present, seen(242, share=share(present.step)))
    assert (present.phase, present.failed) == ("confirmed", [])


def test_another_revision_ends_a_probation_that_nobody_will_commit():
    present = taken(looked(on_probation(), 240), in_group(C, 3))
    present = looked(present, 241)
    assert (present.phase, present.reason, present.failed) == (
        "reverting", "another order has arrived", [],
    )  # fmt: skip
    # One that is committed is finished first.
    present = taken(taken(on_probation(), committed(B, 2)), in_group(C, 3))
    assert looked(present, 241, health=health(healthy=False)).phase == "probation"


def test_a_machine_that_stays_as_ordered_follows_a_commit():
    present = looked(looked(on_probation(auto_revert=False), 240), 801)
    assert (present.phase, present.applied.revision.release) == ("stuck", B)
    present = taken(present, committed(B, 2, auto_revert=False))
    present = decide(present, seen(810, release=B, share=share(present.step)))
    present = decide(present, seen(811, share=share(present.step)))
    assert looked(present, 850).phase == "confirmed"


@pytest.mark.parametrize("committed", [False, True])
def test_a_machine_alone_follows_its_own_rules_whatever_the_order_says_of_a_commit(committed):
    asked = order(B, 2, committed=committed)
    present = began(confirmed(), asked, 200)
    silent = seen(240, share=share(present.step), health=health(), contact=201)
    assert decide(present, silent).phase == "probation"
    late = looked(present, 501, health=bad(("node camera", "gets nothing on: angle")))
    assert (late.phase, len(late.failed)) == ("reverting", 1)
    cut = decide(decide(present, silent), replace(silent, now=801))
    assert (cut.phase, cut.failed) == ("reverting", [])
    assert taken(cut, asked).next is None
    assert taken(reverted(cut), asked).phase == "reverted"


# -- rejections


def revisions():
    return [Revision(B, group=CELL), Revision(B, group=group(UUID)), Revision(B)]


def rejecting(**more):
    return taken(confirmed(), in_group(A, 2, rejects=[Rejection(release=B, **more)]))


def test_a_rejection_means_one_placement_or_all_of_them():
    one, other, alone = revisions()
    present = rejecting(group=CELL)
    assert [present.is_rejected(each) for each in (one, other, alone)] == [True, False, False]
    present = rejecting()
    assert [present.is_rejected(each) for each in (one, other, alone)] == [True, True, True]
    assert not present.is_rejected(replace(one, params={"camera/rate": 1}))
    assert rejecting(whole=True).is_rejected(replace(one, params={"camera/rate": 1}))


def test_another_placement_of_the_same_release_can_be_undone():
    moved = group(placement={"camera": "r1", "arm": "r1"})
    present = looked(began(confirmed(), in_group(A, 2, group=moved), 200), 240)
    present = looked(taken(present, committed(A, 2, group=moved)), 241)
    assert present.confirmed.revision.group == moved
    undone = Rejection(release=A, group=moved, reason="undone by ana")
    present = began(present, in_group(A, 3, rejects=[undone]), 300)
    assert not present.is_rejected(Revision(A, group=CELL))
    present = looked(present, 310, health=health(healthy=False, fatal="node camera has failed"))
    # Both placements are out: the one was undone, the other has failed.
    assert present.phase == "stuck"
    assert present.is_rejected(Revision(A, group=moved))


def test_what_is_ordered_again_is_not_rejected_any_more():
    for more in ({"group": CELL}, {}, {"whole": True}):
        present = taken(rejecting(**more), in_group(B, 3))
        assert (present.rejected, present.is_rejected(revision_of(present.order))) == ([], False)


def test_a_failure_in_one_placement_says_nothing_of_another():
    fatal = health(healthy=False, fatal="node camera has failed")
    present = looked(on_probation(), 210, health=fatal)
    assert [present.is_rejected(each) for each in revisions()] == [True, False, False]


def test_an_agent_that_knows_no_groups_ignores_them():
    class Before(msgspec.Struct):
        release: str

    sent = msgspec.json.encode(in_group())
    assert msgspec.json.decode(sent, type=Before).release == A
    assert msgspec.json.decode(sent, type=ReleaseOrder).group == CELL


def test_a_machine_that_runs_nothing_misses_outputs_of_others_only():
    missed = Evidence(check="output camera/image", ok=False, text="sends too little")
    assert is_about_links(missed, None)
