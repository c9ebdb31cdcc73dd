"""Single decisions of the state machine, with times that no test waits for."""

from typing import get_args

import msgspec
import pytest

from dorad.control.errors import ControlError
from dorad.control.messages.releases import ReleaseState
from dorafleet.rollout.decide import YIELD_S, decide, goes_back
from dorafleet.rollout.messages import RolloutRobot
from dorafleet.rollout.model import Member, Phase, Rollout, Seen
from dorafleet.rollout.operate import (
    is_moving_on,
    operate,
    possible_acts,
    refuse,
    undo_instances,
)
from dorafleet.rollout.phases import BUSY_AGAIN_S, DEFER_S
from dorafleet.rollout.steps import Enter
from dorafleet.rollout.strategy import Strategy
from dorafleet.rollout.summary import summarise
from dorafleet.rollout.verdicts import MAX_REASON, judge

from .world import NEW, OLD, START, World


def world(size=3, **keys):
    strategy = Strategy(**{"canary": 0, "soak_time": 0.0, **keys})
    members = [
        Member(robot=f"r{n}", batch=0 if n <= int(strategy.canary) else 1, before=OLD)
        for n in range(1, size + 1)
    ]
    rollout = Rollout(
        number=1,
        dataflow="pick",
        release=NEW,
        name="pick@2",
        strategy=strategy,
        size=size,
        by="ann",
        created=START,
    )
    return World(rollout, members, {})


def leave(one, robot):
    one.robots[robot].connected = False
    one.robots[robot].away_at = one.now


def test_a_robot_that_never_comes_back_ends_the_rollout_partially_after_30_days():
    one = world()
    leave(one, "r3")
    one.settle()
    assert one.rollout.phase == "rolling"  # it may come back at any moment
    one.now += DEFER_S
    one.settle()
    assert one.rollout.phase == "settled"
    assert not one.is_over
    one.now += 30 * 86400.0
    one.settle()
    assert one.rollout.phase == "succeeded_partially"
    assert one.rollout.reason == "not reached in time: `r3`"
    assert one.is_over


@pytest.mark.parametrize(
    ("fate", "phase", "reason"),
    [
        ("refused", "refused", "not reached in time: `r2`; failed: `r1` (another architecture)"),
        ("reverted", "failed", "no robot is left: not reached in time: `r2`; failed: "),
    ],
)
def test_a_rollout_that_has_reached_no_robot_is_no_partial_success(fate, phase, reason):
    one = world(size=2)
    one.robots["r1"].fate = fate
    leave(one, "r2")
    one.now += DEFER_S
    one.settle()
    assert one.rollout.phase == "settled"
    one.now += 30 * 86400.0
    one.settle()
    assert one.rollout.phase == phase
    assert one.rollout.reason.startswith(reason)


def test_a_rollout_whose_robots_all_stay_off_has_failed():
    one = world(size=2)
    for robot in one.robots:
        leave(one, robot)
    one.now += DEFER_S
    one.settle()
    one.now += 30 * 86400.0
    one.settle()
    assert one.rollout.phase == "failed"
    assert one.rollout.reason == "not reached in time: `r1`, `r2`"


def test_a_lease_that_lasts_too_long_is_left_for_later():
    one = world(busy_max=3600.0)
    one.robots["r1"].leased_at = one.now
    one.settle()
    assert one.rollout.phase == "rolling"
    one.now += 3600.0
    one.settle()
    assert one.rollout.phase == "settled"
    assert one.members["r1"].verdict == ""
    one.robots["r1"].leased_at = None
    one.settle()
    assert one.rollout.phase == "succeeded"


def test_a_lease_that_begins_after_the_order_gives_the_place_to_others_in_the_end():
    one = world(size=2, max_parallel=1, busy_max=3600.0)
    while one.orders("switch") != ["r1"]:
        one.step()
        for robot in one.robots.values():
            robot.deliver(one.now)
            if robot.state is None or robot.state.phase != "staged":
                robot.progress(one.now)
    one.robots["r1"].leased_at = one.now
    one.settle()
    assert one.members["r1"].in_flight
    assert one.members["r2"].verdict == ""
    one.now += 3600.0
    one.settle()
    assert one.members["r2"].verdict == "confirmed"
    assert one.rollout.phase == "settled"
    assert one.robots["r1"].switches == []


def test_a_robot_whose_probe_says_no_gives_its_place_to_the_others():
    one = world(size=3, max_parallel=1, busy_max=3600.0)
    one.robots["r1"].unsafe = True
    one.settle()
    assert one.members["r1"].in_flight
    one.now += YIELD_S
    one.settle()
    assert [one.members[robot].verdict for robot in ("r1", "r2", "r3")] == [
        "",
        "confirmed",
        "confirmed",
    ]
    assert one.members["r1"].in_flight  # once more, after the others
    assert one.rollout.phase == "rolling"
    one.now += 3600.0
    one.settle()
    assert one.rollout.phase == "settled"
    steps = one.rollout.steps
    one.now += 1800.0
    one.settle()
    assert one.rollout.steps == steps  # it is not asked all the time
    one.robots["r1"].unsafe, one.robots["r1"].leased_at = False, None
    one.now += BUSY_AGAIN_S
    one.settle()
    assert one.rollout.phase == "succeeded"


@pytest.mark.parametrize("held", ["window", "pause"])
def test_a_robot_that_is_busy_when_it_may_switch_no_longer_does_not_when_its_lease_ends(held):
    one = world(size=1, windows=["Fri 08:00-08:10"])  # it is Friday, 08:00
    one.robots["r1"].unsafe = True
    one.settle()
    assert one.members["r1"].in_flight
    if held == "window":
        one.now += 600.0
    else:
        one.operate("pause")
    one.settle()
    one.robots["r1"].unsafe, one.robots["r1"].leased_at = False, None
    one.settle()
    assert one.robots["r1"].switches == []
    if held == "window":
        one.now += 7 * 86400.0 - 600.0
    else:
        one.operate("resume")
    one.settle()
    assert one.robots["r1"].switches == [NEW]
    assert one.rollout.phase == "succeeded"


def test_an_order_that_has_not_arrived_when_the_window_closes_is_taken_back():
    one = world(size=1, windows=["Fri 08:00-08:05"])
    while one.orders("switch") != ["r1"]:
        one.step()
        if not one.orders("switch"):
            one.robots["r1"].deliver(one.now)
            one.robots["r1"].progress(one.now)
    leave(one, "r1")
    one.now += 300.0
    one.settle()
    one.robots["r1"].connected = True
    one.settle()
    assert one.robots["r1"].switches == []
    one.now += 7 * 86400.0 - 300.0
    one.settle()
    assert one.rollout.phase == "succeeded"


def test_failures_of_robots_that_follow_later_bring_no_others_back():
    one = world(size=4, failure_threshold=0)
    leave(one, "r4")
    one.settle()
    one.now += DEFER_S
    one.settle()
    one.robots["r4"].fate, one.robots["r4"].connected = "reverted", True
    one.settle()
    assert one.rollout.phase == "failed"
    assert "no robot is left" in one.rollout.reason
    assert [one.robots[f"r{n}"].running for n in (1, 2, 3, 4)] == [NEW, NEW, NEW, OLD]
    one.operate("undo")
    one.settle()
    assert one.rollout.phase == "reverted"
    assert {robot.running for robot in one.robots.values()} == {OLD}


def test_without_auto_revert_robots_stay_and_undo_brings_them_back():
    one = world(size=3, max_parallel=1, failure_threshold=0, auto_revert=False)
    one.robots["r2"].fate = "reverted"
    one.settle()
    assert one.rollout.phase == "failed"
    assert [one.robots[f"r{n}"].running for n in (1, 2, 3)] == [NEW, OLD, OLD]
    assert one.robots["r3"].switches == []
    one.operate("undo")
    one.settle()
    assert one.rollout.phase == "reverted"
    assert {robot.running for robot in one.robots.values()} == {OLD}


def test_an_undo_names_the_robots_that_it_switches_back_and_no_other_one():
    one = world(size=4, max_parallel=1, failure_threshold=0, auto_revert=False)
    one.robots["r3"].fate = "reverted"
    one.settle()
    assert [one.robots[f"r{n}"].running for n in (1, 2, 3, 4)] == [NEW, NEW, OLD, OLD]
    named = [id_ for id_, each in one.members.items() if goes_back(one.view(), each)]
    assert named == ["r1", "r2"]
    one.operate("undo")
    one.settle()
    assert one.orders("back") == named


def test_an_undo_brings_robots_on_probation_back_at_once_unless_they_are_busy():
    one = world(size=2, max_parallel=2)
    one.robots["r2"].fate = "reverted"
    while {robot.state and robot.state.phase for robot in one.robots.values()} != {"probation"}:
        one.step()
        for robot in one.robots.values():
            robot.deliver(one.now)
            robot.progress(one.now)
    one.robots["r1"].leased_at = one.now
    one.operate("undo")
    one.settle()
    assert one.orders("back") == ["r2"]
    assert (one.members["r1"].verdict, one.members["r2"].verdict) == ("confirmed", "back")
    one.robots["r1"].leased_at = None
    one.settle()
    assert one.rollout.phase == "reverted"
    assert {robot.running for robot in one.robots.values()} == {OLD}


def test_robots_that_are_off_during_an_undo_follow():
    one = world()
    one.settle()
    leave(one, "r2")
    one.operate("undo")
    one.settle()
    one.now += DEFER_S
    one.settle()
    assert one.rollout.phase == "revert_incomplete"
    assert "not reached: `r2`" in one.rollout.reason
    one.robots["r2"].connected = True
    one.settle()
    assert one.rollout.phase == "reverted"
    assert one.robots["r2"].running == OLD


def test_abort_leaves_a_switch_that_has_begun_to_the_robot():
    one = world(size=3, max_parallel=1)
    while not one.robots["r1"].moving:
        one.step()
        for robot in one.robots.values():
            robot.deliver(one.now)
            robot.progress(one.now)
    one.operate("abort")
    assert not one.is_over
    one.settle()
    assert one.members["r1"].verdict == "confirmed"
    assert one.robots["r1"].running == NEW
    assert one.robots["r2"].switches == one.robots["r3"].switches == []
    assert one.is_over


@pytest.mark.parametrize(
    ("phase", "acts"),
    [
        ("canary", {"pause", "abort", "supersede"}),
        ("awaiting_promotion", {"pause", "promote", "abort", "supersede"}),
        ("settled", {"pause", "abort", "supersede", "undo"}),
        ("succeeded", {"undo"}),
        ("reverting", {"pause"}),
        ("reverted", set()),
        ("superseded", set()),
        ("aborted", {"undo"}),
        ("failed", {"undo"}),
    ],
)
def test_what_an_operator_may_do_depends_on_the_phase(phase, acts):
    for act in ("pause", "resume", "promote", "abort", "undo"):
        one = world()
        if phase not in ("canary", "awaiting_promotion"):
            one.settle()
        one.rollout = msgspec.structs.replace(one.rollout, phase=phase)
        if act in acts:
            one.operate(act)
            continue
        with pytest.raises(ControlError) as caught:
            one.operate(act)
        assert caught.value.code == "refused"
        assert "rollout 1: " in caught.value.message


@pytest.mark.parametrize(
    ("phase", "paused", "acts"),
    [
        ("planned", False, {"pause", "abort", "undo"}),
        ("rolling", True, {"resume", "abort", "undo"}),
        ("awaiting_promotion", False, {"pause", "promote", "abort", "undo"}),
        ("settled", False, {"pause", "abort", "undo"}),
        ("succeeded", False, {"undo"}),
        ("reverting", False, {"pause"}),
        ("reverting", True, {"resume"}),
        ("reverted", False, set()),
        ("superseded", False, set()),
    ],
)
def test_what_is_offered_to_an_operator_depends_on_the_phase(phase, paused, acts):
    assert possible_acts(phase, paused=paused) == acts


def test_a_rollout_moves_on_while_robots_may_switch_or_go_back():
    one = world()
    assert not is_moving_on(one.rollout, one.members.values())
    moving = [Member(robot="r1", batch=1, order="switch")]
    assert is_moving_on(one.rollout, moving)
    back = msgspec.structs.replace(one.rollout, phase="reverting")
    assert is_moving_on(back, [])
    assert not is_moving_on(msgspec.structs.replace(back, paused=True), [])
    assert is_moving_on(msgspec.structs.replace(back, paused=True), moving)


def test_a_phase_that_is_entered_again_begins_anew():
    one = world()
    one.rollout = msgspec.structs.replace(
        one.rollout, phase="rolling", paused=True, question="go on?", over=True
    )
    one.operate("abort")
    rollout = one.rollout
    assert (rollout.phase, rollout.paused, rollout.question, rollout.over) == (
        "aborted", False, "", False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("order", "verdict", "expected"),
    [
        ("", "", None),
        ("stage", "", None),
        ("switch", "confirmed", None),
        ("switch", "", "lost"),
        ("back", "", "back"),
    ],
)
def test_a_robot_that_something_else_orders_about_gets_its_verdict(order, verdict, expected):
    member = Member(robot="r1", batch=1, before=OLD, order=order, verdict=verdict)
    found = judge(member, Seen(reachable=True, owned=False), NEW, Strategy())
    assert (found and found.verdict) == expected
    if found:
        assert "another order before it had reported a verdict" in found.reason


def test_a_robot_that_does_not_take_the_files_is_refused_once_and_only_while_it_waits():
    state = ReleaseState("pick", 1, 5, "pending", 0.0, NEW, waiting="files")
    lacking = Seen(reachable=True, state=state)
    member = Member("r1", 1, before=OLD, order="stage", generation=5)
    rollout = msgspec.structs.replace(world().rollout, phase="rolling")
    found = refuse(rollout, member, lacking, "x" * 9999)
    assert (found.robot, found.verdict, found.reason) == ("r1", "refused", "x" * MAX_REASON)
    done = msgspec.structs.replace(member, verdict="refused")
    assert refuse(rollout, done, lacking, "again") is None
    with pytest.raises(ControlError, match="it is reverting"):
        refuse(msgspec.structs.replace(rollout, phase="reverting"), member, lacking, "x")
    with pytest.raises(ControlError, match="`r1` does not wait for files"):
        refuse(rollout, member, Seen(reachable=True), "x")


def test_a_wave_counts_its_robots_by_what_has_become_of_them():
    states = ["confirmed", "reverted", "stuck", "lost", "switching", "probation", "pending"]
    rows = [RolloutRobot(1, f"r{n}", 1 + n // 5, each, True) for n, each in enumerate(states)]
    one = world()
    found = summarise(one.view(), decide(one.view()), rows)
    waves = [(each.batch, each.size, each.confirmed, each.moving, each.failed)
             for each in found.waves]  # fmt: skip
    assert waves == [(1, 5, 1, 1, 3), (2, 2, 0, 1, 0)]
    assert found.counts == dict.fromkeys(states, 1)
    assert found.soaks_until is None, "it does not soak"


@pytest.mark.parametrize(("soak", "phase"), [(0.0, "settled"), (60.0, "soaking")])
def test_a_rollout_to_canaries_only_soaks_if_it_is_to_soak(soak, phase):
    one = world(2, canary=2, soak_time=soak)
    one.settle()
    entered = [step.phase for step in one.steps if isinstance(step, Enter)]
    assert entered[:2] == ["canary", phase]


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("phase", get_args(Phase))
def test_exactly_what_is_offered_can_be_done_and_is_a_step_of_the_journal(phase, paused):
    has_it = Member("r1", 1, before=OLD, order="switch", verdict="confirmed")
    before = msgspec.structs.replace(
        world().rollout, phase=phase, paused=paused, question="go on?", over=True, steps=4
    )
    expected = {
        "pause": {"paused": True, "over": True, "question": "go on?", "phase": phase},
        "resume": {"paused": False, "over": True, "question": "", "phase": phase},
        "promote": {"phase": "rolling", "reason": "promoted by ann"},
        "abort": {"phase": "aborted", "reason": "aborted by ann"},
        "undo": {"phase": "reverting", "reason": "undone by ann", "rejected": True},
    }
    for act, fields in expected.items():
        if act not in possible_acts(phase, paused=paused):
            with pytest.raises(ControlError, match="rollout 1: "):
                operate(before, [has_it], act, "ann", 7.0)
            continue
        if "reason" in fields:
            fields = {"since": 7.0, "paused": False, "question": "", "over": False, **fields}
        after = operate(before, [has_it], act, "ann", 7.0)
        assert after == msgspec.structs.replace(before, steps=5, **fields)


# -- undone on some instances


def instances(phase="rolling", **fields):
    """Return a rollout to two instances of two machines, and its members."""
    members = [
        Member(f"{cell}{n}", 0 if cell == "a" else 1, before=OLD, instance=cell,
               order="switch" if cell != "c" else "", verdict="confirmed" if cell != "c" else "")
        for cell in "abc" for n in (1, 2)
    ]  # fmt: skip
    return msgspec.structs.replace(world().rollout, phase=phase, over=True, **fields), members


def test_an_instance_that_is_undone_marks_its_machines_and_opens_the_rollout_again():
    rollout, members = instances()
    after, changed = undo_instances(rollout, members, ["b"], "ann")
    assert (after.over, after.steps) == (False, rollout.steps + 1)
    by_id = {each.robot: each for each in members}
    assert changed == {
        each: msgspec.structs.replace(by_id[each], undone="undone by ann") for each in ("b1", "b2")
    }
    assert set(undo_instances(rollout, members, ["b", "a"], "ann")[1]) == {"a1", "a2", "b1", "b2"}


@pytest.mark.parametrize(
    ("phase", "name", "words"),
    [
        ("rolling", "x", "rollout 1 has no instance `x`"),
        ("rolling", "b2", "`b2` is a machine of `b`"),
        ("rolling", "c", "it has not given the release to `c`"),
        ("canary", "a", "`a` is a canary: undo all of it"),
        ("planned", "a", "`a` is a canary: undo all of it"),
        ("reverting", "b", "it is reverting"),
        ("reverted", "b", "it is reverted"),
        ("superseded", "b", "it is superseded"),
    ],
)
def test_an_instance_that_cannot_be_undone_alone_is_refused_with_the_reason(phase, name, words):
    rollout, members = instances(phase)
    with pytest.raises(ControlError) as caught:
        undo_instances(rollout, members, [name], "ann")
    assert words in str(caught.value)


def test_an_instance_is_undone_once():
    rollout, members = instances()
    _, changed = undo_instances(rollout, members, ["b"], "ann")
    after = [changed.get(each.robot, each) for each in members]
    with pytest.raises(ControlError, match="`b` was undone by ann already"):
        undo_instances(rollout, after, ["b"], "bob")
    # Also a canary once others follow, and one that only got ready.
    assert set(undo_instances(rollout, after, ["a"], "bob")[1]) == {"a1", "a2"}
    staged = [msgspec.structs.replace(each, order="stage", verdict="") for each in members]
    assert set(undo_instances(rollout, staged, ["c"], "bob")[1]) == {"c1", "c2"}
