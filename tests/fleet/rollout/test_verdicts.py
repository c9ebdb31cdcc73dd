"""The verdict about one robot, and the gates of its switch: single decisions."""

import pytest
from msgspec.structs import replace

from dorad.control.messages.releases import Evidence, HealthRules, Lease, ReleaseState
from dorafleet.rollout.gates import down, impossible, is_leased, next_opening, pass_gates
from dorafleet.rollout.model import FleetRobot, Member, Rollout, Seen, View
from dorafleet.rollout.strategy import Budget, Strategy
from dorafleet.rollout.verdicts import (
    MAX_EVIDENCE,
    MAX_REASON,
    MAX_TEXT,
    goes_forward,
    is_moving,
    is_waiting,
    judge,
    needs_files,
    reported,
)

from .world import NEW, OLD, START

STRATEGY = Strategy(progress_deadline=100.0, rules=HealthRules(confirm_deadline=50.0))
GOOD = Evidence(check="node b", ok=True, text="runs")
BAD = Evidence(check="node a", ok=False, text="crashed")


def member(order="switch", verdict="", **more):
    return Member("r1", 1, before=more.pop("before", OLD), order=order, verdict=verdict,
                  generation=5, **more)  # fmt: skip


def state(phase="staged", **more):
    more.setdefault("generation", 5)
    return ReleaseState(
        dataflow="pick", epoch=1, phase=phase, since=0.0, release=more.pop("release", NEW), **more
    )


def seen(phase="staged", **more):
    outer = {key: more.pop(key) for key in ("reachable", "away_for", "phase_for") if key in more}
    return Seen(**{"reachable": True, "state": state(phase, **more)} | outer)


def judged(given, found, **more):
    verdict = judge(given, found, NEW, STRATEGY, **more)
    return verdict and verdict.verdict


# -- a switch


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (seen("confirmed", running=NEW), "confirmed"),
        (seen("confirmed", running=OLD), None),
        (seen("staged", running=NEW), None),
        (seen("reverted", running=OLD), "reverted"),
        (seen("stuck"), "stuck"),
        (seen("pending", refused=True), "refused"),
        (seen("probation"), None),
        # Reports about an earlier order say nothing, those about a later one do.
        (seen("reverted", generation=4), None),
        (seen("reverted", generation=6), "reverted"),
        (Seen(reachable=True), None),
    ],
)
def test_a_switch_ends_as_the_robot_reports(found, verdict):
    assert judged(member(), found) == verdict
    # It is the same if it was given up meanwhile.
    assert judged(member(verdict="lost"), found) == verdict
    assert judged(member(""), found) is None


def test_only_a_refusal_counts_before_the_switch():
    assert judged(member("stage"), seen("pending", refused=True)) == "refused"
    assert judged(member("stage"), seen("stuck")) is None
    assert judged(member("stage"), Seen(reachable=True)) is None
    assert judged(member("stage"), seen(phase_for=1e6)) is None
    assert judged(member("recall"), seen("pending", refused=True)) is None


@pytest.mark.parametrize("verdict", ["reverted", "stuck", "refused", "back"])
def test_a_verdict_stays(verdict):
    for found in (seen("confirmed", running=NEW), seen("stuck"), seen(failed={"a": "x"})):
        assert judged(member(verdict=verdict), found) is None


def test_a_robot_that_is_leased_or_in_time_is_waited_for():
    lease = [Lease("1", "x", "o", 0.0)]
    assert judged(member(), seen(phase_for=99.9)) is None
    assert judged(member(), seen(phase_for=100.0)) == "lost"
    assert judged(member(), seen(phase_for=1e6, leases=lease)) is None
    assert judged(member(), seen(phase_for=1e6, waiting="busy")) is None
    assert judged(member("back"), seen(phase_for=100.0)) == "lost"
    found = judge(member(), seen("probation", phase_for=123.4), NEW, STRATEGY)
    assert found.reason == "no verdict for 123 s: it reports probation"
    found = judge(member(), Seen(reachable=True, phase_for=100.0), NEW, STRATEGY)
    assert found.reason == "no verdict for 100 s: it reports nothing"


def test_a_robot_that_is_away_is_lost_in_a_switch_and_waited_for_on_its_way_back():
    away = {"reachable": False, "phase_for": 1e6}
    assert judged(member(), seen(away_for=49.9, **away)) is None
    assert judged(member(), seen(away_for=50.0, **away)) == "lost"
    assert judged(member("back"), seen(away_for=1e6, **away)) is None
    found = judge(member(), seen(away_for=50.4, **away), NEW, STRATEGY)
    assert found.reason == "it has not been reached for 50 s after the order to switch"


def test_a_confirmation_has_no_evidence_and_a_failure_has_what_fails_first():
    many = [GOOD, BAD, *[GOOD] * 50]
    found = judge(member(), seen("confirmed", running=NEW, evidence=many), NEW, STRATEGY)
    assert (found.reason, found.evidence) == ("", ())
    found = judge(member(), seen("reverted", evidence=many), NEW, STRATEGY)
    assert (found.reason, found.evidence[:2]) == ("node a: crashed", (BAD, GOOD))
    assert len(found.evidence) == MAX_EVIDENCE
    found = judge(member(), seen("stuck", evidence=many, reason="no disk"), NEW, STRATEGY)
    assert found.reason == "no disk"
    long = Evidence(check="c" * 999, ok=False, text="t" * 999)
    found = judge(member(), seen("stuck", evidence=[long]), NEW, STRATEGY)
    assert len(found.reason) == MAX_REASON
    assert [(len(each.check), len(each.text)) for each in found.evidence] == [(MAX_TEXT, MAX_TEXT)]


# -- after the confirmation


def test_failures_after_a_confirmation_count_while_they_are_watched():
    bad = seen("confirmed", running=NEW, failed={"a": "crashed", "b": "hangs"})
    found = judge(member(verdict="confirmed"), bad, NEW, STRATEGY)
    assert (found.verdict, found.reason) == ("failed", "node a crashed; node b hangs")
    assert found.evidence[0] == Evidence(check="node a", ok=False, text="crashed")
    assert judged(member(verdict="confirmed"), bad, watched=False) is None
    assert judged(member(verdict="failed"), bad) is None, "it is known"
    assert judged(member(verdict="confirmed"), seen("confirmed", running=NEW)) is None
    assert judged(member(verdict="confirmed"), Seen(reachable=True)) is None
    assert judged(member("back", "confirmed"), bad) is None
    many = seen(failed={"n" * 400 + str(n): "x" * 400 for n in range(50)})
    found = judge(member(verdict="confirmed"), many, NEW, STRATEGY)
    assert (len(found.reason), len(found.evidence)) == (MAX_REASON, MAX_EVIDENCE)
    assert {(len(each.check), len(each.text)) for each in found.evidence} == {(MAX_TEXT, MAX_TEXT)}


@pytest.mark.parametrize(
    ("phase", "after_confirmed", "after_failed"),
    [
        ("reverting", "failed", None),
        ("reverted", "reverted", "reverted"),
        ("stuck", "stuck", "stuck"),
        ("confirmed", None, None),
    ],
)
def test_a_robot_that_goes_back_after_its_confirmation_is_followed(
    phase, after_confirmed, after_failed
):
    for watched in (True, False):
        assert judged(member(verdict="confirmed"), seen(phase), watched=watched) == after_confirmed
        assert judged(member(verdict="failed"), seen(phase), watched=watched) == after_failed


# -- the way back


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (seen("confirmed", running=OLD), "back"),
        (seen("confirmed", running=NEW), None),
        (seen("reverted", running=OLD), "stuck"),
        (seen("stuck"), "stuck"),
        (seen("pending", refused=True), "refused"),
        (seen("switching"), None),
        (seen("confirmed", running=OLD, generation=4), None),
        (Seen(reachable=True), None),
    ],
)
def test_a_robot_is_back_when_it_runs_again_what_it_ran_before(found, verdict):
    assert judged(member("back"), found) == verdict
    assert judged(member("back", "lost"), found) == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (Seen(reachable=True), "back"),
        (Seen(), None),
        (seen(release=""), "back"),
        (seen(release="", running=NEW), None),
        (seen(release=NEW), None),
        (seen(release="", generation=4), None),
        (seen(release="", reachable=False), None),
    ],
)
def test_a_robot_that_had_nothing_before_is_back_when_it_has_nothing(found, verdict):
    assert judged(member("back", before=""), found) == verdict


# -- reports


def test_files_are_needed_by_robots_with_an_order_that_can_be_reached():
    lacking = seen("pending", waiting="files")
    assert needs_files(member("stage"), lacking)
    assert needs_files(member("switch"), lacking)
    for given in (member("back"), member(""), member("stage", "refused")):
        assert not needs_files(given, lacking)
    for other in (
        seen("pending", waiting="files", refused=True),
        seen("pending", waiting="files", reachable=False),
        seen("pending", waiting="files", generation=4),
        seen("staged", waiting="switch"),
        Seen(reachable=True),
    ):
        assert not needs_files(member("stage"), other)


def test_what_a_robot_reports_is_that_of_its_last_order():
    assert reported(member(), Seen()) is None
    assert reported(member(), seen(generation=4)) is None
    assert reported(member(), seen(generation=5)) is not None
    assert is_waiting(member(), seen("staged"))
    assert not is_waiting(member(), seen("switching"))
    assert not is_waiting(member(), seen("staged", generation=4))
    assert is_moving(seen("switching", generation=1))
    assert not is_moving(seen("staged"))
    assert not is_moving(Seen())


@pytest.mark.parametrize(
    ("rollout", "release", "forward"),
    [("1", NEW, True), ("2", NEW, False), ("1", OLD, False), ("", NEW, False)],
)
def test_a_robot_goes_forward_with_an_order_of_the_rollout_for_its_release(
    rollout, release, forward
):
    found = replace(state(), rollout=rollout, release=release)
    assert goes_forward(view().rollout, found) == forward


# -- gates


def view(count=4, *, strategy=None, fleet=None, **more):
    members = {f"r{n}": Member(f"r{n}", 1, before=OLD) for n in range(1, count + 1)}
    members |= more.pop("members", {})
    found = {robot: Seen(reachable=True) for robot in members} | more.pop("seen", {})
    rollout = Rollout(1, "pick", NEW, "pick@2", strategy or Strategy(max_parallel=9), count, "ann",
                      START, **more)  # fmt: skip
    return View(rollout, members, found, fleet or {}, now=START)


def passing(given, *, forward=True):
    found = pass_gates(given, given.members.values(), forward=forward)
    return found.robots, found.waiting


def test_robots_pass_that_are_there_and_not_busy():
    lease = Lease("1", "x", "o", 0.0)
    some = {
        "r1": Seen(),
        "r2": Seen(reachable=True, state=state(leases=[lease])),
        "r3": Seen(reachable=True, state=state(waiting="busy")),
    }
    assert passing(view(seen=some)) == (
        ["r4"],
        {"r1": "unreachable", "r2": "busy", "r3": "busy"},
    )
    ignoring = view(seen=some, strategy=Strategy(max_parallel=9, busy="ignore"))
    assert passing(ignoring) == (["r2", "r3", "r4"], {"r1": "unreachable"})
    unknown = view()
    del unknown.seen["r1"]
    assert passing(unknown)[1] == {"r1": "unreachable"}
    assert not is_leased(Seen())
    assert not is_leased(seen(waiting="files"))


def test_as_many_switch_at_a_time_as_the_strategy_says():
    two = Strategy(max_parallel=2)
    assert passing(view(strategy=two)) == (["r1", "r2"], {"r3": "parallel", "r4": "parallel"})
    one = {"r1": Member("r1", 1, before=OLD, order="switch")}
    moving = view(strategy=two, members=one)
    found = pass_gates(moving, [moving.members[each] for each in ("r2", "r3")], forward=True)
    assert (found.robots, found.waiting) == (["r2"], {"r3": "parallel"})


def test_an_undo_has_a_pace_of_its_own():
    slow = view(strategy=Strategy(max_parallel=1), back_parallel=3)
    assert passing(slow) == (["r1"], dict.fromkeys(["r2", "r3", "r4"], "parallel"))
    assert passing(slow, forward=False) == (["r1", "r2", "r3"], {"r4": "parallel"})
    budget = Strategy(max_parallel=1, disruption_budget=Budget(group_by="z", max_unavailable=1))
    fleet = {f"r{n}": FleetRobot("hall", True) for n in range(1, 5)}
    at_once = view(strategy=budget, back_at_once=True, fleet=fleet)
    assert passing(at_once, forward=False) == (["r1", "r2", "r3", "r4"], {})
    assert passing(at_once)[0] == ["r1"], "only on the way back"


def test_a_window_holds_switches_and_no_way_back():
    windows = ("00:00-00:01", "12:00-12:01")  # it cannot be both
    strategies = [Strategy(max_parallel=9, windows=[each]) for each in windows]
    closed = next(each for each in strategies if next_opening(view(strategy=each)) > START)
    waiting = view(strategy=closed)
    found = pass_gates(waiting, waiting.members.values(), forward=True)
    assert set(found.waiting.values()) == {"window"}
    assert found.opening == next_opening(waiting)
    assert passing(waiting, forward=False) == (["r1", "r2", "r3", "r4"], {})
    assert next_opening(view()) == START


def test_a_budget_counts_what_is_away_once_and_by_group():
    fleet = {
        "r1": FleetRobot("hall", True),
        "r2": FleetRobot("hall", True),
        "r3": FleetRobot("yard", False),
        "r4": FleetRobot("yard", True),
        "other": FleetRobot("hall", False),
    }
    strategy = Strategy(max_parallel=9, disruption_budget=Budget(group_by="z", max_unavailable=1))
    given = view(strategy=strategy, fleet=fleet)
    assert down(given) == {"r3", "other"}
    # In the hall another one is away. In the yard r3 itself is: its switch takes none away.
    assert passing(given) == (["r3"], {"r1": "budget", "r2": "budget", "r4": "budget"})
    two = Strategy(max_parallel=9, disruption_budget=Budget(group_by="z", max_unavailable=2))
    assert passing(view(strategy=two, fleet=fleet)) == (["r1", "r3", "r4"], {"r2": "budget"})
    moving = {"r1": Member("r1", 1, before=OLD, order="switch")}
    assert down(view(fleet=fleet, members=moving)) == {"r1", "r3", "other"}
    over = fleet | {"r4": FleetRobot("yard", False)}
    assert passing(view(strategy=strategy, fleet=over))[1]["r3"] == "budget"


def test_a_robot_that_the_budget_does_not_know_may_switch():
    strategy = Strategy(max_parallel=9, disruption_budget=Budget(group_by="z", max_unavailable=1))
    fleet = {"r1": FleetRobot("hall", True)}
    assert passing(view(strategy=strategy, fleet=fleet)) == (["r1", "r2", "r3", "r4"], {})


def test_a_budget_that_never_lets_a_robot_switch_is_named():
    fleet = {"r1": FleetRobot("hall", True), "r2": FleetRobot("", True), "r3": FleetRobot("", True)}
    half = Budget(group_by="zone", max_unavailable="50%")
    assert impossible(None, fleet, fleet) == ""
    assert impossible(half, fleet, ["r2"]) == ""
    assert impossible(half, fleet, ["r2", "r1"]) == (
        "max_unavailable 50% of 1 robots with `zone=hall` is 0: `r1` could never switch"
    )
    tenth = Budget(group_by="zone", max_unavailable="10%")
    assert "2 robots without `zone` is 0: `r2`" in impossible(tenth, fleet, ["r2"])


def cells(*machines, **more):
    """Return a view of machines `cell/robot`; those with a `!` have the order to switch."""
    members = {}
    for each in machines:
        cell, robot = each.rstrip("!").split("/")
        order = "switch" if each.endswith("!") else ""
        members[robot] = Member(robot, 1, before=OLD, instance=cell, order=order)
    strategy = more.pop("strategy", Strategy(max_parallel=9))
    return view(0, members=members, strategy=strategy, **more)


def test_machines_of_an_instance_take_one_place_and_one_that_switches_keeps_its_own():
    two = cells("a/a1!", "a/a2!", "b/b1", "b/b2", "c/c1", strategy=Strategy(max_parallel=2))
    assert passing(two) == (["a1", "a2", "b1", "b2"], {"c1": "parallel"})
    one = cells("b/b1", "a/a1!", "a/a2!", strategy=Strategy(max_parallel=1))
    assert passing(one) == (["a1", "a2"], {"b1": "parallel"})
    # A percentage counts instances.
    half = cells("a/a1", "a/a2", "a/a3", "b/b1", strategy=Strategy(max_parallel="50%"))
    assert passing(half) == (["a1", "a2", "a3"], {"b1": "parallel"})


@pytest.mark.parametrize(
    ("found", "gate"),
    [
        (Seen(), "unreachable"),
        (Seen(reachable=True, state=state(waiting="busy")), "busy"),
        (Seen(reachable=True), None),
    ],
)
def test_a_machine_that_is_off_or_busy_holds_its_instance_unless_it_was_given_up(found, gate):
    given = cells("a/a1", "a/a2", "b/b1", seen={"a2": found})
    expected = (["b1"], dict.fromkeys(["a1", "a2"], gate)) if gate else (["a1", "a2", "b1"], {})
    assert passing(given) == expected
    given.members["a2"] = replace(given.members["a2"], lost=True)
    assert passing(given) == (["a1", "a2", "b1"], {})


def test_a_budget_has_room_for_all_machines_of_an_instance_or_for_none():
    fleet = {each: FleetRobot("hall", True) for each in ("a1", "a2", "b1", "b2", "c1", "d1")}
    strategy = Strategy(max_parallel=9, disruption_budget=Budget(group_by="z", max_unavailable=3))
    given = cells("a/a1", "a/a2", "b/b1", "b/b2", "c/c1", "d/d1", fleet=fleet, strategy=strategy)
    assert passing(given) == (["a1", "a2", "c1"], dict.fromkeys(["b1", "b2", "d1"], "budget"))


def test_a_window_is_open_from_its_first_moment_on():
    windows = ("00:00-00:01", "12:00-12:01")
    strategies = [Strategy(max_parallel=9, windows=[each]) for each in windows]
    closed = next(view(strategy=each) for each in strategies
                  if next_opening(view(strategy=each)) > START)  # fmt: skip
    opens = next_opening(closed)
    for now, open_ in ((opens - 1, False), (opens, True), (opens + 59, True), (opens + 60, False)):
        there = View(closed.rollout, closed.members, closed.seen, now=now)
        assert bool(passing(there)[0]) == open_
