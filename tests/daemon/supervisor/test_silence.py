"""Nodes that do not call the node API for long are reported, each once."""

import asyncio
import time

import pytest

from dorad.daemon.supervisor import watchdogs
from dorad.daemon.supervisor.watchdogs import SILENCE_CHECK_S, SILENCE_S
from dorad.dataflow.model import NodeSpec
from tests.daemon.fakes import Vitals
from tests.daemon.flows import node
from tests.daemon.supervisor.test_watchdogs import Scene, checked
from tests.harness.waiting import until

HUNG = Vitals(asleep=False)
HOLDS_THE_INTERPRETER = Vitals(asleep=True, queued=1)
"""One of its threads still seems to sleep at the doorbell, but takes nothing."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    HUNG.unread = HOLDS_THE_INTERPRETER.unread = False


def watch(scene: Scene, vitals: Vitals, end: float, begin: float = 0.0) -> list[str]:
    """Check up to a time; a ping waits in the socket of a node that hangs. Return the reports."""
    scene.broker.nodes["a"] = vitals
    now = begin
    while now <= end:
        wait = scene.watchdogs.check(now)
        if ("ping", "a") in scene.broker.calls and (
            vitals is HUNG or vitals is HOLDS_THE_INTERPRETER
        ):
            vitals.unread = True
        now += SILENCE_CHECK_S if wait is None else wait
    return [text for _, _, text in scene.reports]


@pytest.mark.parametrize("vitals", [HUNG, HOLDS_THE_INTERPRETER])
async def test_a_node_that_hangs_is_reported_once_with_the_remedy(vitals: Vitals) -> None:
    scene = Scene(checked())
    assert watch(scene, vitals, SILENCE_S - 1) == []
    (text,) = watch(scene, vitals, 5 * SILENCE_S, begin=SILENCE_S)
    assert text.startswith("has not called dora for 10 s")
    assert "`health_check_timeout`" in text
    assert scene.reports[0][:2] == ("warn", "a")
    assert not scene.processes["a"].signals
    assert scene.broker.calls == [("ping", "a")]
    assert scene.look(6 * SILENCE_S) is None


@pytest.mark.parametrize(
    "vitals", [Vitals(asleep=True), Vitals(asleep=False, unread=False), Vitals(connected=False)]
)
async def test_a_node_that_waits_or_makes_calls_or_has_ended_with_dora_is_not(
    vitals: Vitals,
) -> None:
    assert watch(Scene(checked()), vitals, 5 * SILENCE_S) == []


async def test_a_packet_that_waits_at_the_moment_of_a_check_is_no_silence() -> None:
    """A busy node reads it in its next call; that of another node's end often comes just then."""
    scene = Scene(checked())
    busy = Vitals(asleep=False)
    scene.broker.nodes["a"] = busy
    now = 0.0
    while now <= 5 * SILENCE_S:
        busy.unread = now % SILENCE_CHECK_S == 0
        now += scene.watchdogs.check(now) or SILENCE_CHECK_S
    assert ("ping", "a") in scene.broker.calls
    assert scene.reports == []


async def test_a_check_just_after_a_ping_is_no_silence() -> None:
    """The end of another node begins one at any moment."""
    scene = Scene(checked())
    busy = Vitals(asleep=False)
    scene.broker.nodes["a"] = busy
    for now in (0.1, SILENCE_S - 0.01):
        scene.watchdogs.check(now)
    assert scene.broker.calls == [("ping", "a")]
    busy.unread = True
    scene.watchdogs.check(SILENCE_S + 0.2)
    assert scene.reports == []


async def test_while_nodes_are_stepped_none_is_reported_or_asked_all_wait_for_one() -> None:
    """The replayer, too: a step of another node may take longer."""
    scene = Scene(checked())
    scene.broker.stepper = object()
    assert watch(scene, HUNG, 5 * SILENCE_S) == []
    assert scene.broker.calls == []


async def test_a_waiting_node_is_never_woken() -> None:
    scene = Scene(checked())
    watch(scene, Vitals(asleep=True), 5 * SILENCE_S)
    assert scene.broker.calls == []


async def test_a_busy_node_gets_a_ping_every_ten_seconds_at_most() -> None:
    scene = Scene(checked())
    scene.broker.nodes["a"] = Vitals(asleep=False)
    for tenth in range(1000):
        scene.watchdogs.check(tenth / 10)
    assert 1 <= len(scene.broker.calls) <= 20


async def test_all_dataflows_are_checked_at_the_same_time() -> None:
    scenes = [Scene(checked()) for _ in range(3)]
    wakes = set()
    for number, scene in enumerate(scenes):
        scene.broker.nodes["a"] = Vitals()
        wait = scene.watchdogs.check(100.0 + number)
        assert wait is not None
        wakes.add(100.0 + number + wait)
    assert wakes == {100.0 + SILENCE_CHECK_S}


@pytest.mark.parametrize("spec", [checked(health_check_timeout=60.0), node("a", dynamic=True)])
async def test_nodes_with_a_health_check_and_dynamic_ones_are_not_watched(spec: NodeSpec) -> None:
    scene = Scene(spec)
    if spec.is_dynamic:
        scene.runs["a"].process = None
    assert [each for each in watch(scene, HUNG, 5 * SILENCE_S) if "called" in each] == []


async def test_the_time_before_a_restart_does_not_count() -> None:
    scene = Scene(checked())
    watch(scene, HUNG, SILENCE_S - 1)
    scene.runs["a"].starts += 1
    HUNG.unread = False
    assert watch(scene, HUNG, 2 * SILENCE_S - 1, begin=SILENCE_S) == []


async def test_the_time_in_which_the_machine_stood_still_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watchdogs, "SILENCE_S", 1.0)
    monkeypatch.setattr(watchdogs, "SILENCE_CHECK_S", 0.2)
    scene = Scene(checked())
    scene.broker.nodes["a"] = HUNG
    loop = asyncio.get_running_loop()
    begun = loop.time()
    task = asyncio.create_task(scene.watchdogs.run())
    await until(lambda: ("ping", "a") in scene.broker.calls)
    HUNG.unread = True
    time.sleep(1.5)  # noqa: ASYNC251 - as if all processes had been stopped by a signal
    await until(lambda: scene.reports)
    # 1 s of silence, and 1.5 s of which a check would have taken 0.2 s.
    assert loop.time() - begun >= 2.2
    task.cancel()


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
