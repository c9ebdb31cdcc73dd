"""What is shown of a rollout, its robots and its plan: tables of each rule."""

import itertools

import msgspec
import pytest

from dorad.control.messages.releases import Evidence, HealthRules, Lease, ReleaseState
from dorad.release.changes import Changes
from dorafleet.rollout import messages, model
from dorafleet.rollout.decide import Decision
from dorafleet.rollout.instances import withdrawn_with
from dorafleet.rollout.messages import PlannedRobot, ReleaseInfo, RolloutPlan, RolloutRobot
from dorafleet.rollout.model import FORWARD, Member, Rollout, Seen, View
from dorafleet.rollout.phases import DEFER_S, NO_WAY_BACK, is_deferred, is_watched, soaks_until
from dorafleet.rollout.plan import HAS_IT
from dorafleet.rollout.plantext import (
    batch_name,
    change_lines,
    file_lines,
    left_out_line,
    placement_lines,
    plan_row,
)
from dorafleet.rollout.strategy import Strategy
from dorafleet.rollout.summary import MAX_LEASES, MAX_REASON, row, summarise

from .world import NEW, OLD, START

GOOD, BAD = Evidence(check="a", ok=True, text="runs"), Evidence(check="b", ok=False, text="died")


def view(member, seen, *, phase="rolling", now=START, rejected=(), soak=0.0, **head):
    strategy = Strategy(soak_time=soak, rules=HealthRules(confirm_deadline=50.0))
    rollout = Rollout(1, "pick", NEW, "pick@2", strategy, 1, "ann", START, phase=phase, **head)
    members = {each.robot: each for each in (member if isinstance(member, list) else [member])}
    found = seen if isinstance(seen, dict) else {"r1": seen}
    return View(rollout, members, found, now=now, rejected=frozenset(rejected))


def member(order="switch", verdict="", robot="r1", **more):
    return Member(robot, more.pop("batch", 1), before=more.pop("before", OLD), order=order,
                  verdict=verdict, generation=5, **more)  # fmt: skip


def state(phase="staged", **more):
    given = {"dataflow": "pick", "epoch": 1, "since": 0.0, "release": NEW, "generation": 5}
    return ReleaseState(**{**given, "phase": phase, **more})


def lease(number):
    return Lease(f"l{number}", f"grips {number}", "pick/arm", 0.0)


MANY = [lease(number) for number in range(MAX_LEASES + 1)]
AWAY = {"reachable": False, "trouble": "it is off"}


@pytest.mark.parametrize(
    ("given", "robot", "seen", "shown"),
    [
        # What the robot reports about the order is shown until there is a verdict.
        ({}, {}, {"state": state(reason="why")}, {"reason": "why", "state": "staged"}),
        ({}, {"reason": "own"}, {"state": state(reason="why")}, {"reason": "own"}),
        ({}, {"verdict": "lost"}, {"state": state(reason="why")}, {"reason": "", "state": "lost"}),
        ({}, {}, {"state": state(reason="why", generation=4)}, {"reason": "", "state": "pending"}),
        ({}, {"order": ""}, {"state": state(reason="why")}, {"reason": "", "state": "waiting"}),
        ({}, {}, {}, {"state": "pending", "reason": "", "waiting": "", "evidence": []}),
        ({}, {}, {"state": state(reason="x" * 999)}, {"reason": "x" * MAX_REASON}),
        ({}, {"undone": "undone by ann"}, {}, {"reason": "undone by ann"}),
        ({}, {"undone": "undone by ann"}, {"state": state(reason="why")},
         {"reason": "undone by ann; why"}),
        ({}, {"order": "recall"}, {"state": state()}, {"state": "left"}),
        ({}, {"order": "recall", "verdict": "lost"}, {}, {"state": "lost"}),
        ({}, {}, {"state": state("confirmed")}, {"state": "pending"}),
        ({}, {}, {"state": state("probation")}, {"state": "probation"}),
        ({}, {}, {"state": state(waiting="busy")}, {"state": "busy", "waiting": "busy"}),
        ({}, {}, {"state": state(leases=[lease(0)])}, {"state": "busy"}),
        ({}, {}, {"state": state("pending", leases=[lease(0)])}, {"state": "pending"}),
        # What it waits for: the gate of the rollout before its own reasons.
        ({"gate": "window"}, {}, {"state": state(waiting="busy")}, {"waiting": "window"}),
        ({}, {}, {"state": state(waiting="switch")}, {"waiting": ""}),
        ({}, {}, {"state": state(waiting="files")}, {"waiting": "files"}),
        ({}, {"verdict": "lost"}, {"state": state(waiting="files")}, {"waiting": ""}),
        # What is done about files replaces the reason, but only for robots that wait for them.
        ({"files": "sent"}, {}, {"state": state(waiting="files", reason="r")}, {"reason": "sent"}),
        ({"files": "sent"}, {}, {"state": state(waiting="busy", reason="r")}, {"reason": "r"}),
        ({"files": "sent"}, {}, {"state": state(reason="r")}, {"reason": "r"}),
        ({}, {}, {"state": state(waiting="files", reason="r")}, {"reason": "r"}),
        # Leases, and evidence of the phases that have it.
        ({}, {}, {"state": state(leases=MANY)}, {"leases": [f"grips {n} (pick/arm)" for n in range(MAX_LEASES)]}),  # noqa: E501
        ({}, {"verdict": "lost"}, {"state": state(leases=MANY)}, {"leases": []}),
        *(
            ({}, {"evidence": [GOOD]}, {"state": state(phase, evidence=[BAD])}, {"evidence": [BAD]})
            for phase in ("switching", "probation", "reverting", "reverted", "stuck")
        ),
        *(
            ({}, {"evidence": [GOOD]}, {"state": state(at, evidence=[BAD])}, {"evidence": [GOOD]})
            for at in ("pending", "staging", "staged", "confirmed")
        ),
        ({}, {"evidence": [GOOD], "verdict": "stuck"}, {"state": state("stuck", evidence=[BAD])}, {"evidence": [GOOD]}),  # noqa: E501
        # Which nodes were replaced is known once it is confirmed.
        ({}, {"verdict": "confirmed"}, {"state": state("confirmed", restarted=["n"])}, {"restarted": ["n"]}),  # noqa: E501
        ({}, {}, {"state": state("confirmed", restarted=["n"])}, {"restarted": []}),
        ({}, {"verdict": "stuck"}, {"state": state("stuck", restarted=["n"])}, {"restarted": []}),
        ({}, {"verdict": "confirmed"}, {"state": state("confirmed", restarted=["n"], generation=4)}, {"restarted": []}),  # noqa: E501
        # A release without a way back.
        ({"phase": "reverting", "rejected": [OLD]}, {}, {}, {"reason": NO_WAY_BACK}),
        ({"phase": "revert_incomplete", "rejected": [OLD]}, {}, {}, {"reason": NO_WAY_BACK}),
        ({"phase": "rolling", "rejected": [OLD]}, {}, {}, {"reason": ""}),
        ({"phase": "reverting"}, {}, {}, {"reason": ""}),
        ({"phase": "reverting", "rejected": [OLD]}, {"before": ""}, {}, {"reason": ""}),
        ({"phase": "reverting", "rejected": [OLD]}, {"order": "back"}, {}, {"reason": ""}),
        ({"phase": "reverting", "rejected": [OLD]}, {"verdict": "confirmed"}, {}, {"reason": NO_WAY_BACK}),  # noqa: E501
        # An order that it cannot store comes before what it says.
        ({}, {}, {"state": state(reason="r"), "undelivered": "full"}, {"reason": "full"}),
        ({}, {"order": ""}, {"undelivered": "full"}, {"reason": ""}),
        ({}, {"verdict": "lost"}, {"undelivered": "full"}, {"reason": ""}),
        # A robot that is away waits, whatever the gate; its verdict stays.
        ({"gate": "window"}, {}, AWAY, {"waiting": "unreachable", "reason": "it is off"}),
        ({}, {"reason": "own"}, AWAY, {"waiting": "unreachable", "reason": "own"}),
        ({}, {"verdict": "confirmed"}, AWAY, {"waiting": "", "reason": "", "reachable": False}),
    ],
)  # fmt: skip
def test_the_row_of_a_robot(given, robot, seen, shown):
    rest = {key: value for key, value in given.items() if key not in ("gate", "files")}
    one = member(**robot)
    found = row(
        view(one, Seen(**{"reachable": True, **seen}), **rest),
        one,
        given.get("gate"),
        given.get("files", ""),
    )
    assert {name: getattr(found, name) for name in shown} == shown


# -- the rollout in brief --------------------------------------------------------------------------


def robot(state_, batch=1, **more):
    return RolloutRobot(1, "r", batch, state_, reachable=True, **more)


def brief(rows=(), waiting=None, members=(), seen=None, **head):
    decision = Decision(waiting=waiting or {})
    given = members or [member()]
    known = {each.robot: Seen(reachable=True) for each in given} if seen is None else seen
    return summarise(view(given, known, **head), decision, rows)


@pytest.mark.parametrize(
    ("phase", "rows", "gates", "expected"),
    [
        ("rolling", [], [], "rolling"),
        ("rolling", [], ["window"], "rolling, waiting (window)"),
        ("canary", [], ["busy"], "canary, waiting (busy)"),
        ("reverting", [], ["budget"], "reverting, waiting (budget)"),
        ("soaking", [], ["window"], "soaking"),
        ("settled", [], ["unreachable"], "settled"),
        # Of several reasons the first counts; one that is not named does not.
        *(
            ("rolling", [], [*pair], f"rolling, waiting ({pair[0]})")
            for pair in itertools.combinations(
                ("window", "budget", "busy", "files", "unreachable"), 2
            )
        ),
        ("rolling", [], ["parallel"], "rolling"),
        ("rolling", [], ["parallel", "files"], "rolling, waiting (files)"),
        # As long as a robot moves or gets ready, the rollout does not wait.
        *(
            ("rolling", [robot("confirmed"), robot(each)], ["window"], "rolling")
            for each in ("switching", "probation", "reverting", "pending", "staging", "staged")
        ),
        *(
            ("rolling", [robot(each, waiting="files")], ["window"], "rolling, waiting (window)")
            for each in ("pending", "staging", "staged")
        ),
        ("rolling", [robot("switching", waiting="files")], ["window"], "rolling"),
        *(
            ("rolling", [robot(each)], ["window"], "rolling, waiting (window)")
            for each in ("busy", "waiting", "confirmed", "lost", "stuck", "left")
        ),
    ],
)
def test_the_state_of_a_rollout_says_what_it_waits_for(phase, rows, gates, expected):
    waiting = {f"w{number}": gate for number, gate in enumerate(gates)}
    assert brief(rows, waiting, phase=phase).state == expected
    assert brief(rows, waiting, phase=phase, paused=True).state == f"paused ({phase})"


def test_the_waves_and_counts_are_those_of_its_rows():
    states = {
        1: ["confirmed", "confirmed", "reverted", "stuck"],
        0: ["switching", "probation", "reverting", "refused", "lost", "failed", "back"],
    }
    rows = [robot(each, batch) for batch, batches in states.items() for each in batches]
    found = brief(rows)
    waves = [(w.batch, w.size, w.confirmed, w.moving, w.failed) for w in found.waves]
    assert waves == [(0, 7, 0, 3, 3), (1, 4, 2, 0, 2)]
    assert found.counts == {**{each.state: 1 for each in rows}, "confirmed": 2}


@pytest.mark.parametrize(
    "phase", ["canary", "rolling", "soaking", "settled", "reverting", "failed"]
)
@pytest.mark.parametrize("away", [0, 1, 2])
def test_robots_that_are_away_are_counted_and_waited_for_on_the_way_forward(phase, away):
    members = [member(robot=f"r{n}") for n in range(3)] + [member(robot="done", verdict="lost")]
    seen = {f"r{n}": Seen(reachable=n >= away) for n in range(3)} | {"done": Seen()}
    found = brief((), {"r0": "unreachable", "r2": "busy"}, members, seen, phase=phase)
    assert found.unreachable == away
    expected = {"busy": 1} | ({"unreachable": away} if away and phase in FORWARD else {})
    assert found.waiting == expected


def test_a_question_comes_before_the_reason_and_the_time_of_the_phase_before_that_of_the_start():
    assert brief(reason="r", question="q").reason == "q"
    assert brief(reason="r").reason == "r"
    assert brief(since=9.0).since == 9.0
    assert brief().since == START


# -- the time in which robots are watched ----------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "after", "watched"),
    [
        *((phase, 999.0, True) for phase in ("canary", "rolling", "soaking", "awaiting_promotion")),
        ("settled", 99.0, True), ("settled", 100.0, False), ("settled", 101.0, False),
        *((phase, 0.0, False) for phase in ("reverting", "succeeded", "aborted", "failed")),
    ],
)  # fmt: skip
def test_failures_after_the_confirmation_count_until_the_soak_of_the_robot_is_over(
    phase, after, watched
):
    one = member(verdict="confirmed", at=START)
    found = view(one, Seen(reachable=True), phase=phase, now=START + after, soak=100.0)
    assert is_watched(found, one) is watched


@pytest.mark.parametrize(
    ("robot", "seen", "deferred"),
    [
        # One that may be in its switch is waited for, however long it is away; others are not.
        ({"order": "switch"}, {"away_for": DEFER_S}, False),
        ({"order": "back"}, {"away_for": DEFER_S}, True),
        ({"order": "stage"}, {"away_for": DEFER_S}, True),
        ({"order": "switch", "verdict": "lost"}, {"away_for": DEFER_S}, True),
        ({"order": "stage"}, {"away_for": DEFER_S - 1}, False),
        ({"order": "stage"}, {"reachable": True, "away_for": DEFER_S}, False),
        ({"order": "switch"}, {"owned": False}, True),
    ],
)
def test_who_is_away_for_long_is_deferred_unless_it_may_be_in_its_switch(robot, seen, deferred):
    one = member(**robot)
    assert is_deferred(view(one, Seen(**seen)), one) is deferred


def test_a_rollout_soaks_until_the_last_confirmation_has_lasted():
    last = member(robot="r2", verdict="confirmed", at=7.0)
    both = [member(verdict="confirmed", at=5.0), last, member(robot="r3", verdict="lost", at=9.0)]
    assert soaks_until(view(both, {}, soak=100.0)) == 107.0
    assert soaks_until(view(both, {})) is None
    assert soaks_until(view(member(), {}, soak=100.0)) is None
    assert brief((), None, both, phase="soaking", soak=100.0).soaks_until == 107.0
    assert brief((), None, both, phase="settled", soak=100.0).soaks_until is None


# -- the plan --------------------------------------------------------------------------------------

KINDS = {
    "added": "added",
    "replaced": "replaced",
    "removed": "removed",
    "untouched": "untouched",
    "uncompared": "not compared",
}
TITLES = {
    "added": "nodes added",
    "replaced": "nodes replaced",
    "removed": "nodes removed",
    "inputs": "inputs changed",
    "untouched": "nodes untouched",
    "files_added": "files added",
    "files_changed": "files changed",
    "files_removed": "files removed",
    "packages": "packages",
    "params": "parameters",
}


def plan(*robots, changes=(), names=None):
    release = ReleaseInfo("a" * 64, "flow", 1, 0.0, 0.0, "ann", 1, 1, [], [])
    return RolloutPlan(1, release, list(robots), list(changes), names=names or {})


def planned(**more):
    return PlannedRobot(**{"robot": "r1", "batch": 1, "changes": 0, "before": "b" * 64, **more})


def test_each_kind_of_node_is_counted_in_the_row_of_a_robot():
    for name, word in KINDS.items():
        one = planned()
        nodes = plan_row(plan(one, changes=[Changes(**{name: ["x", "y"]})]), one)[4]
        assert nodes == f"2 {word}"
    one = planned()
    inputs = Changes(inputs=["a/x: 1 → 2", "a/y: 1 → 2", "b/x: 1 → 2"])
    assert plan_row(plan(one, changes=[inputs]), one)[4] == "2 with other inputs"
    assert plan_row(plan(one, changes=[Changes()]), one)[4] == "none"


def test_the_row_of_a_robot_names_releases_sizes_and_batches():
    one = planned(note="n", room=2048)
    found = plan(one, changes=[Changes(size=12345)], names={"a" * 64: "flow@2", "b" * 64: "flow@1"})
    assert plan_row(found, one) == ("r1", "1", "flow@1", "flow@2", "none", "12,345", "2.0 kB", "n")
    unnamed = plan(one, changes=[Changes()])
    assert plan_row(unnamed, one)[2:4] == ("b" * 12, "a" * 12)
    new = planned(before="", batch=0)
    assert plan_row(plan(new, changes=[Changes()]), new)[1:3] == ("canary", "nothing")
    assert plan_row(plan(new, changes=[Changes()]), new)[6] == "-"
    out = planned(changes=None, batch=None, note="why")
    assert plan_row(plan(out), out) == ("r1", "-", "-", "-", "untouched", "0", "-", "why")
    assert [batch_name(each) for each in (None, 0, 1, 12)] == ["-", "canary", "1", "12"]


def test_robots_that_are_left_out_are_named_unless_they_have_the_release():
    has, off = planned(batch=None, note=HAS_IT, changes=None), planned(batch=None, note="off")
    assert left_out_line(plan(changes=[Changes()])) == ""
    assert left_out_line(plan(has, planned(), changes=[Changes()])) == ""
    assert left_out_line(plan(has, off, changes=[Changes()])) == "left out: r1 (off)"


def test_nodes_of_instances_and_ways_of_files_are_named_with_their_robots():
    robots = [
        planned(robot=f"r{n}", instance="a", nodes=["cam", "arm"] if n < 3 else [],
                files={1: "ssh", 2: "the robot", 3: "ssh"}.get(n, ""))
        for n in range(1, 5)
    ]  # fmt: skip
    found = plan(*robots, changes=[Changes()], names={"a" * 64: "flow@2"})
    assert list(placement_lines(found)) == ["a on r1: cam, arm", "a on r2: cam, arm"]
    assert list(file_lines(found)) == ["files over ssh: r1, r3", "files over the robot: r2"]
    found.no_files = "it has none"
    assert list(file_lines(found))[2:] == [
        "the coordinator lacks files for robots that no command reaches: it has none",
        "  dorafleet release upload flow@2",
    ]
    assert plan_row(found, robots[0])[0] == "r1 (a)"


@pytest.mark.parametrize(("index", "valid"), [(-1, False), (0, True), (1, True), (2, False)])
def test_a_plan_without_the_changes_of_a_robot_is_refused(index, valid):
    known = msgspec.to_builtins(plan(changes=[Changes(), Changes()]))
    robots = [planned(changes=None), planned(changes=0), planned(changes=index)]
    text = msgspec.json.encode(known | {"robots": msgspec.to_builtins(robots)})
    if valid:
        assert msgspec.json.decode(text, type=RolloutPlan).robots[2].changes == index
        return
    with pytest.raises(msgspec.ValidationError, match="changes that are not in it"):
        msgspec.json.decode(text, type=RolloutPlan)


def test_each_kind_of_change_is_a_line_and_none_is_said():
    for name, title in TITLES.items():
        *lines, last = change_lines(Changes(**{name: ["x", "y"]}), ["r1", "r2"])
        assert lines[0] == "r1, r2:"
        if name == "untouched":
            assert (lines[1:], last) == (
                [f"  {title}: x, y"], "  nothing: the content is the same"
            )  # fmt: skip
        else:
            assert (lines[1:], last) == ([], f"  {title}: x, y")
    uncompared = Changes(uncompared=["x"], uncompared_why="it is old", added=["y"])
    assert list(change_lines(uncompared, ["r1"]))[-1] == "  cannot compare inputs of x: it is old"
    assert list(change_lines(Changes(), ["r1"])) == ["r1:", "  nothing: the content is the same"]
    many = list(change_lines(Changes(added=[str(n) for n in range(9)]), ["r1"]))
    assert many[1] == "  nodes added: 0, 1, 2, 3, 4, 5, 6, 7 and 1 more"


# -- what is left out of a message or a record -----------------------------------------------------

NOT_EMPTY = {
    ("DriftRow", "known"): True,
    ("JournalRead", "limit"): 1000,
    ("RolloutNew", "strategy"): Strategy(),
    ("RolloutWatch", "robots"): True,
    ("PlannedRobot", "reachable"): True,
    ("Rollout", "phase"): "planned",
    ("Rollout", "scope"): "each",
    ("Member", "before_scope"): "each",
    ("RolloutSummary", "scope"): "each",
}


@pytest.mark.parametrize("module", [messages, model])
def test_what_a_message_leaves_out_is_nothing(module):
    kinds = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind.__module__ == module.__name__
    ]
    found = {}
    for kind in kinds:
        for field in msgspec.structs.fields(kind):
            if field.default is not msgspec.NODEFAULT:
                found[kind.__name__, field.name] = field.default
            elif field.default_factory is not msgspec.NODEFAULT:
                found[kind.__name__, field.name] = field.default_factory()
    assert len(found) > 10
    given = {key: value for key, value in found.items() if value not in ("", 0, None, [], {})}
    assert given == {key: value for key, value in NOT_EMPTY.items() if key in found}


@pytest.mark.parametrize(
    ("other", "seen", "goes"),
    [
        ({"verdict": "confirmed"}, {}, True),
        # It has not confirmed it, was told already, or runs something else by now.
        ({"verdict": ""}, {}, False),
        ({"verdict": "confirmed", "order": "recall"}, {}, False),
        ({"verdict": "confirmed", "withdrawn": True}, {}, False),
        ({"verdict": "confirmed"}, {"owned": False}, False),
        ({"verdict": "confirmed"}, AWAY, False),
        ({"verdict": "confirmed", "instance": "cell2"}, {}, False),
    ],
)
def test_what_has_confirmed_goes_back_with_a_machine_of_its_instance_that_failed(other, seen, goes):
    cell = {"instance": "cell1", "committed": True}
    members = [
        member(verdict="confirmed", **cell),
        member(robot="r2", **{**cell, **other}),
    ]
    found = {"r1": Seen(reachable=True), "r2": Seen(**{"reachable": True, **seen})}
    assert withdrawn_with(view(members, found), ["r1"]) == (("r1", "r2") if goes else ("r1",))
