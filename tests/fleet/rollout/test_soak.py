"""Robots that are confirmed are watched on; and how fast, and where to, an undo goes."""

from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest

from dorad.control.errors import ControlError
from dorad.control.messages.releases import ReleaseState
from dorafleet.coordinator.rolloutdriver import is_available
from dorafleet.coordinator.rolloutorders import before_of, rejected_of, wanted_of
from dorafleet.rollout.decide import decide
from dorafleet.rollout.operate import Pace, operate
from dorafleet.rollout.strategy import Budget, parallel
from dorafleet.rollout.summary import row, summarise

from .site import ID1, ID2
from .test_decide import leave, world
from .world import NEW, OLD

SOAK_S = 600.0
FAILED = {"cam": "has failed: it exited with code 1"}


def soaking(**keys):
    """Return a rollout whose robots are all confirmed, and watched."""
    one = world(soak_time=SOAK_S, **keys)
    one.settle()
    assert one.rollout.phase == "soaking"
    return one


def fail(one, robot):
    """Let nodes of a robot fail after its confirmation."""
    found = one.robots[robot]
    assert found.state.phase == "confirmed"
    found.state = msgspec.structs.replace(found.state, failed=FAILED)


def undo(one, **pace):
    members = one.members.values()
    given = Pace(**pace) if pace else None
    one.rollout = operate(one.rollout, members, "undo", "ann", one.now, given)


def going_back(one):
    return [id_ for id_, member in one.members.items() if member.order == "back"]


# -- the soak


def test_a_rollout_ends_when_its_robots_were_watched_for_the_soak_time():
    one = soaking()
    one.now += SOAK_S - 1
    one.settle()
    assert one.rollout.phase == "soaking"
    assert not one.is_over
    one.now += 1
    one.settle()
    assert one.rollout.phase == "succeeded"
    assert one.is_over


def test_the_soak_is_counted_from_the_last_confirmation():
    one = world(soak_time=SOAK_S, max_parallel=1)
    while one.members["r3"].verdict != "confirmed":
        one.now += 100
        one.step()
        for robot in one.robots.values():
            robot.deliver(one.now)
            robot.progress(one.now)
    last = one.now
    one.settle()
    rows = [row(one.view(), member, None) for member in one.members.values()]
    assert summarise(one.view(), decide(one.view()), rows).soaks_until == last + SOAK_S


def test_without_a_soak_time_a_rollout_ends_at_once():
    one = world(soak_time=0.0)
    one.settle()
    assert one.rollout.phase == "succeeded"


def test_a_canary_whose_nodes_fail_after_its_confirmation_stops_the_next_batch():
    one = world(5, canary=1, max_parallel=1, soak_time=SOAK_S)
    while one.rollout.phase != "rolling":
        one.step()
        for robot in one.robots.values():
            robot.deliver(one.now)
            robot.progress(one.now)
    fail(one, "r1")
    one.settle()
    assert one.rollout.phase == "reverted"
    assert one.rollout.reason == (
        "the canary failed after its confirmation: "
        "`r1` (node cam has failed: it exited with code 1)"
    )
    assert {robot.running for robot in one.robots.values()} == {OLD}
    assert one.orders("switch") in (["r1"], ["r1", "r2"])


@pytest.mark.parametrize(
    ("fates", "phase", "words"),
    [
        (("reverted", "confirmed"), "reverted", "the canary failed: `r1`"),
        (("refused", "refused"), "refused", "the canary refuses it: `r1`"),
    ],
)
def test_canaries_that_fail_end_the_rollout_before_all_others(fates, phase, words):
    one = world(4, canary=2, max_parallel=2, soak_time=SOAK_S)
    for robot, fate in zip(("r1", "r2"), fates, strict=True):
        one.robots[robot].fate = fate
    one.settle()
    assert one.rollout.phase == phase
    assert one.rollout.reason.startswith(words)
    assert not {"r3", "r4"} & {*one.orders("stage"), *one.orders("switch")}


def test_a_canary_that_fails_before_its_promotion_is_not_promoted():
    one = world(canary=1, auto_promote=False, soak_time=SOAK_S)
    one.settle()
    assert one.rollout.phase == "awaiting_promotion"
    fail(one, "r1")
    one.settle()
    assert one.rollout.phase == "reverted"


def test_failures_of_other_robots_count_for_the_threshold():
    one = soaking(size=5, failure_threshold=1)
    fail(one, "r2")
    one.step()
    assert one.rollout.phase == "soaking"
    assert one.members["r2"].verdict == "failed"
    assert one.members["r2"].evidence[0].check == "node cam"
    one.settle()
    assert one.members["r2"].verdict == "reverted"
    fail(one, "r4")
    one.settle()
    assert one.rollout.phase == "reverted"
    assert one.rollout.reason.startswith("2 failed, 1 accepted: `r2`")
    assert {robot.running for robot in one.robots.values()} == {OLD}


def test_a_robot_that_fails_within_the_threshold_goes_back_and_still_counts():
    one = soaking(size=4, failure_threshold=1)
    fail(one, "r2")
    one.settle()
    assert one.orders("withdraw") == ["r2"]
    assert (one.rollout.phase, one.members["r2"].verdict) == ("soaking", "reverted")
    assert {id_: robot.running for id_, robot in one.robots.items()} == {
        "r1": NEW, "r2": OLD, "r3": NEW, "r4": NEW,
    }  # fmt: skip
    one.now += SOAK_S
    one.settle()
    assert one.rollout.phase == "succeeded_partially"
    assert one.rollout.reason.startswith("failed: `r2`")
    assert one.is_over


def test_a_robot_that_went_back_alone_counts_as_failed_on_its_way():
    one = soaking(size=4, failure_threshold=0)
    one.robots["r2"].go_back(one.now)
    one.step()
    assert one.members["r2"].verdict == "failed"
    one.settle()
    assert one.rollout.phase == "reverted"
    assert {robot.running for robot in one.robots.values()} == {OLD}
    assert one.orders("withdraw") == []


def test_a_robot_that_went_back_alone_while_it_was_off_is_heard_after_the_end():
    one = soaking(size=4)
    leave(one, "r2")
    one.robots["r2"].go_back(one.now)
    one.robots["r2"].progress(one.now)
    one.now += SOAK_S
    one.robots["r2"].connected = False
    before = one.robots["r2"].state
    one.robots["r2"].state = msgspec.structs.replace(before, phase="confirmed")  # its last report
    one.settle()
    assert (one.rollout.phase, one.is_over) == ("succeeded", False)
    one.robots["r2"].connected, one.robots["r2"].state = True, before
    one.settle()
    assert one.members["r2"].verdict == "reverted"
    assert one.is_over


def test_without_a_return_of_all_a_failed_robot_goes_back_all_the_same():
    one = soaking(size=4, failure_threshold=0, auto_revert=False)
    fail(one, "r2")
    one.settle()
    assert (one.rollout.phase, one.members["r2"].verdict) == ("failed", "reverted")
    assert [id_ for id_, robot in one.robots.items() if robot.running == OLD] == ["r2"]


def test_a_failed_robot_that_is_off_goes_back_when_it_is_there_again():
    one = soaking(size=4)
    fail(one, "r2")
    one.step()
    leave(one, "r2")
    one.now += SOAK_S
    one.settle()
    assert (one.rollout.phase, one.members["r2"].verdict) == ("succeeded_partially", "failed")
    assert not one.is_over
    one.robots["r2"].connected = True
    one.settle()
    assert (one.members["r2"].verdict, one.robots["r2"].running) == ("reverted", OLD)
    assert one.is_over


def test_a_failure_after_the_end_is_not_the_rollouts():
    one = soaking()
    one.now += SOAK_S
    one.settle()
    fail(one, "r1")
    one.settle()
    assert (one.rollout.phase, one.members["r1"].verdict) == ("succeeded", "confirmed")


def test_a_robot_that_follows_later_has_a_soak_of_its_own():
    one = world(soak_time=SOAK_S)
    leave(one, "r3")
    one.settle()
    one.now += 20
    one.settle()
    assert one.rollout.phase == "soaking"
    one.now += SOAK_S
    one.settle()
    assert (one.rollout.phase, one.rollout.reason) == ("settled", "for later: `r3`")
    fail(one, "r1")  # its own soak is over
    one.robots["r3"].connected = True
    one.settle()
    assert (one.rollout.phase, one.members["r3"].verdict) == ("settled", "confirmed")
    assert one.members["r1"].verdict == "confirmed"
    fail(one, "r3")
    one.settle()
    assert one.members["r3"].verdict == "reverted"


def test_a_paused_rollout_counts_failures_and_acts_on_them_after_the_pause():
    one = soaking(canary=1)
    one.operate("pause")
    fail(one, "r1")
    one.settle()
    assert (one.rollout.phase, one.members["r1"].verdict) == ("soaking", "failed")
    one.operate("resume")
    one.settle()
    assert one.rollout.phase == "reverted"


def test_an_abort_ends_the_soak_and_leaves_the_release():
    one = soaking()
    one.operate("abort")
    one.settle()
    assert one.rollout.phase == "aborted"
    assert {robot.running for robot in one.robots.values()} == {NEW}


# -- the pace of an undo


def test_an_undo_all_at_once_ignores_the_limits_but_no_lease():
    budget = Budget(group_by="zone")
    one = soaking(size=5, max_parallel=1, disruption_budget=budget)
    one.robots["r5"].leased_at = one.now
    undo(one, at_once=True)
    one.step()
    assert going_back(one) == ["r1", "r2", "r3", "r4"]
    one.settle()
    assert one.robots["r5"].running == NEW


def test_an_undo_may_take_another_number_at_a_time():
    one = soaking(size=5, max_parallel=1)
    undo(one, parallel="60%")
    one.step()
    assert len(going_back(one)) == 3
    slow = soaking(size=5, max_parallel=5)
    undo(slow, parallel=2)
    slow.step()
    assert len(going_back(slow)) == 2


@pytest.mark.parametrize("least", [1, "1%"])
def test_an_undo_may_take_one_robot_at_a_time(least):
    one = soaking(size=5, max_parallel=5)
    undo(one, parallel=least)
    one.step()
    assert len(going_back(one)) == 1


def test_an_undo_that_has_begun_may_go_faster():
    one = soaking(size=5, max_parallel=1)
    undo(one)
    one.step()
    assert len(going_back(one)) == 1
    with pytest.raises(ControlError, match="it is reverting"):
        undo(one)
    undo(one, at_once=True)
    assert one.rollout.phase == "reverting"
    one.step()
    assert len(going_back(one)) == 5


@pytest.mark.parametrize("wrong", [0, "0%", "many", -1, "200%"])
def test_an_impossible_pace_is_refused(wrong):
    one = soaking()
    with pytest.raises(ControlError) as caught:
        undo(one, parallel=wrong)
    assert caught.value.code == "bad-request"
    assert caught.value.message.startswith("max_parallel: ")


def test_a_pace_changes_nothing_about_switches_forward():
    one = soaking(size=5, max_parallel=1)
    assert parallel(one.rollout.strategy, 5) == 1
    assert parallel(one.rollout.strategy, 5, 4) == 4


# -- rejected releases


def test_an_undo_rejects_its_release_and_the_order_says_so():
    one = soaking()
    undo(one)
    assert one.rollout.rejected
    one.settle()
    wanted = wanted_of(one.rollout, one.members["r1"], frozenset())
    assert [each.release for each in wanted.rejects] == [NEW]
    assert not wanted.stay
    assert rejected_of([one.rollout]) == {NEW}


def test_an_order_names_what_was_undone_while_the_robot_was_off():
    one = soaking()
    wanted = wanted_of(one.rollout, one.members["r1"], frozenset({OLD, NEW, ID1}))
    assert [(each.release, each.whole) for each in wanted.rejects] == [(ID1, True), (OLD, True)]
    assert (wanted.soak_time, wanted.withdraw) == (SOAK_S, False)


def test_a_rollout_of_other_parameters_rejects_no_release():
    one = soaking()
    one.members = {
        id_: msgspec.structs.replace(member, before=NEW) for id_, member in one.members.items()
    }
    undo(one)
    assert not one.rollout.rejected


def test_a_release_that_is_rolled_out_again_is_not_rejected_any_more():
    one = soaking()
    undo(one)
    again = msgspec.structs.replace(one.rollout, number=2, rejected=False)
    assert rejected_of([again, one.rollout]) == frozenset()


def test_a_robot_goes_back_to_the_last_confirmed_release_that_was_not_undone():
    state = ReleaseState(
        dataflow="pick", epoch=1, generation=1, phase="confirmed", since=0.0, release=ID2,
        confirmed=ID2, previous=ID1,
    )  # fmt: skip
    assert before_of(state, frozenset()) == (ID2, None)
    assert before_of(state, {ID2}) == (ID1, None)
    assert before_of(state, {ID1, ID2})[0] == ID2  # there is none: the rollout says so


def test_a_robot_without_a_way_back_keeps_the_release_and_the_rollout_says_so():
    one = soaking()
    undo(one)
    view = one.view
    one.view = lambda: replace(view(), rejected=frozenset({OLD}))
    one.settle()
    assert one.rollout.phase == "revert_incomplete"
    assert "the one before was undone, too" in one.rollout.reason
    assert {robot.running for robot in one.robots.values()} == {NEW}
    shown = row(one.view(), one.members["r1"], None)
    assert "the one before was undone, too" in shown.reason
    assert not shown.goes_back


def test_a_robot_whose_nodes_have_failed_is_unavailable_for_a_budget():
    state = ReleaseState(
        dataflow="pick", epoch=1, generation=1, phase="confirmed", since=0.0, release=ID1,
        running=ID1, confirmed=ID1,
    )  # fmt: skip
    robot = SimpleNamespace(trouble="", shares={}, releases={"pick": state})
    assert is_available(robot)
    robot.releases = {"pick": msgspec.structs.replace(state, failed=FAILED)}
    assert not is_available(robot)
