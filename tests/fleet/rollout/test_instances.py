"""Orders that keep the machines of an instance together: single decisions, field by field."""

import dataclasses

import pytest
from msgspec.structs import replace

from dorad.control.messages import Share
from dorad.control.messages.releases import Evidence, Group, HealthRules, ReleaseState
from dorafleet.rollout.decide import YIELDS, decide, is_over
from dorafleet.rollout.gates import Passing
from dorafleet.rollout.instances import (
    ARM_S,
    BUSY_MACHINE,
    UNARMED,
    YIELD_S,
    arm,
    next_orders,
    switched_ahead,
    why_split,
    withdrawn_with,
)
from dorafleet.rollout.model import Member, Rollout, Seen, View
from dorafleet.rollout.phases import TOO_BUSY
from dorafleet.rollout.steps import Enter, Orders, Verdicts, apply
from dorafleet.rollout.strategy import Strategy
from dorafleet.rollout.verdicts import GIVEN_UP, LEFT, REMOVED, Judged, judge

from .world import NEW, OLD, START

UUID, OTHER = "00000000-0000-4000-8000-000000000007", "00000000-0000-4000-8000-000000000008"
STRATEGY = Strategy(
    progress_deadline=100.0, canary=0, soak_time=0.0, rules=HealthRules(confirm_deadline=50.0)
)
PLACED = {"camera": "r1", "arm": "r2"}


def group(robot, placed=PLACED, uuid=UUID):
    return Group(instance="cell1", uuid=uuid, share=Share(robot, placed))


def member(robot="r1", order="switch", **more):
    more.setdefault("instance", "cell1")
    more.setdefault("group", group(robot))
    more.setdefault("generation", 5)
    return Member(robot, 1, before=more.pop("before", OLD), order=order, **more)


def leaving(robot="r2", order="switch", **more):
    return member(robot, order, group=group(robot, {"camera": "r1"}), **more)


def state(phase="probation", **more):
    more.setdefault("generation", 5)
    return ReleaseState(
        dataflow="pick", epoch=1, phase=phase, since=0.0, release=more.pop("release", NEW), **more
    )


def seen(phase="probation", **more):
    names = ("reachable", "away_for", "phase_for", "leased_for", "owned", "ahead", "arms")
    outer = {name: more.pop(name) for name in names if name in more}
    return Seen(**{"reachable": True, "state": state(phase, **more)} | outer)


WELL = seen(healthy=True)


def view(*pairs, phase="rolling", **more):
    """Return the view of a rollout; each pair is a robot, and what is seen of it."""
    rejected = more.pop("rejected", frozenset())
    strategy = more.pop("strategy", STRATEGY)
    rollout = Rollout(
        number=1, dataflow="pick", release=NEW, name="pick@2", strategy=strategy,
        size=len(pairs), by="ann", created=START, phase=phase, **more,
    )  # fmt: skip
    members = {each.robot: each for each, _ in pairs}
    looks = {each.robot: look for each, look in pairs if look is not None}
    return View(rollout, members, looks, now=START, rejected=rejected)


def orders(*pairs, **more):
    """Return kind and robots of the next orders for instances, and the reason."""
    made = next_orders(view(*pairs, **more))
    return made and (made.kind, *made.robots)


# -- the fields that a step changes


def changes(before, after):
    names = before.__struct_fields__
    return {n: getattr(after, n) for n in names if getattr(after, n) != getattr(before, n)}


USED = member(
    order="stage", armed=True, withdrawn=True, committed=True, verdict="failed", reason="x",
    evidence=[Evidence(check="node a", ok=False, text="off")], at=1.0, lost=True,
)  # fmt: skip
NEW_ORDER = {
    "generation": 9, "at": 7.0, "armed": False, "withdrawn": False, "committed": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "before", "expected"),
    [
        (Verdicts((Judged("r1", "back", "so"),)), {},
         {"verdict": "back", "reason": "so", "evidence": [], "at": 7.0}),
        (Orders("switch", ("r1",), "so"), {},
         NEW_ORDER | {"order": "switch", "verdict": "", "reason": "so"}),
        (Orders("back", ("r1",)), {}, NEW_ORDER | {"order": "back", "verdict": "", "reason": ""}),
        (Orders("stage", ("r1",), "so"), {"order": "switch"},
         NEW_ORDER | {"order": "stage", "verdict": "", "reason": "so"}),
        # What is known of it remains.
        (Orders("recall", ("r1",), "so"), {}, NEW_ORDER | {"order": "recall"}),
        (Orders("arm", ("r1",)), {"armed": False}, {"generation": 9, "armed": True, "at": 7.0}),
        (Orders("withdraw", ("r1",)), {"withdrawn": False}, {"generation": 9, "withdrawn": True}),
        (Orders("commit", ("r1",)), {"committed": False},
         {"order": "switch", "generation": 9, "armed": False, "committed": True, "verdict": ""}),
        (Orders("commit", ("r1",)), {"committed": False, "verdict": "confirmed"},
         {"order": "switch", "generation": 9, "armed": False, "committed": True}),
    ],
    ids=str,
)  # fmt: skip
def test_a_step_changes_these_fields_of_a_robot_and_no_others(step, before, expected):
    robot = replace(USED, **before)
    rollout = view((robot, None)).rollout
    after, changed = apply(rollout, {"r1": robot, "r2": member("r2")}, step, 9, 7.0)
    assert changes(rollout, after) == {"steps": 1}
    assert [*changed] == ["r1"]
    assert changes(robot, changed["r1"]) == expected


@pytest.mark.parametrize(
    ("phase", "before", "known", "rejected"),
    [
        ("reverting", OLD, False, True),
        ("reverting", NEW, False, False),
        ("reverting", NEW, True, False),
        ("reverted", OLD, True, True),
        ("failed", OLD, False, False),
    ],
)
def test_a_new_phase_changes_the_rollout_and_only_going_back_rejects_the_release(
    phase, before, known, rejected
):
    robot = member(before=before)
    rollout = view((robot, None), rejected=frozenset(), steps=4).rollout
    rollout = replace(rollout, rejected=known)
    after, changed = apply(rollout, {"r1": robot}, Enter(phase, "so"), 9, 7.0)
    assert changed == {}
    assert changes(rollout, after) == {
        "steps": 5, "phase": phase, "reason": "so", "since": 7.0,
        **({} if rejected == known else {"rejected": rejected}),
    }  # fmt: skip


# -- the commit


@pytest.mark.parametrize(
    ("other", "look", "commits"),
    [
        (member("r2"), WELL, True),
        # One that has confirmed already has nothing to prove.
        (member("r2", verdict="confirmed"), seen("confirmed"), True),
        (member("r2", "stage"), WELL, False),
        (member("r2", committed=True), WELL, False),
        (member("r2"), seen(healthy=True, owned=False), False),
        (member("r2"), seen(healthy=True, reachable=False), False),
        (member("r2"), seen(healthy=True, generation=4), False),
        (member("r2"), seen("switching", healthy=True), False),
        (member("r2"), seen(healthy=False), False),
        (member("r2"), Seen(reachable=True), False),
        (member("r2"), None, False),
        (leaving(), seen("confirmed", running=""), True),
        (leaving(), seen("confirmed", running=OLD), False),
        (leaving(), seen("staged", running=""), False),
        (leaving(), seen("confirmed", running="", reachable=False), False),
        (leaving(), seen("confirmed", running="", generation=4), False),
        (leaving(lost=True), seen(reachable=False), True),
    ],
)
def test_an_instance_is_committed_once_each_machine_says_that_it_is_healthy(other, look, commits):
    pair = ((member("r1"), WELL), (other, look))
    expected = ("commit", "r1", "r2") if commits else None
    assert orders(*pair) == expected
    assert orders(*reversed(pair)) == (("commit", "r2", "r1") if commits else None)
    assert orders(*pair, phase="canary") == expected
    for back in ("reverting", "revert_incomplete"):
        assert orders(*pair, phase=back) is None


def test_nothing_is_committed_twice_or_for_a_robot_alone():
    done = [(member(robot, verdict="confirmed"), seen("confirmed")) for robot in ("r1", "r2")]
    assert orders(*done) is None
    assert orders((member("r1", instance="", group=None), WELL)) is None


AHEAD = {"ahead": True, "running": NEW, "group": group("r1")}


@pytest.mark.parametrize(
    ("first", "look", "commits"),
    [
        ({}, AHEAD, True),
        ({}, AHEAD | {"ahead": False}, False),
        ({}, AHEAD | {"running": OLD}, False),
        ({}, AHEAD | {"group": None}, False),
        ({}, AHEAD | {"group": group("r1", uuid=OTHER)}, False),
        ({"before": NEW}, AHEAD, False),
        ({"committed": True}, AHEAD, False),
        ({"group": None}, AHEAD, False),
    ],
)
def test_a_machine_that_has_confirmed_proves_that_the_instance_was_committed(first, look, commits):
    pair = (
        (member("r1", "stage", **first), seen("confirmed", **look)),
        (member("r2", "stage"), seen("staged")),
    )
    assert orders(*pair) == (("commit", "r1", "r2") if commits else None)
    assert orders((pair[0][0], seen("probation", **look)), pair[1]) is None
    assert orders((pair[0][0], Seen(reachable=True, ahead=True)), pair[1]) is None


# -- going back


@pytest.mark.parametrize(
    ("other", "look", "kind"),
    [
        (member("r2", "stage"), seen("staged"), "recall"),
        (member("r2", "stage"), seen("staged", owned=False), None),
        (member("r2", "stage", verdict="refused"), seen("staged"), None),
        (member("r2"), seen("switching"), "back"),
        (member("r2"), None, "back"),
        (member("r2"), seen("switching", owned=False), None),
        (member("r2", committed=True), seen(), None),
        (member("r2", verdict="confirmed"), seen("confirmed"), None),
        (member("r2", "back"), seen("reverting"), None),
        (member("r2", "recall"), seen("staged"), None),
    ],
)
def test_the_machines_of_an_instance_of_which_one_has_failed_go_back(other, look, kind):
    failed = (member("r1", verdict="reverted"), seen("reverted"))
    made = next_orders(view(failed, (other, look)))
    why = "`r1` of its instance has failed"
    assert made == (None if kind is None else Orders(kind, ("r2",), why))


def test_a_machine_that_may_not_have_got_its_order_gets_another_one():
    lost = (member("r1", verdict="lost"), seen(reachable=False))
    assert orders(lost, (member("r2"), seen())) == ("recall", "r1")
    # Then it is no order to switch any more, and the others go back.
    recalled = (member("r1", "recall", verdict="lost"), seen(reachable=False))
    assert orders(recalled, (member("r2"), seen())) == ("back", "r2")
    decided = (member("r1", verdict="lost", committed=True), seen(reachable=False))
    assert orders(decided, (member("r2"), seen())) == ("back", "r2")


@pytest.mark.parametrize(("before", "goes"), [(OLD, False), ("", True), ("c" * 64, True)])
def test_a_machine_without_a_way_back_stays_with_the_release(before, goes):
    failed = (member("r1", verdict="reverted"), seen("reverted"))
    pair = (failed, (member("r2", before=before), seen()))
    assert orders(*pair, rejected=frozenset({OLD, ""})) == (("back", "r2") if goes else None)


BUSY = {"waiting": "busy", "leased_for": YIELD_S}


@pytest.mark.parametrize(
    ("first", "look", "other", "other_look", "goes"),
    [
        ({}, seen("staged", **BUSY), {}, seen(), True),
        ({}, seen("staged", **BUSY | {"leased_for": YIELD_S - 0.1}), {}, seen(), False),
        ({}, seen("staged", leased_for=YIELD_S), {}, seen(), False),
        ({}, seen("switching", **BUSY), {}, seen(), False),
        # Then none has begun: nothing has to go back.
        ({}, seen("staged", **BUSY), {}, seen("staged", **BUSY), False),
        ({}, seen("staged", **BUSY), {"committed": True}, seen(), False),
        ({}, seen("staged", **BUSY), {"verdict": "confirmed"}, seen(), False),
        ({}, seen("staged", **BUSY), {"order": "stage"}, seen(), False),
        ({"order": "back"}, seen("staged", **BUSY), {}, seen(), False),
        ({}, seen("staged", generation=4, **BUSY), {}, seen(), False),
    ],
)
def test_a_busy_machine_takes_the_others_back_after_a_minute(first, look, other, other_look, goes):
    made = next_orders(view((member("r1", **first), look), (member("r2", **other), other_look)))
    assert made == (Orders("back", ("r1", "r2"), BUSY_MACHINE) if goes else None)


# -- reservations


def armed(*pairs, robots=("r1", "r2")):
    """Return kind and robots of the order about reservations, and who passes and waits."""
    passing = Passing([*robots], {"r9": "busy"})
    made = arm(view(*pairs), passing)
    assert passing.waiting.pop("r9") == "busy"
    return made and (made.kind, made.reason, *made.robots), passing.robots, passing.waiting


READY = seen("staged")
ARMED = seen("staged", armed=True)


def staged(robot, **more):
    more.setdefault("at", START - ARM_S)
    return member(robot, "stage", **more)


@pytest.mark.parametrize(
    ("one", "look", "other", "other_look", "order"),
    [
        ({}, READY, {}, READY, ("arm", "", "r1", "r2")),
        # Its software cannot reserve a switch.
        ({}, READY, {}, seen("staged", arms=False), ("arm", "", "r1")),
        ({"reason": UNARMED}, READY, {}, READY, None),
        ({"reason": UNARMED, "at": START - YIELD_S}, READY, {}, READY, ("arm", "", "r1", "r2")),
        ({"reason": UNARMED, "at": START - YIELD_S + 0.1}, READY, {}, READY, None),
        ({"armed": True}, ARMED, {"armed": True}, READY, ("stage", UNARMED, "r1", "r2")),
        ({"armed": True, "at": START - ARM_S + 0.1}, ARMED, {"armed": True}, READY, None),
        ({"armed": True}, ARMED, {"armed": True, "at": START - 1}, READY, None),
    ],
)
def test_the_machines_of_an_instance_reserve_their_switch_first(
    one, look, other, other_look, order
):
    made = armed((staged("r1", **one), look), (staged("r2", **other), other_look))
    if order is None:
        assert made == (None, [], {"r1": "machines", "r2": "machines"})
    else:
        assert made == (order, ["r1", "r2"], {})


@pytest.mark.parametrize(
    ("look", "passes"),
    [
        (ARMED, True),
        (seen("confirmed", running=NEW), True),
        (seen("confirmed", running=OLD), False),
        (seen("staged", running=NEW), False),
        (seen("staged", armed=True, generation=4), False),
        (Seen(reachable=True), False),
    ],
)
def test_they_switch_once_each_has_reserved_it_or_has_the_release(look, passes):
    pair = [staged(robot, armed=True, at=START) for robot in ("r1", "r2")]
    made = armed((pair[0], ARMED), (pair[1], look))
    waiting = {} if passes else {"r1": "machines", "r2": "machines"}
    assert made == (None, ["r1", "r2"] if passes else [], waiting)


def test_a_machine_alone_or_one_that_leaves_reserves_nothing():
    assert armed((staged("r1", instance=""), READY), robots=("r1",)) == (None, ["r1"], {})
    assert armed((staged("r1"), READY), robots=("r1",)) == (None, ["r1"], {})
    left = armed((staged("r1", armed=True), ARMED), (leaving("r2", "stage"), READY))
    assert left == (None, ["r1", "r2"], {})
    # One instance waits, another one passes.
    others = [staged(robot, instance="cell2", armed=True) for robot in ("r3", "r4")]
    made = armed(
        (staged("r1", armed=True, at=START), READY), (staged("r2", armed=True, at=START), READY),
        *((each, ARMED) for each in others), robots=("r1", "r2", "r3", "r4"),
    )  # fmt: skip
    assert made == (None, ["r3", "r4"], {"r1": "machines", "r2": "machines"})


# -- a store that was restored, and machines that are taken along


@pytest.mark.parametrize("phase", ["switching", "probation", "reverting", "reverted", "stuck"])
def test_a_switch_that_the_store_has_lost_was_ordered_for_the_whole_instance(phase):
    other = (member("r2", "stage"), seen("staged"))
    for first, look, found in (
        ({"order": "stage"}, {"ahead": True}, ["r1", "r2"]),
        ({"order": "stage"}, {}, []),
        ({}, {"ahead": True}, []),
    ):
        one = view((member("r1", **first), seen(phase, **look)), other)
        assert sorted(switched_ahead(one)) == found
    for phase_ in ("staged", "confirmed"):
        assert switched_ahead(view((member("r1", "stage"), seen(phase_, ahead=True)))) == ()
    gone = (member("r2", "stage"), seen("staged", owned=False))
    lost = view((member("r1", "stage"), seen(phase, ahead=True)), gone)
    assert switched_ahead(lost) == ("r1",)
    assert switched_ahead(view((member("r1", "stage"), Seen(ahead=True)))) == ()


@pytest.mark.parametrize(
    ("other", "look", "goes"),
    [
        ({"verdict": "confirmed"}, seen("confirmed"), True),
        ({"verdict": "stuck"}, seen("stuck"), False),
        ({"verdict": "confirmed", "order": "back"}, seen("confirmed"), False),
        ({"verdict": "confirmed", "withdrawn": True}, seen("confirmed"), False),
        ({"verdict": "confirmed"}, seen("confirmed", owned=False), False),
        ({"verdict": "confirmed"}, seen("confirmed", reachable=False), False),
        ({"verdict": "confirmed", "instance": "cell2"}, seen("confirmed"), False),
        ({"verdict": "confirmed", "instance": ""}, seen("confirmed"), False),
    ],
)
def test_machines_that_have_confirmed_go_back_with_one_that_fails_afterwards(other, look, goes):
    pair = ((member("r1", verdict="failed"), seen("confirmed")), (member("r2", **other), look))
    assert withdrawn_with(view(*pair), ("r1",)) == (("r1", "r2") if goes else ("r1",))
    assert withdrawn_with(view(*pair), ()) == ()
    # Also with one that has gone back already, if the instance was committed.
    back = (member("r1", verdict="reverted", committed=True), seen("reverted"))
    assert withdrawn_with(view(back, pair[1]), ()) == (("r2",) if goes else ())


def test_a_machine_that_follows_a_commit_later_says_which_have_it():
    late = member("r2", committed=True)
    one = view((member("r1", verdict="confirmed"), seen("confirmed")), (late, None))
    assert why_split(one, late) == "split: r1 confirmed it, this machine follows"
    for other in (replace(late, verdict="confirmed"), replace(late, committed=False)):
        assert why_split(one, other) == ""
    assert why_split(view((member("r1"), None), (late, None)), late) == ""


# -- machines without a node


@pytest.mark.parametrize(
    ("order", "more", "look", "verdict"),
    [
        ("switch", {"committed": True}, Seen(reachable=True), ("confirmed", LEFT)),
        ("switch", {"committed": True}, Seen(), None),
        ("switch", {"committed": True}, seen("confirmed", release="", running=""),
         ("confirmed", LEFT)),
        ("switch", {"committed": True}, seen("confirmed", release="", running=OLD), None),
        ("switch", {"committed": True}, seen("confirmed", running=""), None),
        ("switch", {"committed": True, "lost": True}, Seen(), ("removed", GIVEN_UP)),
        ("switch", {"committed": True, "verdict": "lost"}, Seen(reachable=True),
         ("confirmed", LEFT)),
        ("switch", {"committed": True, "verdict": "stuck"}, Seen(reachable=True), None),
        ("switch", {}, seen("staged", phase_for=100.0),
         ("lost", "no verdict for 100 s: it reports staged")),
        ("switch", {}, seen("staged", phase_for=99.9), None),
        ("switch", {"lost": True}, seen("staged", phase_for=100.0), None),
        ("switch", {"verdict": "lost"}, seen("staged", phase_for=100.0), None),
        ("stage", {}, seen("staged", phase_for=100.0), None),
        ("back", {"lost": True}, Seen(), ("removed", GIVEN_UP)),
        ("back", {}, seen("confirmed", running=OLD), ("back", "")),
        ("back", {}, seen("confirmed", running=NEW, phase_for=100.0),
         ("lost", "no verdict for 100 s: it reports confirmed")),
        ("back", {"verdict": "lost"}, seen("confirmed", running=NEW, phase_for=100.0), None),
        ("back", {"verdict": "lost"}, seen("confirmed", running=OLD), ("back", "")),
        ("switch", {"withdrawn": True, "verdict": "confirmed"}, seen("confirmed", running=OLD),
         ("reverted", "other machines of its instance went back")),
        ("switch", {"withdrawn": True, "verdict": "confirmed"}, seen("confirmed", running=NEW),
         None),
        ("switch", {"withdrawn": True, "verdict": "confirmed"}, seen("stuck", reason="no disk"),
         ("stuck", "no disk")),
        ("switch", {"withdrawn": True, "verdict": "reverted"}, seen("stuck"), None),
        ("switch", {"verdict": "confirmed"}, seen("stuck"), None),
    ],
)  # fmt: skip
def test_a_machine_that_is_left_without_a_node_is_judged_by_what_it_runs(
    order, more, look, verdict
):
    found = judge(leaving("r2", order, **more), look, NEW, STRATEGY)
    assert (found and (found.verdict, found.reason)) == verdict


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (member("r1"), "lost"),
        (member("r1", "stage"), "lost"),
        (member("r1", committed=True), "removed"),
        (member("r1", "back"), "removed"),
        (member("r1", instance="", group=None), "removed"),
        (member("r1", verdict="confirmed"), None),
        (member("r1", verdict="lost"), None),
    ],
)
def test_a_machine_that_leaves_the_fleet_before_its_commit_is_a_failure_of_its_instance(
    given, verdict
):
    found = judge(given, Seen(reachable=True, removed=True, state=WELL.state), NEW, STRATEGY)
    assert found == (verdict and Judged("r1", verdict, REMOVED))


@pytest.mark.parametrize("order", ["", "stage", "recall"])
def test_a_robot_that_was_lost_is_judged_again_only_by_the_order_it_was_lost_with(order):
    alone = member("r1", order, verdict="lost", instance="", group=None)
    for look in (seen("confirmed", running=OLD), seen("stuck"), seen("pending", refused=True)):
        assert judge(alone, look, NEW, STRATEGY) is None
    assert judge(replace(alone, order="back"), seen("confirmed", running=OLD), NEW, STRATEGY)


# -- the next step of the rollout


def step(*pairs, **more):
    return decide(view(*pairs, **more)).step


def test_a_question_to_an_operator_comes_before_orders_for_instances():
    pair = ((member("r1"), WELL), (member("r2"), WELL))
    assert step(*pair) == Orders("commit", ("r1", "r2"))
    assert step(*pair, question="which?", paused=True) is None
    # A pause alone keeps no machine from what was decided.
    assert step(*pair, paused=True) == Orders("commit", ("r1", "r2"))


@pytest.mark.parametrize(
    ("phase", "kind"), [("rolling", "switch"), ("settled", "switch"), ("reverting", "back")]
)
def test_what_the_store_has_lost_is_ordered_again_in_the_direction_of_the_rollout(phase, kind):
    pair = (
        (member("r1", "stage"), seen("switching", ahead=True)),
        (member("r2", "stage"), seen("staged")),
    )
    made = step(*pair, phase=phase)
    assert (made.kind, sorted(made.robots)) == (kind, ["r1", "r2"])
    assert step(*pair, phase="aborted") != made


def test_an_instance_of_which_a_machine_was_busy_gets_ready_again():
    back = [member(robot, "back", verdict="back") for robot in ("r1", "r2")]
    open_ = (member("r3", "stage", instance=""), Seen())
    made = step(*((each, seen("confirmed", running=OLD)) for each in back), open_)
    assert made == Orders("stage", ("r1", "r2"), TOO_BUSY)
    mixed = (back[0], seen("confirmed", running=OLD)), (member("r2", "back"), seen("reverting"))
    assert step(*mixed, open_) is None
    alone = member("r1", "back", verdict="back", instance="")
    assert step((alone, seen("confirmed", running=OLD)), open_) is None


def test_an_instance_switches_only_as_a_whole():
    ready = [(staged(robot, armed=True), ARMED) for robot in ("r1", "r2")]
    assert step(*ready) == Orders("switch", ("r1", "r2"))
    one = (staged("r2", armed=True), seen("pending", waiting="files"))
    decision = decide(view(ready[0], one))
    assert decision.step is None
    assert decision.waiting == {"r1": "machines", "r2": "files"}
    away = (staged("r2", armed=True), seen("staged", armed=True, reachable=False))
    assert decide(view(ready[0], away)).waiting["r2"] == "unreachable"
    busy = (replace(staged("r2", armed=True), reason=TOO_BUSY, at=START - 1), ARMED)
    assert decide(view(ready[0], busy)).waiting == {"r1": "machines", "r2": "busy"}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({}, ("back", "r1", "r2")),
        # It has left the fleet.
        ({"removed": True, "owned": False}, ("back", "r1")),
        # A newer rollout has given it an order, and decides about both.
        ({"owned": False}, None),
    ],
)
def test_an_instance_that_was_undone_alone_goes_back_unless_a_newer_rollout_has_it(other, expected):
    done = {"verdict": "confirmed", "committed": True, "undone": "undone by ann"}
    has_it = seen("confirmed", running=NEW)
    gone = "removed" if other else "confirmed"
    pairs = [
        (member("r1", **done), has_it),
        (member("r2", **{**done, "verdict": gone}), dataclasses.replace(has_it, **other)),
    ]
    for phase in ("rolling", "settled", "succeeded"):
        step = decide(view(*pairs, phase=phase)).step
        found = (step.kind, *step.robots) if isinstance(step, Orders) else None
        assert found == expected
    plain = view(*((replace(each, undone=""), look) for each, look in pairs))
    assert not isinstance(decide(plain).step, Orders)


@pytest.mark.parametrize(
    ("parallel", "leased_for", "reason", "expected"),
    [
        (1, YIELD_S, "", ("stage", "r1")),
        (1, YIELD_S - 0.1, "", None),
        # There is room for one of the others.
        (2, YIELD_S, "", ("switch", "r2")),
        # The others have given way before: the busy one keeps its place.
        (1, YIELD_S, YIELDS, None),
    ],
)
def test_a_busy_robot_gives_its_place_to_others_that_have_waited_and_have_none(
    parallel, leased_for, reason, expected
):
    alone = {"instance": "", "group": None}
    waits = seen("staged", waiting="busy", leased_for=leased_for)
    ready = seen("staged")
    pairs = [
        (member("r1", **alone), waits),
        (member("r2", "stage", reason=reason, **alone), ready),
        (member("r3", "stage", reason=reason, **alone), ready),
    ]
    step = decide(view(*pairs, strategy=replace(STRATEGY, max_parallel=parallel))).step
    assert (step and (step.kind, *step.robots)) == expected


@pytest.mark.parametrize(
    ("fields", "rejected", "over"),
    [
        ({}, set(), False),
        # Its former release was undone, too: it keeps what it has.
        ({}, {OLD}, True),
        ({"verdict": "back", "order": "back"}, set(), True),
        ({"undone": ""}, set(), True),
    ],
)
def test_a_rollout_with_an_undone_robot_that_is_away_is_not_over_before_it_can_go_back(
    fields, rejected, over
):
    one = member(**{"verdict": "confirmed", "undone": "undone by ann", "instance": "",
                    "group": None, **fields})  # fmt: skip
    away = seen("confirmed", running=NEW, reachable=False)
    assert is_over(view((one, away), phase="succeeded", rejected=frozenset(rejected))) is over
