"""Nodes that do not call the node API for long are reported, each once."""

import pytest

from dorad.daemon.supervisor.silencewatch import CHECK_S, SILENCE_S, SilenceWatch
from dorad.dataflow.model import NodeSpec
from tests.daemon.fakes import Vitals
from tests.daemon.flows import node
from tests.daemon.supervisor.test_watchdogs import Scene, checked


def watch(scene: Scene, vitals: Vitals, until: float, begin: float = 0.0) -> list[str]:
    """Check up to a time; a ping waits in the socket of a node that hangs. Return the reports."""
    silence = SilenceWatch(scene.state)
    scene.broker.nodes["a"] = vitals
    now = begin
    while now <= until:
        silence.check(now)
        if ("ping", "a") in scene.broker.calls and vitals is HUNG:
            vitals.unread = True
        now += CHECK_S
    return [text for _, _, text in scene.reports]


HUNG = Vitals(asleep=False)


@pytest.fixture(autouse=True)
def fresh() -> None:
    HUNG.unread = False


async def test_a_node_that_hangs_is_reported_once_with_the_remedy() -> None:
    scene = Scene(checked())
    assert watch(scene, HUNG, SILENCE_S - CHECK_S) == []
    (text,) = watch(scene, HUNG, 5 * SILENCE_S)
    assert text.startswith("has not called dora for 10 s")
    assert "`health_check_timeout`" in text
    assert scene.reports[0][:2] == ("warn", "a")
    assert not scene.processes["a"].signals


@pytest.mark.parametrize(
    "vitals", [Vitals(asleep=True), Vitals(asleep=False, unread=False), Vitals(connected=False)]
)
async def test_a_node_that_waits_or_makes_calls_or_has_ended_with_dora_is_not(
    vitals: Vitals,
) -> None:
    assert watch(Scene(checked()), vitals, 5 * SILENCE_S) == []


async def test_a_waiting_node_is_never_woken() -> None:
    scene = Scene(checked())
    watch(scene, Vitals(asleep=True), 5 * SILENCE_S)
    assert scene.broker.calls == []


async def test_a_busy_node_is_asked_no_more_often_than_it_is_checked() -> None:
    scene = Scene(checked())
    watch(scene, Vitals(asleep=False), 100 * CHECK_S)
    assert len(scene.broker.calls) <= 51


@pytest.mark.parametrize("spec", [checked(health_check_timeout=60.0), node("a", dynamic=True)])
async def test_nodes_with_a_health_check_and_dynamic_ones_are_not_watched(spec: NodeSpec) -> None:
    scene = Scene(spec)
    if spec.is_dynamic:
        scene.runs["a"].process = None
    assert watch(scene, HUNG, 5 * SILENCE_S) == []


async def test_the_time_before_a_restart_does_not_count() -> None:
    scene = Scene(checked())
    watch(scene, HUNG, SILENCE_S - CHECK_S)
    scene.runs["a"].starts += 1
    HUNG.unread = False
    assert watch(scene, HUNG, 2 * SILENCE_S - 2 * CHECK_S, begin=SILENCE_S) == []


async def test_the_next_daemon_does_not_report_it_again() -> None:
    scene = Scene(checked())
    watch(scene, HUNG, 5 * SILENCE_S)
    run = scene.runs["a"]
    stored = run.snapshot()
    run.silence_reported = False
    run.restore(stored)
    assert run.silence_reported
    run.restore({key: value for key, value in stored.items() if key != "silence_reported"})
    assert not run.silence_reported
