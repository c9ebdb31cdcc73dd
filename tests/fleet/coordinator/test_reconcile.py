"""What is decided about robots and dataflows, for states of all kinds."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.messages import DataflowState, LinkPeer, NodeResult
from dorad.control.messages.agent import ShareState
from dorafleet.coordinator.folding import outcome_of, state_of, status_of
from dorafleet.coordinator.reconcile import (
    FINAL,
    Conflict,
    Fail,
    Finish,
    Open,
    OpenShare,
    RemoveShare,
    SetShare,
    actions_for,
    judge,
)
from dorafleet.coordinator.records import Options, Record, Restored, Wanted

NAMES = ("talk", "map", "arm")
STATUSES = (
    "pending", "starting", "ready", "running", "stopping", "stopped", "finished", "failed",
)  # fmt: skip
RESTORED = Restored(backup=20, first=40)


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
        "options": Options(),
        "placement": {"a": "arm1", "b": "arm2"},
        "ports": {"arm1": 1, "arm2": 2},
        "generation": 5,
        "started_at": 0,
        "hold": 9,
    }
    return Record(**{**given, **fields})


wanted = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(Wanted, st.integers(1, 60), enabled=st.booleans(), uuid=st.just("u")),
)
shares = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(st.integers(1, 60), st.sampled_from(STATUSES))
).map(lambda found: {name: share(name, *each) for name, each in found.items()})
opened = st.sets(st.sampled_from(NAMES))


def carry_out(action, targets, found, open_now):
    """Return the shares after a robot has carried out an action as an agent does."""
    after = dict(found)
    match action:
        case SetShare(name):
            target = targets[name]
            held = "running" if name in open_now else "ready"
            after[name] = share(name, target.generation, held if target.enabled else "stopped")
        case OpenShare(name):
            after[name] = msgspec.structs.replace(found[name], status="running")
        case RemoveShare(name):
            del after[name]
    return after


@given(wanted, opened, shares, st.sampled_from([None, RESTORED]))
def test_carrying_it_out_leaves_nothing_to_do(targets, open_now, found, restored):
    actions = actions_for(targets, open_now, found, restored, {})
    if any(isinstance(each, Conflict) for each in actions):
        assert all(isinstance(each, Conflict) for each in actions)
        return
    for action in actions:
        found = carry_out(action, targets, found, open_now)
    assert actions_for(targets, open_now, found, restored, {}) == []
    assert found.keys() <= targets.keys()
    assert found.keys() >= {name for name, each in targets.items() if each.enabled}


@given(wanted, opened, shares, st.sampled_from([None, RESTORED]))
def test_no_robot_is_sent_something_older_than_it_has(targets, open_now, found, restored):
    for action in actions_for(targets, open_now, found, restored, {}):
        if isinstance(action, SetShare) and action.dataflow in found:
            assert targets[action.dataflow].generation > found[action.dataflow].generation
        if isinstance(action, RemoveShare):
            assert found[action.dataflow].status in FINAL
            assert action.dataflow not in targets


@given(wanted, opened, shares)
def test_what_was_made_after_the_backup_is_never_touched_unless_it_has_ended(
    targets, open_now, found
):
    lost = [
        name
        for name, each in found.items()
        if RESTORED.backup < each.generation < RESTORED.first
        and (
            targets[name].generation <= RESTORED.backup
            if name in targets
            else each.status not in FINAL
        )
    ]
    actions = actions_for(targets, open_now, found, RESTORED, {})
    if lost:
        assert {each.dataflow for each in actions} >= set(lost)
        assert all(isinstance(each, Conflict) for each in actions)


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
