"""What is decided about robots and dataflows, case by case: the exact action and its reason."""

from __future__ import annotations

import msgspec
import pytest

from dorad.control.messages import DataflowState, Failure, LinkPeer
from dorafleet.coordinator.reconcile import (
    Conflict,
    Fail,
    Finish,
    Open,
    OpenShare,
    RemoveShare,
    SetShare,
    actions_for,
    judge,
    still_running,
    unready,
)
from dorafleet.coordinator.records import End, Restored, Wanted
from tests.fleet.coordinator.test_reconcile import record, share

UNKNOWN = "it runs, and the store does not know it"
STARTED = "it was started after the backup from which the store was restored"
CHANGED = "it was changed after the backup from which the store was restored"


def wanted(generation, *, enabled=True):
    return Wanted(generation, enabled=enabled, uuid="u")


@pytest.mark.parametrize(
    ("target", "status", "is_open", "action"),
    [
        # The robot has the order: only the barrier is left to open, once all robots are ready.
        (wanted(5), "pending", True, None),
        (wanted(5), "ready", False, None),
        (wanted(5), "ready", True, OpenShare("talk")),
        (wanted(5), "running", True, None),
        (wanted(5), "failed", True, None),
        (wanted(5, enabled=False), "stopped", False, None),
        # It has an older one; the new one is to start, or to stop.
        (wanted(6), "running", True, SetShare("talk")),
        (wanted(6), "ready", True, SetShare("talk")),
        (wanted(6, enabled=False), "running", True, SetShare("talk")),
        (wanted(6, enabled=False), "failed", False, SetShare("talk")),
        # It has one that the store has never given.
        (wanted(4), "running", True, Conflict("talk", "its generation 5 is above 4")),
        (wanted(4), "failed", True, Conflict("talk", "its generation 5 is above 4")),
        (None, "running", True, Conflict("talk", UNKNOWN)),
        (None, "pending", False, Conflict("talk", UNKNOWN)),
        # It has ended, and the store has forgotten it.
        (None, "stopped", False, RemoveShare("talk")),
        (None, "finished", True, RemoveShare("talk")),
        (None, "failed", False, RemoveShare("talk")),
    ],
)
def test_a_robot_with_a_share_gets_what_is_missing_and_nothing_else(
    target, status, is_open, action
):
    targets = {} if target is None else {"talk": target}
    opened = {"talk"} if is_open else set()
    found = actions_for(targets, opened, {"talk": share("talk", 5, status)}, None, {})
    assert found == ([] if action is None else [action])


def test_a_robot_without_a_share_gets_one_that_is_to_run_and_none_that_has_ended():
    targets = {"map": wanted(3), "arm": wanted(4, enabled=False), "talk": wanted(5)}
    assert actions_for(targets, {"map", "arm"}, {}, None, {}) == [SetShare("map"), SetShare("talk")]


def test_each_dataflow_of_a_robot_is_decided_by_itself():
    shares = {
        "talk": share("talk", 5, "ready"),
        "map": share("map", 5, "ready"),
        "old": share("old", 2, "finished"),
    }
    targets = {"talk": wanted(5), "map": wanted(5), "arm": wanted(6)}
    assert actions_for(targets, {"talk"}, shares, None, {}) == [
        OpenShare("talk"),
        SetShare("arm"),
        RemoveShare("old"),
    ]


@pytest.mark.parametrize(
    ("generation", "unknown", "changed"),
    [
        # The backup has it.
        (20, UNKNOWN, "its generation 20 is above 4"),
        # Between the backup and the first order after the restore: made in the time that is lost.
        (21, STARTED, CHANGED),
        (39, STARTED, CHANGED),
        # An order of the restored store.
        (40, UNKNOWN, "its generation 40 is above 4"),
    ],
)
def test_a_conflict_after_a_restore_names_the_lost_time_only_for_what_was_made_in_it(
    generation, unknown, changed
):
    shares = {"talk": share("talk", generation, "running")}
    restored = Restored(backup=20, first=40)
    assert actions_for({}, set(), shares, restored, {}) == [Conflict("talk", unknown)]
    older = {"talk": wanted(4)}
    assert actions_for(older, set(), shares, restored, {}) == [Conflict("talk", changed)]


def test_a_newer_generation_that_a_robot_reports_is_a_conflict_for_the_order_that_it_refused():
    targets = {"talk": wanted(5), "map": wanted(6)}
    newer = {"talk": (5, "it has generation 9"), "gone": (7, "not wanted here")}
    # Nothing else is done for the robot until an operator has decided.
    assert actions_for(targets, set(), {}, None, newer) == [Conflict("talk", "it has generation 9")]
    # An order that was given since then has not been refused.
    newer = {"talk": (4, "it has generation 9")}
    assert actions_for(targets, set(), {}, None, newer) == [SetShare("talk"), SetShare("map")]


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
