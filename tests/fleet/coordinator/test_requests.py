"""Which requests a robot is due, for states of all kinds, and case by case."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.messages import Share
from dorad.control.messages.releases import Group, HealthRules, Rejection, ReleaseState
from dorafleet.coordinator.records import Restored, RobotAssignment
from dorafleet.coordinator.requests import Answer, Request, Term, due_requests, order_of
from dorafleet.coordinator.verdicts import FINAL
from dorafleet.rollout.instances import ARM_S
from dorafleet.rollout.model import Rollout
from dorafleet.rollout.strategy import Strategy

from .test_verdicts import STATUSES, share

NAMES = ("talk", "map", "arm")
RESTORED = Restored(backup=20, first=40)
RELEASE = "7" * 64

UNKNOWN = "it runs, and the store does not know it"
STARTED = "it was started after the backup from which the store was restored"
CHANGED = "it was changed after the backup from which the store was restored"


def wanted(generation, *, enabled=True):
    return RobotAssignment(generation, enabled=enabled, uuid="u")


def order(generation, release=RELEASE):
    return RobotAssignment(generation, release=release)


def state(name, generation):
    return ReleaseState(
        dataflow=name, epoch=1, generation=generation, phase="confirmed", since=0, release=RELEASE
    )


def test_an_order_has_the_rules_and_the_lease_times_of_its_rollout():
    strategy = Strategy(rules=HealthRules(min_healthy_time=7), busy="ignore", busy_max=9.0)
    head = Rollout(3, "pick", RELEASE, "pick@1", strategy, 1, "ann", 1.0)
    desired = msgspec.structs.replace(order(5), rollout=3, soak_time=4.0, switch=False)
    made = order_of("pick", desired, head, 2)
    assert (made.epoch, made.generation, made.dataflow, made.release) == (2, 5, "pick", RELEASE)
    assert (made.rollout, made.soak_time, made.switch, made.arm) == ("3", 4.0, False, 0.0)
    assert (made.rules.min_healthy_time, made.busy, made.busy_max) == (7, "ignore", 9.0)


def test_an_order_without_a_rollout_has_the_usual_rules():
    made = order_of("pick", order(5, ""), None, 2)
    assert (made.release, made.rollout, made.rules) == (None, "", HealthRules())
    assert (made.busy, made.enabled, made.withdraw, made.committed) == ("wait", True, False, False)


def test_a_robot_reserves_its_switch_for_the_time_of_an_instance_when_it_is_asked_to():
    assert order_of("pick", msgspec.structs.replace(order(5), arm=True), None, 1).arm == ARM_S


def due(desired, opened=(), shares=(), releases=(), answers=(), restored=None):
    return due_requests(desired, set(opened), dict(shares), dict(releases), dict(answers), restored)


generations = st.integers(1, 60)
desired_states = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(RobotAssignment, generations, enabled=st.booleans(), uuid=st.just("u"))
    | st.builds(RobotAssignment, generations, release=st.sampled_from(["", RELEASE])),
)
shares = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(generations, st.sampled_from(STATUSES))
).map(lambda made: {name: share(name, *each) for name, each in made.items()})
releases = st.dictionaries(st.sampled_from(NAMES), generations).map(
    lambda made: {name: state(name, each) for name, each in made.items()}
)
opened_names = st.sets(st.sampled_from(NAMES))
restores = st.sampled_from([None, RESTORED])


def carry_out(request, desired, held, released, opened):
    """Change what a robot has as it does when it takes a request."""
    name = request.dataflow
    match request.kind:
        case "set":
            target = desired[name]
            status = "running" if name in opened else "ready"
            held[name] = share(name, target.generation, status if target.enabled else "stopped")
        case "open":
            held[name] = msgspec.structs.replace(held[name], status="running")
        case "remove":
            del held[name]
        case "order":
            released[name] = state(name, desired[name].generation)


@given(desired_states, opened_names, shares, releases, restores)
def test_carrying_all_out_leaves_nothing_to_do(desired, opened, held, released, restored):
    first = due(desired, opened, held, released, (), restored)
    if first.conflicts:
        assert {each.kind for each in first.requests} <= {"order"}
        return
    for request in first.requests:
        carry_out(request, desired, held, released, opened)
    assert due(desired, opened, held, released, (), restored).requests == []
    started = {name: each for name, each in desired.items() if not each.is_order}
    assert held.keys() <= started.keys()
    assert held.keys() >= {name for name, each in started.items() if each.enabled}
    ordered = {name for name, each in desired.items() if each.release}
    assert released.keys() >= ordered


@given(desired_states, opened_names, shares, releases, restores)
def test_no_robot_is_sent_something_older_than_it_has(desired, opened, held, released, restored):
    for request in due(desired, opened, held, released, (), restored).requests:
        name = request.dataflow
        if request.kind == "set" and name in held:
            assert request.generation > held[name].generation
        if request.kind == "remove":
            assert held[name].status in FINAL
            assert name not in desired or desired[name].is_order
        if request.kind == "order" and name in released:
            assert request.generation > released[name].generation


@given(desired_states, opened_names, shares)
def test_what_was_made_after_the_backup_is_never_touched_unless_it_has_ended(desired, opened, held):
    started = {name: each for name, each in desired.items() if not each.is_order}
    lost = {
        name
        for name, each in held.items()
        if RESTORED.backup < each.generation < RESTORED.first
        and (
            started[name].generation <= RESTORED.backup
            if name in started
            else each.status not in FINAL
        )
    }
    made = due(desired, opened, held, restored=RESTORED)
    if lost:
        assert made.conflicts.keys() >= lost
        assert {each.kind for each in made.requests} <= {"order"}


@given(desired_states, opened_names, shares, releases, st.data())
def test_what_was_answered_for_good_is_not_sent_again(desired, opened, held, released, data):
    first = due(desired, opened, held, released).requests
    answers = {}
    for request in first:
        kind = data.draw(st.sampled_from(["stored", "refused", "failed"]))
        waits = data.draw(st.booleans())
        answers[request.dataflow] = Answer(request, kind, "why", 1, waits)
    left = [
        each
        for each in first
        if (
            answers[each.dataflow].request == each
            and answers[each.dataflow].kind == "failed"
            and not answers[each.dataflow].waits
        )
        or answers[each.dataflow].request != each
    ]
    assert due(desired, opened, held, released, answers).requests == left


@pytest.mark.parametrize(
    ("target", "status", "opened", "kind", "conflict"),
    [
        # The robot has the order: only the barrier is left to open, once all robots are ready.
        (wanted(5), "pending", True, None, ""),
        (wanted(5), "ready", False, None, ""),
        (wanted(5), "ready", True, "open", ""),
        (wanted(5), "running", True, None, ""),
        (wanted(5), "failed", True, None, ""),
        (wanted(5, enabled=False), "stopped", False, None, ""),
        # It has an older one; the new one is to start, or to stop.
        (wanted(6), "running", True, "set", ""),
        (wanted(6), "ready", True, "set", ""),
        (wanted(6, enabled=False), "running", True, "set", ""),
        (wanted(6, enabled=False), "failed", False, "set", ""),
        # It has one that the store has never given.
        (wanted(4), "running", True, None, "its generation 5 is above 4"),
        (wanted(4), "failed", True, None, "its generation 5 is above 4"),
        (None, "running", True, None, UNKNOWN),
        (None, "pending", False, None, UNKNOWN),
        # It has ended, and the store has forgotten it.
        (None, "stopped", False, "remove", ""),
        (None, "finished", True, "remove", ""),
        (None, "failed", False, "remove", ""),
    ],
)
def test_a_robot_with_a_share_gets_what_is_missing_and_nothing_else(
    target, status, opened, kind, conflict
):
    desired = {} if target is None else {"talk": target}
    names = {"talk"} if opened else set()
    made = due(desired, names, {"talk": share("talk", 5, status)})
    generation = 5 if target is None else target.generation
    assert made.requests == ([] if kind is None else [Request(kind, "talk", generation)])
    assert made.conflicts == ({"talk": conflict} if conflict else {})


def test_a_robot_without_a_share_gets_one_that_is_to_run_and_none_that_has_ended():
    desired = {"map": wanted(3), "arm": wanted(4, enabled=False), "talk": wanted(5)}
    assert due(desired, {"map", "arm"}).requests == [
        Request("set", "map", 3),
        Request("set", "talk", 5),
    ]


def test_each_dataflow_of_a_robot_is_decided_by_itself():
    held = {
        "talk": share("talk", 5, "ready"),
        "map": share("map", 5, "ready"),
        "old": share("old", 2, "finished"),
    }
    desired = {"talk": wanted(5), "map": wanted(5), "arm": wanted(6), "pick": order(7)}
    assert due(desired, {"talk"}, held).requests == [
        Request("order", "pick", 7),
        Request("open", "talk", 5),
        Request("set", "arm", 6),
        Request("remove", "old", 2),
    ]


@pytest.mark.parametrize(
    ("target", "reported", "is_due"),
    [
        (order(5), None, True),
        (order(5), 4, True),
        (order(5), 5, False),
        # `dorafleet drift` shows it.
        (order(5), 6, False),
        # A removal: there is nothing to remove, or there is.
        (order(5, ""), None, False),
        (order(5, ""), 4, True),
        (order(5, ""), 5, False),
        # Set by hand, and no id of a release.
        (order(5, "pick@7"), None, False),
        (order(5, "pick@7"), 4, False),
    ],
)
def test_an_order_is_due_until_the_robot_reports_it(target, reported, is_due):
    released = {} if reported is None else {"pick": state("pick", reported)}
    expected = [Request("order", "pick", 5)] if is_due else []
    assert due({"pick": target}, (), {}, released).requests == expected


def test_a_conflict_of_a_share_holds_up_no_order():
    held = {"talk": share("talk", 5, "running"), "old": share("old", 2, "finished")}
    made = due({"talk": wanted(4), "map": wanted(6), "pick": order(7)}, {"talk"}, held)
    assert made.requests == [Request("order", "pick", 7)]
    assert made.conflicts == {"talk": "its generation 5 is above 4"}


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
    held = {"talk": share("talk", generation, "running")}
    assert due({}, (), held, restored=RESTORED).conflicts == {"talk": unknown}
    older = {"talk": wanted(4)}
    assert due(older, (), held, restored=RESTORED).conflicts == {"talk": changed}


def test_a_newer_generation_that_a_robot_reports_is_a_conflict_for_the_request_that_it_refused():
    desired = {"talk": wanted(5), "map": wanted(6)}
    newer = {
        "talk": Answer(Request("set", "talk", 5), "newer", "it has generation 9"),
        "gone": Answer(Request("set", "gone", 7), "newer", "not wanted here"),
    }
    # No other share is touched until an operator has decided.
    made = due(desired, answers=newer)
    assert made.conflicts == {"talk": "it has generation 9"}
    assert made.requests == []
    # A generation that was given since then has not been refused.
    newer["talk"] = Answer(Request("set", "talk", 4), "newer", "it has generation 9")
    assert due(desired, answers=newer).requests == [
        Request("set", "talk", 5),
        Request("set", "map", 6),
    ]


def test_a_barrier_opens_although_the_answer_to_its_share_got_lost():
    held = {"talk": share("talk", 5, "ready")}
    lost = {"talk": Answer(Request("set", "talk", 5), "failed", "no answer", 1, waits=True)}
    assert due({"talk": wanted(5)}, {"talk"}, held, answers=lost).requests == [
        Request("open", "talk", 5)
    ]


def test_what_has_failed_is_forgotten_once_the_robot_reports_that_it_is_done():
    lost = {"talk": Answer(Request("set", "talk", 5), "failed", "no answer", 1, waits=True)}
    assert due({"talk": wanted(5)}, answers=lost).over == set()
    held = {"talk": share("talk", 5, "running")}
    assert due({"talk": wanted(5)}, (), held, answers=lost).over == {"talk"}
    # A refusal of this generation counts until the store has another one, or forgets it.
    refused = {"talk": Answer(Request("set", "talk", 5), "refused", "no camera")}
    assert due({"talk": wanted(5)}, answers=refused).over == set()
    assert due({}, answers=refused).over == {"talk"}


TERM = Term(epoch=3, since=10)


@pytest.mark.parametrize(
    ("target", "epoch", "reported", "is_due", "is_strange"),
    [
        # Of an earlier term: what is ordered in this one replaces it, also if it is lower.
        (11, 2, 4, True, False),
        (11, 2, 20, True, False),
        (11, 2, 11, False, False),
        # An order of an earlier term says nothing about it.
        (10, 2, 4, True, False),
        (10, 2, 10, False, False),
        (10, 2, 20, False, True),
        # Of this term.
        (11, 3, 4, True, False),
        (11, 3, 11, False, False),
        (11, 3, 20, False, True),
    ],
)
def test_an_order_of_this_term_replaces_what_another_store_has_given(
    target, epoch, reported, is_due, is_strange
):
    released = {"pick": msgspec.structs.replace(state("pick", reported), epoch=epoch)}
    made = due_requests({"pick": order(target)}, (), {}, released, {}, None, TERM)
    assert made.requests == ([Request("order", "pick", target)] if is_due else [])
    text = f"generation {reported}; the last that was given is {target}"
    assert made.strange == ({"pick": text} if is_strange else {})


def test_without_a_term_only_generations_count():
    assert Term() == (0, 0)
    released = {"pick": msgspec.structs.replace(state("pick", 6), epoch=0)}
    made = due({"pick": order(5)}, (), {}, released)
    assert (made.requests, [*made.strange]) == ([], ["pick"])


@pytest.mark.parametrize(
    ("generation", "is_strange"), [(5, False), (6, True), (20, True), (21, False), (39, False),
                                   (40, True)],
)  # fmt: skip
def test_what_was_ordered_in_the_time_that_a_restore_has_lost_is_not_strange(
    generation, is_strange
):
    released = {name: state(name, generation) for name in NAMES}
    desired = {"arm": order(5), "map": wanted(5)}
    made = due(desired, (), {}, released, restored=RESTORED)
    # Of what the store does not know, or has started itself, a release says nothing.
    assert [*made.strange] == (["arm"] if is_strange else [])
    # Without a restore no time was lost.
    assert [*due(desired, (), {}, released).strange] == (["arm"] if generation > 5 else [])


def test_what_a_robot_has_answered_counts_while_the_store_or_the_robot_knows_the_dataflow():
    answers = {
        name: Answer(Request("set", name, 5), "refused", "no camera") for name in ("talk", "map")
    }
    held = {"talk": share("talk", 5, "running")}
    assert due({}, (), held, answers=answers).over == {"map"}
    assert due({"map": wanted(5)}, answers=answers).over == {"talk"}


def test_an_order_says_all_that_the_store_wants():
    given = {
        "params": {"cam/rate": 5},
        "enabled": False,
        "switch": False,
        "allow_lower": True,
        "retry": True,
        "stay": True,
        "rejects": [Rejection(release=RELEASE)],
        "soak_time": 4.0,
        "withdraw": True,
        "group": Group(instance="a", uuid="1" * 32, share=Share(machine="arm1", placement={})),
        "committed": True,
    }
    plain = order_of("pick", order(5), None, 2)
    for name, value in given.items():
        made = order_of("pick", msgspec.structs.replace(order(5), **{name: value}), None, 2)
        assert made == msgspec.structs.replace(plain, **{name: value}), name


def test_one_that_is_stopped_runs_again_only_if_that_is_wanted():
    rules = HealthRules(confirm_deadline=33.0)
    head = Rollout(3, "pick", RELEASE, "pick@1", Strategy(rules=rules), 1, "ann", 1.0)
    for returns, after in ((True, 33.0), (False, 0.0)):
        desired = msgspec.structs.replace(order(5), enabled=False, returns=returns)
        assert order_of("pick", desired, head, 1).resume_after == after
