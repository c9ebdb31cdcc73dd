"""The verdict on a dataflow on probation."""

import pytest

from dorad.agent.assignments.health import (
    Measurement,
    down_of,
    drained_elsewhere,
    is_due,
    judge,
    learn,
    watch,
)
from dorad.agent.assignments.model import Baseline
from dorad.agent.assignments.steps import MAX_CAUSE, MAX_DOWN
from dorad.control.messages import LinkPeer, NodeInfo, NodeMetrics
from dorad.control.messages.releases import Evidence, HealthRules
from dorad.dataflow.model import LINK

RULES = HealthRules(min_healthy_time=10)
NONE = Baseline()
BEFORE = Baseline(
    rates={"camera/image": 30.0}, nodes=["camera"], notices=["old"], misses={"camera": 0.1}
)


def node(name="camera", status="running", pid=1, **more):
    return NodeInfo(
        dataflow="u", dataflow_name="flow", node=name, status=status, pid=pid,
        restarts=more.pop("restarts", 0), metrics=NodeMetrics(), **more,
    )  # fmt: skip


def at(second, *nodes, sent=None, notices=()):
    sent = {"camera/image": 30 * second} if sent is None else sent
    return Measurement(float(second), list(nodes or [node()]), sent, list(notices))


def verdict(*seen, rules=RULES, baseline=NONE, probes=None):
    found = None
    for each in seen:
        found = watch(found, each, baseline)
    return judge(found, rules, baseline, probes)


def bad(health):
    return [f"{each.check} {each.text}" for each in health.evidence if not each.ok]


def test_a_dataflow_is_healthy_after_a_steady_time_and_its_rates_are_learned():
    assert not verdict(at(0), at(9)).healthy
    health = verdict(at(0), at(5), at(10))
    assert (health.healthy, health.fatal) == (True, "")
    assert (health.rates, health.nodes) == ({"camera/image": 30.0}, ["camera"])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (node(pid=2), "node camera has started again"),
        (node(restarts=1), "node camera has started again"),
        (node(status="restarting", last_exit="exited with code 1"), "is restarting: exited with"),
        (
            node(
                status="restarting",
                last_exit="exited with code 1",
                last_error="ModuleNotFoundError: No module named 'cv2'",
            ),
            "is restarting: exited with code 1: ModuleNotFoundError: No module named 'cv2'",
        ),
        (node(broken_inputs=["depth"]), "gets nothing on: depth"),
        (node(deadline_misses=20), "missed 20 deadlines in 10.0 s, before 1.0"),
    ],
)
def test_what_happens_to_a_node_restarts_the_time(wrong, text):
    found = watch(None, at(0), BEFORE)
    health = judge(type(found)(found.first, at(10, wrong)), RULES, BEFORE, None)
    assert any(text in line for line in bad(health))
    assert not health.healthy
    restarted = verdict(at(0), at(9, wrong), at(18, wrong), baseline=BEFORE)
    assert not restarted.healthy


def test_the_first_release_learns_how_many_deadlines_are_missed_here():
    health = verdict(at(0, node(deadline_misses=0)), at(10, node(deadline_misses=5)))
    assert health.healthy
    assert health.misses == {"camera": 0.5}


def test_a_node_that_has_failed_and_a_new_notice_cannot_get_better():
    assert "has failed" in verdict(at(0), at(1, node(status="failed"))).fatal
    assert verdict(at(0, notices=["old", "disk full"]), baseline=BEFORE).fatal == (
        "daemon has a new notice: disk full"
    )
    assert verdict(at(0, notices=["old"]), baseline=BEFORE).fatal == ""


def test_a_node_that_has_done_its_work_is_well_unless_it_ran_on_before():
    done = node(status="stopped", pid=None)
    assert verdict(at(0, done), at(10, done)).healthy
    assert not verdict(at(0, done), at(10, done), baseline=BEFORE).healthy


@pytest.mark.parametrize(
    ("per_second", "rules", "healthy"),
    [
        (15, {}, True),
        (14, {}, False),
        (14, {"quiet": ["camera/image"]}, True),
        (14, {"min_rate": 0.4}, True),
        (20, {"rates": {"camera/image": 25.0}}, False),
        (0, {}, False),
    ],
)
def test_outputs_carry_a_share_of_what_they_did(per_second, rules, healthy):
    rules = HealthRules(min_healthy_time=10, **rules)
    seen = [at(second, sent={"camera/image": per_second * second}) for second in (0, 10)]
    assert verdict(*seen, rules=rules, baseline=BEFORE).healthy is healthy


def test_a_rare_output_is_not_judged_and_a_new_one_needs_nothing():
    rare = Baseline(rates={"camera/image": 0.05})
    seen = [at(second, sent={"camera/image": 0, "new/x": 0}) for second in (0, 10)]
    assert verdict(*seen, baseline=rare).healthy


def test_an_output_without_a_known_rate_is_named():
    health = verdict(at(0), at(10))
    texts = {each.check: each.text for each in health.evidence}
    assert texts["output camera/image"] == "30/s; no rate to compare it with is known yet"


def test_the_reason_why_the_time_was_restarted_stays():
    again = node(restarts=1, last_exit="exited with code 1")
    health = verdict(at(0), at(5, again), at(9, again))
    (text,) = bad(health)
    assert text.startswith("steady for less than 10 s; before that node camera has started")
    assert text.endswith("it exited with code 1")


def test_a_rate_is_certain_if_the_output_had_begun_before_the_time():
    assert verdict(at(0), at(10)).settled == []
    assert verdict(at(1), at(11)).settled == ["camera/image"]
    assert verdict(at(1), at(11, sent={"camera/image": 30})).settled == []


def test_a_confirmed_release_is_measured_in_one_steady_time_after_the_other():
    found, following = learn(None, at(0), RULES)
    assert (found.seconds, following.first.at) == (0, 0)
    found, following = learn(following, at(9), RULES)
    assert (found.seconds, following.first.at) == (9, 0)
    found, following = learn(following, at(12), RULES)
    assert (found.settled, following.first.at) == ([], 12)
    found, following = learn(following, at(22), RULES)
    assert (found.settled, found.rates) == (["camera/image"], {"camera/image": 30.0})
    found, following = learn(following, at(30, node(restarts=1)), RULES)
    assert (found.seconds, following.first.at) == (0, 30)


SOURCES = {"pub": set(), "con": {"pub"}, "idle": {"con"}, "once": {"pub"}, "after": {"once"}}
RAN = Baseline(nodes=[*SOURCES])


def stopped(name, by=None):
    return node(name, status="stopped", pid=None, ended_by=by, last_exit="exited with code 0")


def test_nodes_that_do_not_run_are_told_from_those_that_have_finished():
    down = down_of(
        [
            node("pub"),
            node("con", status="failed", pid=None, last_exit="exited with code 1"),
            stopped("idle", "inputs"),
            stopped("once"),
            stopped("after", "inputs"),
        ],
        RAN,
        SOURCES,
    )
    assert down.failed == {"con": "has failed: it exited with code 1"}
    assert down.ended == {"idle": "has ended: its inputs closed"}
    # `after` has ended with a source that had finished by itself.
    assert down.finished == ["once", "after"]


def test_nodes_that_have_ended_with_nodes_of_other_machines_are_told_from_others():
    sources = {
        "view": {"camera"}, "both": {"camera", "once"}, "late": {"view"},
        "mixed": {"camera", "con"}, "after": {"once"}, "idle": {"con"},
    }  # fmt: skip
    names = [*sources, "con", "once"]
    nodes = [stopped(name, "inputs") for name in sources]
    nodes += [node("con", status="failed", pid=None), stopped("once"), node(LINK)]
    elsewhere = {"view", "both", "late"}
    assert drained_elsewhere(nodes, sources) == elsewhere
    down = down_of(nodes, Baseline(nodes=names), sources)
    text = "has ended: its inputs from other machines closed"
    assert {name for name, why in down.ended.items() if why == text} == elsewhere
    assert (down.ended.keys() - elsewhere, down.finished) == ({"mixed", "idle"}, ["once", "after"])
    # A dataflow of one machine has no such nodes.
    assert drained_elsewhere([*nodes, node("camera")], sources) == set()


def test_only_nodes_that_ran_when_the_release_was_confirmed_are_missed():
    failed = node("new", status="failed", pid=None, last_exit="exited with code 1")
    down = down_of([failed, stopped("late", "inputs")], Baseline(nodes=["pub"]), SOURCES)
    assert (down.failed, down.ended) == ({}, {})


@pytest.mark.parametrize(
    ("last", "fails"),
    [
        ("exited with code 1", True),
        ("was killed by SIGSEGV", True),
        ("exited with code 0", False),
        ("was restarted by a command", False),
        ("was replaced by a command", False),
    ],
)
def test_a_node_that_waits_for_its_restart_has_failed_unless_it_was_ordered(last, fails):
    waiting = node("con", status="restarting", pid=None, last_exit=last)
    found = down_of([waiting], RAN, SOURCES).failed
    assert found == ({"con": f"waits for its restart: it {last}"} if fails else {})


def test_a_stopped_node_and_a_dynamic_one_have_not_failed():
    down = down_of(
        [stopped("con", "command"), node("idle", status="stopped", pid=None, dynamic=True)],
        RAN,
        SOURCES,
    )
    assert down.failed == {}
    assert down.ended == {"con": "was stopped by a command"}
    assert down.finished == []


def test_a_chain_that_ended_with_a_finished_source_has_finished_in_any_order():
    chain = {"c": {"b"}, "b": {"a"}, "a": {"once"}}
    nodes = [stopped(name, "inputs") for name in chain] + [stopped("once")]
    assert set(down_of(nodes, Baseline(nodes=[*chain]), chain).finished) == {*chain, "once"}
    # Of an unknown source nothing is assumed.
    assert down_of([stopped("c", "inputs")], Baseline(nodes=["c"]), {}).ended


def test_a_report_about_nodes_is_bounded():
    names = [f"n{number}" for number in range(100)]
    nodes = [node(name, status="failed", pid=None, last_exit="x" * 9000) for name in names]
    failed = down_of(nodes, Baseline(nodes=names), {}).failed
    assert len(failed) == MAX_DOWN
    assert max(map(len, failed.values())) == MAX_CAUSE


def test_probes_run_last_and_decide():
    rules = HealthRules(min_healthy_time=10, probes=[["true"]])
    found = watch(watch(None, at(0), NONE), at(10), NONE)
    assert is_due(found, rules, NONE)
    assert not judge(found, rules, NONE, None).healthy
    for ok in (True, False):
        probe = Evidence(check="probe 1", ok=ok, text="exited")
        assert judge(found, rules, NONE, [probe]).healthy is ok


# -- bounds


def watched(first, last):
    found = watch(None, first, NONE)
    return type(found)(first, last)


def test_a_moment_has_no_rates_and_no_misses():
    found = watched(at(5, node(deadline_misses=1)), at(5, node(deadline_misses=9)))
    assert (found.seconds, found.rates, found.misses, found.settled) == (0, {}, {}, [])


def test_rates_count_from_the_first_measurement():
    found = watched(
        at(10, sent={"a/x": 100, "a/idle": 7}), at(20, sent={"a/x": 150, "a/idle": 7, "a/new": 20})
    )
    assert found.rates == {"a/x": 5.0, "a/idle": 0.0, "a/new": 2.0}
    assert found.settled == ["a/x"]
    health = judge(found, RULES, NONE, None)
    assert health.rates == {"a/x": 5.0, "a/new": 2.0}, "a silent output has no rate to compare with"


def test_misses_are_those_of_nodes_that_were_there_and_never_negative():
    first = at(0, node(deadline_misses=10), node("b"))
    last = at(10, node(deadline_misses=4), node("b", deadline_misses=5), node("c"))
    assert watched(first, last).misses == {"camera": 0.0, "b": 0.5}


@pytest.mark.parametrize(("missed", "ok"), [(2, True), (3, False)])
def test_a_node_may_miss_twice_as_many_deadlines_as_before(missed, ok):
    found = watched(at(0), at(10, node(deadline_misses=missed)))
    assert (not bad(judge(found, RULES, BEFORE, None))) == ok
    # Deadlines that were missed before do not count, and without a rate none do.
    found = watched(at(0, node(deadline_misses=50)), at(10, node(deadline_misses=52)))
    assert not bad(judge(found, RULES, BEFORE, None))
    found = watched(at(0), at(10, node(deadline_misses=1000)))
    assert not bad(judge(found, RULES, NONE, None))


@pytest.mark.parametrize(("count", "ok"), [(150, True), (149, False)])
def test_an_output_needs_its_share_of_the_rate_exactly(count, ok):
    found = watched(at(0), at(10, sent={"camera/image": count}))
    assert (not bad(judge(found, RULES, BEFORE, None))) == ok
    assert is_due(found, RULES, BEFORE) == ok


def test_an_output_is_judged_from_two_expected_messages_on():
    rare = Baseline(rates={"camera/image": 0.4})
    found = watched(at(0), at(10, sent={"camera/image": 0}))
    assert bad(judge(found, RULES, rare, None)), "2 messages are expected in 10 s"
    rarer = Baseline(rates={"camera/image": 0.39})
    assert not bad(judge(found, RULES, rarer, None))
    # A rate that is ordered is judged always.
    ordered = HealthRules(min_healthy_time=10, rates={"camera/image": 0.001})
    assert bad(judge(found, ordered, rarer, None))


def test_a_quiet_output_is_not_judged_and_one_that_nothing_receives_is_named():
    found = watched(at(0), at(10, sent={"camera/image": 0}))
    quiet = HealthRules(min_healthy_time=10, quiet=["camera/image"])
    assert not bad(judge(found, quiet, BEFORE, None))
    asked = HealthRules(min_healthy_time=10, rates={"arm/pose": 1.0})
    assert bad(judge(found, asked, NONE, None)) == ["output arm/pose no node receives it"]
    # One of the release before that is not there any more needs nothing.
    other = Baseline(rates={"old/x": 5.0})
    assert not bad(judge(found, RULES, other, None))


def test_a_counter_that_goes_back_begins_the_time_again():
    found = watch(watch(None, at(0, sent={"a/x": 5}), NONE), at(3, sent={"a/x": 4}), NONE)
    assert (found.seconds, found.interrupted) == (0, "output a/x its counter was reset")
    same = watch(watch(None, at(0, sent={"a/x": 5}), NONE), at(3, sent={"a/x": 5}), NONE)
    assert (same.seconds, same.interrupted) == (3, "")
    gone = watch(same, at(6, sent={}), NONE)
    assert gone.interrupted == "output a/x its counter was reset"


def test_a_counter_of_one_message_that_is_gone_begins_the_time_again():
    found = watch(watch(None, at(0, sent={"a/x": 1}), NONE), at(3, sent={}), NONE)
    assert (found.seconds, found.interrupted) == (0, "output a/x its counter was reset")


def test_a_node_that_has_gone_begins_the_time_again():
    found = watch(watch(None, at(0, node(), node("b")), NONE), at(3), NONE)
    assert (found.seconds, found.interrupted) == (0, "nodes nodes were added or removed")


def test_a_dynamic_node_is_well_whatever_it_does():
    for status in ("running", "stopped", "failed"):
        gone = node("tool", status, None, dynamic=True)
        health = verdict(at(0, node(), gone), at(10, node(), gone), baseline=BEFORE)
        (found,) = [each for each in health.evidence if each.check == "node tool"]
        assert (found.ok, found.text, health.fatal) == (True, "is dynamic", "")


def test_misses_are_compared_with_the_usual_number_of_that_time():
    for first, last in ((None, None), (0, None), (None, 0), (7, 7)):
        none = Baseline(misses={"camera": 0.0})
        found = watched(at(0, node(deadline_misses=first)), at(10, node(deadline_misses=last)))
        assert not bad(judge(found, RULES, none, None))
    found = watched(at(100), at(110, node(deadline_misses=3)))
    assert bad(judge(found, RULES, Baseline(misses={"camera": 0.1}), None)) == [
        "node camera missed 3 deadlines in 10.0 s, before 1.0"
    ]


def test_nodes_that_come_or_go_begin_the_time_again():
    for nodes in ([node(), node("b")], [node("b")]):
        found = watch(watch(None, at(0), NONE), at(3, *nodes), NONE)
        assert found.seconds == 0
        assert found.interrupted


def test_how_long_a_steady_time_has_to_be_is_said():
    short = judge(watched(at(0), at(9.9)), RULES, NONE, None)
    assert bad(short) == ["steady for less than 10 s"]
    found = type(watched(at(0), at(0)))(at(0), at(5), "node b has failed")
    assert bad(judge(found, RULES, NONE, None)) == [
        "steady for less than 10 s; before that node b has failed"
    ]
    long = type(found)(at(0), at(10), "node b has failed")
    assert [each.text for each in judge(long, RULES, NONE, None).evidence][-1] == "for 10 s"


@pytest.mark.parametrize(
    ("probes", "healthy"),
    [
        (None, False),
        ([], True),
        ([Evidence(check="probe", ok=True, text="")], True),
        ([Evidence(check="probe", ok=False, text="")], False),
    ],
)
def test_with_probes_a_release_is_healthy_once_they_have_passed(probes, healthy):
    found = watched(at(0), at(10))
    assert judge(found, HealthRules(min_healthy_time=10, probes=[["p"]]), NONE, probes).healthy == (
        healthy
    )
    assert judge(found, RULES, NONE, None).healthy


def judged(links, *nodes):
    found = watch(watch(None, at(0, *nodes), NONE), at(10, *nodes), NONE)
    return judge(found, RULES, NONE, None, links)


def test_a_machine_is_healthy_only_while_it_is_linked_to_the_others():
    up, away = LinkPeer(state="up"), LinkPeer(state="absent", reason="nobody answers at r2:5456")
    assert judged({"r2": up}).healthy
    health = judged({"r2": away, "r3": up})
    assert (health.healthy, health.fatal) == (False, "")
    assert bad(health) == ["link to r2 is not up: nobody answers at r2:5456"]


def test_the_link_is_no_node_that_must_run_on():
    assert judged({}, node(), node(LINK, pid=2)).nodes == ["camera"]
