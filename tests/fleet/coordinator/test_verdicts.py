"""What follows for a started dataflow from what its robots report: properties, then cases."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.messages import DataflowState, Failure, LinkPeer, NodeResult
from dorad.control.messages.agent import ShareState
from dorafleet.coordinator.dataflowstates import outcome_of, state_of, status_of
from dorafleet.coordinator.records import DataflowRecord, End, StartOptions
from dorafleet.coordinator.verdicts import (
    FINAL,
    Fail,
    Finish,
    Open,
    judge,
    still_running,
    unready,
)

STATUSES = (
    "pending", "starting", "ready", "running", "stopping", "stopped", "finished", "failed",
)  # fmt: skip


def share(name, generation, status, uuid="u"):
    return ShareState(
        dataflow=name, uuid=uuid, epoch=1, generation=generation, status=status, since=0
    )


def record(**fields):
    given = {
        "uuid": "u",
        "name": "talk",
        "path": "/f.yml",
        "original": {},
        "descriptor": {},
        "options": StartOptions(),
        "placement": {"a": "arm1", "b": "arm2"},
        "ports": {"arm1": 1, "arm2": 2},
        "generation": 5,
        "started_at": 0,
        "hold": 9,
    }
    return DataflowRecord(**{**given, **fields})


states = st.fixed_dictionaries(
    {
        robot: st.none()
        | st.builds(
            share,
            st.just("talk"),
            st.sampled_from([4, 5]),
            st.sampled_from(STATUSES),
            st.sampled_from(["u", "old"]),
        )
        for robot in ("arm1", "arm2")
    }
)
records = st.builds(
    record,
    enabled=st.booleans(),
    opened=st.booleans(),
    force=st.booleans(),
    failure=st.sampled_from(["", "it failed"]),
)
robots = st.sets(st.sampled_from(["arm1", "arm2"]))


@given(records, states, robots, st.booleans())
def test_the_barrier_opens_only_if_all_are_ready(dataflow, found, away, overdue):
    verdict = judge(dataflow, found, dict.fromkeys(away, "away"), {}, {}, set(), overdue=overdue)
    if isinstance(verdict, Open):
        assert not dataflow.opened
        assert dataflow.enabled
        for each in found.values():
            assert (each.uuid, each.generation) == ("u", 5)
            assert each.status in {"ready", "running"}


@given(records, states, robots, robots, st.booleans())
def test_it_ends_only_where_nothing_is_left_to_wait_for(dataflow, found, away, idle, overdue):
    idle -= away
    verdict = judge(dataflow, found, dict.fromkeys(away, "away"), {}, {}, idle, overdue=overdue)
    if not isinstance(verdict, Finish):
        return
    for robot, each in found.items():
        over = each is not None and (each.uuid, each.generation) == ("u", 5)
        over = over and each.status in FINAL
        assert over or robot in verdict.missing or (robot in idle and not dataflow.enabled)
    assert set(verdict.missing) <= away
    if verdict.missing:
        assert not dataflow.enabled
        assert dataflow.force or dataflow.failure


@given(records, states, robots, st.booleans())
def test_silence_alone_never_decides_anything_about_what_runs(dataflow, found, away, overdue):
    running = msgspec.structs.replace(dataflow, enabled=True, opened=True)
    none_away = judge(running, found, {}, {}, {}, set(), overdue=overdue)
    assert judge(running, found, dict.fromkeys(away, "away"), {}, {}, set(), overdue=overdue) == (
        none_away
    )


def test_a_late_start_names_every_robot_that_is_not_ready_with_its_reason():
    found = {"arm1": share("talk", 5, "ready"), "arm2": share("talk", 5, "starting")}
    verdict = judge(record(), found, {}, {}, {}, set(), overdue=True)
    assert verdict == Fail("`arm2` is not ready after 9 s: it is starting")
    verdict = judge(
        record(), {**found, "arm2": None}, {"arm2": "it is off"}, {}, {}, set(), overdue=True
    )
    assert verdict == Fail("`arm2` is not ready after 9 s: it is off")
    verdict = judge(
        record(), {**found, "arm2": None}, {}, {}, {"arm2": "disk full"}, set(), overdue=True
    )
    assert verdict == Fail("`arm2` is not ready after 9 s: disk full")
    assert judge(record(), found, {}, {}, {}, set(), overdue=False) is None
    links = {"arm1": LinkPeer(state="absent", reason="the port is in use")}
    alone = msgspec.structs.replace(found["arm2"], links=links)
    verdict = judge(record(), {**found, "arm2": alone}, {}, {}, {}, set(), overdue=True)
    assert verdict == Fail(
        "`arm2` is not ready after 9 s: "
        "it is starting, without a link to `arm1` (the port is in use)"
    )


def test_a_refusal_fails_the_start_at_once():
    verdict = judge(record(), {}, {}, {"arm2": "no disk"}, {}, set(), overdue=False)
    assert verdict == Fail("`arm2` refuses its share: no disk")


@given(records, states)
def test_a_dataflow_has_failed_if_it_did_anywhere(dataflow, found):
    status, _, failures = outcome_of(dataflow, found)
    failed = [
        each
        for each in found.values()
        if each and (each.uuid, each.generation, each.status) == ("u", 5, "failed")
    ]
    assert (status == "failed") == (bool(failed) or bool(dataflow.failure))
    assert bool(failures) == bool(dataflow.failure)
    assert state_of(dataflow, found).status == status_of(dataflow)


def test_the_results_of_all_machines_are_those_of_the_dataflow():
    def ended(robot, node, status):
        result = NodeResult(node=node, outcome="ok", reason="")
        outcome = DataflowState(uuid="u", name=None, status=status, results=[result])
        return msgspec.structs.replace(share("talk", 5, status), outcome=outcome)

    found = {"arm1": ended("arm1", "a", "finished"), "arm2": ended("arm2", "b", "failed")}
    status, results, _ = outcome_of(record(), found)
    assert status == "failed"
    assert [each.node for each in results] == ["a", "b"]


def verdict(dataflow, found, unreachable=(), refused=(), undelivered=(), idle=(), overdue=False):
    return judge(
        dataflow,
        found,
        dict(unreachable),
        dict(refused),
        dict(undelivered),
        set(idle),
        overdue=overdue,
    )


def on(first, second):
    """Return the shares of two robots in these statuses; None for no share."""
    return {
        robot: status and share("talk", 5, status)
        for robot, status in (("arm1", first), ("arm2", second))
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (on("ready", "ready"), Open()),
        (on("ready", "running"), Open()),
        (on("ready", "starting"), None),
        (on("ready", None), None),
        ({"arm1": share("talk", 5, "ready")}, None),
        # Shares of an earlier order or run say nothing about this one.
        (on("ready", None) | {"arm2": share("talk", 4, "ready")}, None),
        (on("ready", None) | {"arm2": share("talk", 5, "ready", "old")}, None),
        (on("ready", None) | {"arm2": share("talk", 4, "failed")}, None),
        (on("ready", "failed"), Fail("`arm2`: its share has failed")),
        (on("stopped", "ready"), Fail("`arm1`: its share has stopped")),
    ],
)
def test_a_start_waits_until_all_robots_are_ready_or_one_has_failed(found, expected):
    assert verdict(record(), found) == expected
    # A start that is late fails, and never opens by that.
    if expected is None:
        assert isinstance(verdict(record(), found, overdue=True), Fail)
    else:
        assert verdict(record(), found, overdue=True) == expected


def test_a_failed_start_says_why_as_exactly_as_it_is_known():
    failures = [
        Failure(headline="a ended with code 3"),
        Failure(headline="b was killed"),
    ]
    outcome = DataflowState(uuid="u", name=None, status="failed", failures=failures)
    failed = msgspec.structs.replace(share("talk", 5, "failed"), outcome=outcome)
    found = on("ready", None) | {"arm2": failed}
    assert verdict(record(), found) == Fail("`arm2`: a ended with code 3; b was killed")
    found["arm2"] = msgspec.structs.replace(failed, reason="the disk is full")
    assert verdict(record(), found) == Fail("`arm2`: the disk is full")
    refused = {"arm2": "no such device"}
    assert verdict(record(), found, refused=refused) == Fail(
        "`arm2` refuses its share: no such device"
    )


def test_a_late_start_names_all_robots_that_are_not_ready():
    found = on("ready", None)
    after = "is not ready after 9 s"
    assert verdict(record(), {}, overdue=True) == Fail(
        f"`arm1` {after}: it has not answered; `arm2` {after}: it has not answered"
    )
    # That a robot is away explains more than that it once could not store its share.
    undelivered, away = {"arm2": "disk full"}, {"arm2": "it is off"}
    late = verdict(record(), found, unreachable=away, undelivered=undelivered, overdue=True)
    assert late == Fail(f"`arm2` {after}: it is off")


def test_a_robot_that_is_late_names_only_the_links_that_are_down():
    links = {
        "arm1": LinkPeer(state="absent", reason="the port is in use"),
        "arm3": LinkPeer(state="up", reason=""),
        "arm4": LinkPeer(state="absent", reason=""),
    }
    late = msgspec.structs.replace(share("talk", 5, "starting"), links=links)
    found = on("running", None) | {"arm2": late}
    assert unready(record(), found, {"arm1": "ready all the same"}) == {
        "arm2": "it is starting, without a link to `arm1` (the port is in use), `arm4`"
    }
    found["arm2"] = msgspec.structs.replace(late, reason="its camera is missing")
    assert unready(record(), found, {}) == {"arm2": "its camera is missing"}


def test_a_dataflow_that_runs_ends_when_it_has_ended_on_all_robots():
    running = record(opened=True)
    assert verdict(running, on("finished", "failed")) == Finish()
    assert verdict(running, on("finished", "running")) is None
    assert verdict(running, on("finished", None)) is None
    # A robot that has lost its share gets it again: that is no end, nor is silence.
    assert verdict(running, on("finished", None), idle={"arm2"}) is None
    assert verdict(running, on("finished", "running"), unreachable={"arm2": "off"}) is None
    # `force` and `failure` are about a stop.
    forced = record(opened=True, force=True, failure="x")
    assert verdict(forced, on("finished", "running"), unreachable={"arm2": "off"}) is None
    ended = msgspec.structs.replace(running, end=End(at=1.0, status="finished"))
    assert verdict(ended, on("finished", "finished")) is None


@pytest.mark.parametrize("is_open", [True, False])
def test_a_stop_waits_for_robots_that_are_away_unless_it_is_forced(is_open):
    away = {"arm2": "it is off"}
    stopped = record(enabled=False, opened=is_open)
    assert verdict(stopped, on("stopped", "running")) is None
    assert verdict(stopped, on("stopped", "stopped")) == Finish()
    assert verdict(stopped, on("stopped", None), idle={"arm2"}) == Finish()
    assert verdict(stopped, on("stopped", "running"), unreachable=away) is None
    for forced in (
        record(enabled=False, opened=is_open, force=True),
        record(enabled=False, opened=is_open, failure="the start failed"),
    ):
        found = on("stopped", "running")
        assert verdict(forced, found, unreachable=away) == Finish(missing=("arm2",))
        # One that is there is waited for, and one that had ended before it went away is no loss.
        assert verdict(forced, found) is None
        assert verdict(forced, on("running", "running"), unreachable=away) is None
        assert verdict(forced, on("stopped", "stopped"), unreachable=away) == Finish()
        both = {"arm2": "off", "arm1": "off"}
        assert verdict(forced, {}, unreachable=both) == Finish(missing=("arm1", "arm2"))


def test_it_runs_where_its_present_order_has_not_ended():
    found = on("finished", "running")
    assert still_running(record(), found, ()) == {"arm2"}
    assert still_running(record(), found, {"arm2"}) == set()
    assert still_running(record(generation=6), found, ()) == {"arm1", "arm2"}
