"""What the servers offer to operators: a real daemon, and rows of a coordinator."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control import messages as m
from dorad.control.alertbook import AlertBook
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.eventbus import EventBus
from dorad.control.rowdeltas import RowDeltas
from dorad.control.topparts import reduction
from dorad.daemon.measuring.summary import CrashHistory, findings
from dorad.daemon.measuring.summary import row as row_of
from dorad.daemon.measuring.watching import SelfWatch, state_since
from dorad.daemon.subscription.reducing import MAX_ELEMENTS, Reducer, encoded
from dorafleet.console.view import tables
from dorafleet.coordinator.findings import MAX_FINDINGS, MAX_TEXT, RobotFacts
from dorafleet.coordinator.overview import since_of
from dorafleet.coordinator.probe import Skew
from dorafleet.coordinator.rows import Known, Software, checked, fleet_row
from tests.harness.daemon import Daemon
from tests.harness.waiting import until

from .fakefleet import edge, node

CAMERA = """\
import numpy as np, pyarrow as pa
from dora import Node
node = Node()
for event in node:
    if event["type"] == "INPUT":
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :32] = (255, 0, 0)
        node.send_output("image", pa.array(image.reshape(-1)),
                         {"width": 64, "height": 48, "encoding": "bgr8"})
"""
FLOW = """\
nodes:
  - id: camera
    path: camera.py
    restart_policy: always
    restart_delay: 0.1
    inputs: {tick: dora/timer/millis/20}
    outputs: [image]
  - id: sink
    path: sink.py
    inputs: {image: camera/image}
"""
SINK = "from dora import Node\nfor event in Node():\n    pass\n"


@pytest.fixture
def pick(dorad: Daemon, tmp_path: Path) -> Daemon:
    (tmp_path / "camera.py").write_text(CAMERA)
    (tmp_path / "sink.py").write_text(SINK)
    (tmp_path / "flow.yml").write_text(FLOW)
    dorad.dora_ok("start", tmp_path / "flow.yml", "--name", "pick")
    return dorad


async def test_a_daemon_tells_of_a_crash_and_keeps_who_looks_after_it(pick: Daemon) -> None:
    async with AsyncClient(pick.paths.control) as client:
        assert client.role == "admin"
        async with client.watch_fleet(interval=0.2) as rows:
            async for news in rows:
                (row,) = news.rows
                if row.running == 2:
                    break
            assert (row.state, row.dataflow, row.nodes) == ("ok", "pick", 2)
            (info, _) = await client.nodes("pick")
            assert info.pid is not None
            os.kill(info.pid, signal.SIGKILL)
            said = []
            async for news in rows:
                (row,) = news.rows
                said.append((row.state, row.why))
                if row.why.startswith("node camera failed once in 60 s"):
                    break
        # A look before its next process starts says that it waits for that.
        assert all(state == "warn" for state, why in said if why), said
        assert all(why.startswith("node camera failed") for _, why in said if why), said
        async with client.watch_alerts(interval=0.2) as events:
            async for event in events:
                if event.alerts:
                    break
            (alert,) = event.alerts
            assert (alert.node, alert.dataflow, alert.count) == ("camera", "pick", 1)
            acked = await client.ack_alert(alert.id)
            assert acked.acked_by == f"user {os.getuid()}"
            async for event in events:
                if event.alerts and event.alerts[0].acked_by:
                    break


async def test_a_daemon_names_the_nodes_that_a_command_has_stopped(pick: Daemon) -> None:
    async with (
        AsyncClient(pick.paths.control) as client,
        client.watch_fleet(interval=0.2) as rows,
    ):

        async def until_stopped(names: list[str]) -> m.FleetRow:
            async for news in rows:
                if news.rows and news.rows[0].running and news.rows[0].stopped == names:
                    return news.rows[0]
            raise AssertionError("the daemon has ended")

        await until_stopped([])
        await asyncio.to_thread(pick.dora_ok, "node", "stop", "sink", "-d", "pick")
        row = await until_stopped(["pick/sink"])
        assert row.state == "ok"
        await asyncio.to_thread(pick.dora_ok, "node", "restart", "sink", "-d", "pick")
        await until_stopped([])


async def test_an_alert_and_who_looks_after_it_outlive_a_daemon(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "sink.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "flow.yml").write_text("nodes:\n  - {id: sink, path: sink.py}\n")
    own_daemon.dora("start", tmp_path / "flow.yml", "--name", "pick", "--detach")
    async with AsyncClient(own_daemon.paths.control) as client:
        before = await _alert(client, "dataflow-failed")
        await client.ack_alert(before.id)
    own_daemon.kill()
    own_daemon.start()
    async with AsyncClient(own_daemon.paths.control) as client:
        after = await _alert(client, "dataflow-failed")
    assert (after.id, after.since) == (before.id, before.since)
    assert after.acked_by == f"user {os.getuid()}"


async def _alert(client: AsyncClient, cause: str) -> m.Alert:
    async with client.watch_alerts(interval=0.2) as events:
        async for event in events:
            for alert in event.alerts:
                if alert.cause == cause:
                    return alert
    raise AssertionError("the stream has ended")


async def test_a_preview_is_made_small_where_it_comes_from(pick: Daemon) -> None:
    async with AsyncClient(pick.paths.control) as client:
        size = m.Preview(width=8, height=8)
        stream = client.echo(["camera/image"], dataflow="pick", max_rate_hz=20, preview=size)
        async with stream as messages:
            header, array = await anext(messages)
    assert array is not None
    assert header.metadata["encoding"] == "rgb8"
    assert (header.metadata["width"], header.metadata["height"]) == (8, 6)
    assert header.metadata["preview"] == "64x48 bgr8"
    pixels = array.to_numpy().reshape(6, 8, 3)
    assert pixels[0, 0].tolist() == [0, 0, 255]
    assert pixels[0, 7].tolist() == [0, 0, 0]


async def test_top_watch_reduces_and_refuses_what_it_does_not_know(pick: Daemon) -> None:
    async with AsyncClient(pick.paths.control) as client:
        async with client.watch_top(filter="node=sink", interval=0.2, dataflow="pick") as parts:
            async for part in parts:
                if part.edges:
                    break
        assert [info.node for info in part.top.nodes] == ["sink"]
        assert [each.target for each in part.top.edges] == ["sink/image"]
        for wrong in ("node~(a+)+$", "colour=red"):
            with pytest.raises(ControlError, match="`filter`"):
                async with client.watch_top(filter=wrong) as parts:
                    await anext(parts)


def test_the_limit_is_that_of_each_table_and_the_counts_are_whole() -> None:
    top = m.Top(
        at=0.0,
        window=1.0,
        nodes=[node("r", f"n{at}", metrics=m.NodeMetrics(cpu=float(at))) for at in range(9)],
        edges=[edge("r", f"n{at}/o", "n0/i", rate=float(at), queued=at) for at in range(5)],
    )
    part = reduction(m.TopWatch(order="cpu", limit=2))(top)
    assert [info.node for info in part.top.nodes] == ["n8", "n7"]
    assert (part.nodes, part.edges, len(part.top.edges)) == (9, 5, 2)
    full = reduction(m.TopWatch(filter="queue>3"))(top)
    assert [each.source for each in full.top.edges] == ["n4/o"] and full.nodes == 0


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_cannot_be_is_refused(rate: float) -> None:
    with pytest.raises(ControlError, match="max_rate_hz"):
        encoded(m.TopicSubscribe(max_rate_hz=rate))


@given(st.lists(st.floats(0, 0.3), max_size=50), st.floats(1, 50))
def test_no_more_messages_pass_than_the_rate_allows(pauses: list[float], rate: float) -> None:
    reducer, now, sent = Reducer(rate), 100.0, 0
    for pause in pauses:
        now += pause
        sent += reducer.is_due("camera/image", now)
    assert sent <= (now - 100.0) * rate + 2


def test_long_arrays_are_cut_and_large_values_left_out() -> None:
    reducer = Reducer(size=(10, 10))
    array, metadata = reducer.reduce(pa.array(np.arange(10_000)), {"a": 1})
    assert array is not None
    assert (len(array), metadata) == (
        MAX_ELEMENTS,
        {"a": 1, "preview": "4096 of 10000 elements"},
    )
    array, metadata = reducer.reduce(pa.array(["x" * 1_000_000]), {})
    assert array is not None and len(array) == 0
    assert metadata["preview"].startswith("none of")
    lying = {"width": 1000, "height": 1000, "encoding": "rgb8"}
    array, metadata = reducer.reduce(pa.array(np.zeros(30, np.uint8)), lying)
    assert array is not None and len(array) == 30


def test_three_crashes_within_a_minute_are_a_failure() -> None:
    crashes = CrashHistory()
    for second, restarts in enumerate((0, 1, 1, 3)):
        info = node("r", "gripper", restarts=restarts, last_exit="was killed by SIGSEGV")
        crashes.add(float(second), [info])
    (found,) = findings(4.0, [info], [], [], crashes, "")
    assert (found.severity, found.since) == ("fail", 1.0)
    assert found.text == "node gripper failed 3 times in 60 s (was killed by SIGSEGV)"
    crashes.add(70.0, [info])
    assert findings(70.0, [info], [], [], crashes, "") == []


@pytest.mark.parametrize("status", ["restarting", "starting"])
def test_a_failed_node_is_a_finding_also_while_it_waits_for_its_restart(status: str) -> None:
    waiting = node("r", "gripper", status=status, pid=None, last_exit="exited with code 3")
    (found,) = findings(1.0, [waiting], [], [], CrashHistory(), "")
    assert found.severity == "warn"
    assert found.text == "node gripper failed and waits for its restart (exited with code 3)"
    waiting.last_exit = "exited with code 0"
    assert findings(1.0, [waiting], [], [], CrashHistory(), "") == []
    new = node("r", "gripper", status="starting", pid=None)
    assert findings(1.0, [new], [], [], CrashHistory(), "") == []


def test_a_finding_of_a_failed_node_tells_why_it_failed() -> None:
    why = "ModuleNotFoundError: No module named 'cv2'"
    failed = node(
        "r", "cam", status="failed", pid=None, last_exit="exited with code 1", last_error=why
    )
    (finding,) = findings(1.0, [failed], [], [], CrashHistory(), "")
    assert finding.text == f"cam failed: {why} (exited with code 1)"
    assert (finding.error, finding.brief) == (why, "node cam failed (exited with code 1)")
    failed.last_error = "x" * 1000
    (finding,) = findings(1.0, [failed], [], [], CrashHistory(), "")
    assert finding.text.endswith("… (exited with code 1)") and len(finding.text) <= 300


def test_an_alert_of_several_robots_tells_why_if_all_failed_for_the_same_reason() -> None:
    book = AlertBook()

    def fail(errors: list[str]) -> str:
        wrong = {
            f"arm{at}": [
                m.Finding(
                    "node-failed", "pick/cam", f"cam failed: {error} (exited with code 1)", "fail",
                    1.0, "pick", "cam", brief="node cam failed (exited with code 1)", error=error,
                    event=True,
                )
            ]
            for at, error in enumerate(errors)
        }  # fmt: skip
        book.observe(1.0, wrong)
        (alert,) = book.alerts()
        return alert.text

    assert fail(["KeyError: 'x'"] * 6) == "cam failed: KeyError: 'x' (exited with code 1)"
    assert fail(["KeyError: 'x'"] * 5 + ["OSError"]) == "node cam failed (exited with code 1)"


class Registry:
    """What the row of a machine needs of a daemon's registry."""

    def __init__(self) -> None:
        self.event_bus = EventBus()
        self.folders = ()
        self.records = ()
        self.store = SimpleNamespace(load_alerts=list, put_alerts=lambda alerts: None)
        self.runner = SimpleNamespace(node_users=SimpleNamespace(problem=lambda: ""))


async def test_a_machine_that_cannot_be_measured_is_not_shown_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: object) -> float:
        raise OSError("Too many open files")

    monkeypatch.setattr("dorad.daemon.measuring.watching.MIN_PAUSE_S", 0.01)
    monkeypatch.setattr("dorad.daemon.measuring.watching.EVERY_S", 0.02)
    failed = node("x", "gripper", status="failed", pid=None)
    top = m.Top(at=0.0, window=0.0, nodes=[failed], edges=[])
    watch = SelfWatch(Registry(), SimpleNamespace(top=lambda: top, troubles=dict))
    running = asyncio.create_task(watch.run())
    try:
        await until(lambda: watch.row is not None)
        with monkeypatch.context() as broken:
            broken.setattr("psutil.cpu_percent", fails)
            await until(
                lambda: watch.row.why.endswith("it cannot be measured (Too many open files)")
            )
            assert (watch.row.state, watch.row.known) == ("fail", False)
            assert [each.cause for each in watch.row.findings] == ["daemon-problem", "node-failed"]
        await until(lambda: watch.row.known)
        assert [each.cause for each in watch.row.findings] == ["node-failed"]
    finally:
        running.cancel()
        await asyncio.wait({running})


def test_a_node_that_ends_well_and_is_started_again_has_not_failed_unless_it_does_so_often() -> (
    None
):
    crashes = CrashHistory()
    for second, restarts in enumerate((0, 1)):
        info = node("r", "gripper", restarts=restarts, last_exit="exited with code 0")
        crashes.add(float(second), [info])
    assert findings(2.0, [info], [], [], crashes, "") == []
    info.restarts = 3
    crashes.add(3.0, [info])
    (found,) = findings(4.0, [info], [], [], crashes, "")
    assert found.text == "node gripper ended 3 times in 60 s (exited with code 0)"


@pytest.mark.parametrize("ordered", ["was restarted by a command", "was replaced by a command"])
def test_a_command_that_restarts_a_node_is_no_failure_and_hides_none(ordered: str) -> None:
    crashes = CrashHistory()
    info = node("r", "gripper", last_exit=ordered)
    for second in range(6):
        info.restarts = second
        crashes.add(float(second), [info])
    info.status, info.pid = "restarting", None
    assert findings(6.0, [info], [], [], crashes, "") == []
    info.restarts, info.last_exit = 6, "exited with code 3"
    crashes.add(6.0, [info])
    info.restarts, info.last_exit = 7, ordered
    crashes.add(7.0, [info])
    (found,) = findings(7.0, [info], [], [], crashes, "")
    assert found.text == "node gripper failed once in 60 s (exited with code 3)"


def test_broken_inputs_are_one_finding_about_the_output_that_is_silent() -> None:
    nodes = [
        node("r", "camera"),
        node("r", "planner", broken_inputs=["image"], status="degraded"),
        node("r", "gripper", broken_inputs=["path"], status="degraded"),
        node("r", "logger", broken_inputs=["force", "path"], status="degraded"),
        node("r", "arm"),
    ]
    edges = [
        edge("r", "camera/image", "planner/image"),
        edge("r", "planner/path", "gripper/path"),
        edge("r", "planner/path", "logger/path"),
        edge("r", "arm/force", "logger/force"),
    ]
    camera, arm = findings(1.0, nodes, edges, [], CrashHistory(), "")
    assert (camera.dataflow, camera.node) == ("pick", "camera")
    assert (camera.cause, camera.subject) == ("input-broken", "pick/camera/image")
    assert camera.text == (
        "camera/image is silent: inputs planner/image, gripper/path, logger/path are broken"
    )
    assert (arm.node, arm.text) == ("arm", "arm/force is silent: input logger/force is broken")
    # A source that has failed is one finding, not one more for each of its receivers.
    nodes[0].status, nodes[0].last_exit = "failed", "exited with code 1"
    failed, arm = findings(1.0, nodes, edges, [], CrashHistory(), "")
    assert (failed.cause, failed.node, arm.node) == ("node-failed", "camera", "arm")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("dataflow=pick", 1), ("queue>0 dataflow=pick", 1), ("queue>3", 0), ("lost>2", 1)],
)
def test_edges_are_filtered_by_what_their_columns_show(wanted: str, found: int) -> None:
    edges = [
        edge("r", "a/out", "b/in", dataflow_name="pick", queued=3, lost=2, unreadable=1),
        edge("r", "a/out", "b/in", dataflow_name="battery"),
    ]
    part = reduction(m.TopWatch(filter=wanted))(m.Top(at=0.0, window=1.0, nodes=[], edges=edges))
    assert [each.dataflow_name for each in part.top.edges] == ["pick"] * found
    columns = [column.key for column in tables.EDGES]
    cells = dict(zip(columns, tables.edge_row(edges[0]).cells, strict=True))
    texts = [cells[each].text for each in ("dataflow", "queue", "dropped")]
    assert texts == ["pick", "3/10", "0+3"]


def test_an_output_of_another_machine_that_is_silent_is_named_as_its_dataflow_names_it() -> None:
    nodes = [node("r", "dora.link"), node("r", "drive", broken_inputs=["pose"], status="degraded")]
    edges = [edge("r", "dora.link/map/pose", "drive/pose")]
    (found,) = findings(1.0, nodes, edges, [], CrashHistory(), "")
    assert (found.node, found.subject) == ("map", "pick/map/pose")
    assert found.text == "map/pose of another machine is silent: input drive/pose is broken"


def test_a_node_that_ended_with_its_source_is_a_finding_once_that_runs_again() -> None:
    gripper = node("r", "gripper", status="stopped", pid=None, ended_by="inputs")
    nodes = [node("r", "planner", status="failed", pid=None), gripper]
    edges = [edge("r", "planner/path", "gripper/path")]
    (failed,) = findings(1.0, nodes, edges, [], CrashHistory(), "")
    assert failed.node == "planner"
    nodes[0].status, nodes[0].restarts = "running", 1
    (left,) = found = findings(1.0, nodes, edges, [], CrashHistory(), "")
    assert (left.cause, left.severity, left.node) == ("node-ended", "warn", "gripper")
    assert left.text == "node gripper ended with its source planner, which runs again"
    row = row_of("r", nodes, edges, found, cpu=1, memory=1, version="1")
    assert (row.running, row.nodes) == (1, 2)


def test_a_node_that_ended_by_itself_is_a_finding_while_all_its_sources_run() -> None:
    logger = node("r", "logger", status="stopped", pid=None, last_exit="exited with code 0")
    nodes = [node("r", "planner"), node("r", "camera"), logger]
    edges = [edge("r", "planner/path", "logger/path"), edge("r", "camera/image", "logger/image")]
    (left,) = found = findings(1.0, nodes, edges, [], CrashHistory(), "")
    assert (left.cause, left.severity, left.node) == ("node-ended", "warn", "logger")
    assert left.text == "node logger has ended, its sources run on"
    row = row_of("r", nodes, edges, found, cpu=1, memory=1, version="1")
    assert (row.running, row.nodes) == (2, 3)
    edges[1].source = "dora.link/far/image"  # of another machine: it may have ended there
    assert findings(1.0, nodes, edges, [], CrashHistory(), "") == []
    edges[1].source = "camera/image"
    nodes[1].status = "stopped"
    assert findings(1.0, nodes, edges, [], CrashHistory(), "") == []


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ("planner", {"restarts": 0}),  # it sends no more, but runs on
        ("planner", {"dynamic": True, "pid": None, "restarts": 0}),
        ("dora.link", {"restarts": 1}),  # the source ended on another machine
    ],
)
def test_a_node_that_ended_with_its_source_is_no_finding_while_that_does_not_send_again(
    source: str, given: dict[str, Any]
) -> None:
    gripper = node("r", "gripper", status="stopped", pid=None, ended_by="inputs")
    nodes = [node("r", source, status="running", **given), gripper]
    edges = [edge("r", f"{source}/path", "gripper/path")]
    assert findings(1.0, nodes, edges, [], CrashHistory(), "") == []
    assert row_of("r", nodes, edges, [], cpu=1, memory=1, version="1").state == "ok"


@pytest.mark.parametrize(("ended_by", "nodes"), [("command", 2), ("inputs", 1), (None, 1)])
def test_of_nodes_that_have_ended_those_count_that_a_command_has_stopped(
    ended_by: str | None, nodes: int
) -> None:
    known = [node("r", "camera"), node("r", "task", status="stopped", pid=None, ended_by=ended_by)]
    row = row_of("r", known, [], [], cpu=1, memory=1, version="1")
    assert (row.state, row.running, row.nodes) == ("ok", 1, nodes)
    assert row.why == ("stopped by a command: pick/task" if ended_by == "command" else "")


def test_nodes_that_wait_for_each_other_and_inputs_without_a_known_source_are_findings() -> None:
    nodes = [node("r", "a", broken_inputs=["in"]), node("r", "b", broken_inputs=["in"])]
    edges = [edge("r", "b/out", "a/in"), edge("r", "a/out", "b/in")]
    assert {each.text for each in findings(1.0, nodes, edges, [], CrashHistory(), "")} == {
        "b/out is silent: input a/in is broken",
        "a/out is silent: input b/in is broken",
    }
    (found, _) = findings(1.0, nodes, [], [], CrashHistory(), "")
    assert (found.node, found.text) == ("a", "input a/in is broken (silent source)")


def test_a_robot_is_in_trouble_since_its_trouble_began_however_often_it_counts() -> None:
    def failing(text: str) -> m.FleetRow:
        found = m.Finding(cause="c", subject="s", text=text, severity="fail", since=5.0)
        return m.FleetRow(robot="x", state="fail", why=text, findings=[found])

    before = failing("failed 3 times")
    before.since = state_since(before, None, 6.0)
    assert (before.since, state_since(failing("failed 4 times"), before, 7.0)) == (5.0, 5.0)
    well = m.FleetRow(robot="x", state="ok")
    assert state_since(well, before, 8.0) == 8.0
    well.since = 8.0
    assert state_since(m.FleetRow(robot="x", state="ok"), well, 9.0) == 8.0


def test_a_dataflow_that_failed_is_a_finding_until_it_runs_again() -> None:
    failed = m.DataflowState(
        uuid="u", name="pick", status="failed", failures=[m.Failure(headline="node a exited")]
    )
    (found,) = findings(9.0, [], [], [(failed, 5.0)], CrashHistory(), "")
    assert (found.text, found.since) == ("dataflow pick: node a exited", 5.0)


AWAY = RobotFacts("arm1", state="unreachable", reason="silent", away_since=50.0)


def known(**fields: object) -> Known:
    given: dict[str, object] = {
        "facts": RobotFacts("arm1"),
        "seen_at": 90.0,
        "labels": {"zone": "hall"},
        "version": "1",
    }
    return Known(**{**given, **fields})  # type: ignore[arg-type]


def test_a_robot_without_contact_says_how_it_was_and_nothing_of_how_it_is() -> None:
    own = m.FleetRow(robot="x", state="ok", dataflow="pick", nodes=3, running=3)
    row = fleet_row(own, known(facts=AWAY), 100.0)
    assert (row.state, row.why, row.since, row.known) == (
        "unreach",
        "no contact, was well",
        50.0,
        False,
    )
    assert row.dataflow == "pick", "what it ran last, also what the coordinator has not started"
    assert [each.cause for each in row.findings] == ["unreachable"]
    never = fleet_row(None, known(facts=RobotFacts("arm1", state="never-seen")), 100.0)
    assert (never.state, never.why) == ("unreach", "never connected")
    assert [each.cause for each in never.findings] == ["never-connected"]


def test_a_robot_that_is_back_is_not_well_before_it_says_so() -> None:
    own = m.FleetRow(robot="x", state="ok", dataflow="pick", nodes=3, running=3)
    row = fleet_row(own, known(awaited=True), 100.0)
    assert (row.state, row.known) == ("unreach", False)
    assert row.why == "connected, has not described itself yet, was well"
    own.since = 5.0  # when it began to be well
    away = m.FleetRow(robot="x", state="unreach", since=80.0)
    assert since_of(fleet_row(own, known(awaited=True), 100.0), away, 100.0) == 80.0
    assert since_of(row, own, 100.0) == 100.0
    row = fleet_row(None, known(awaited=True), 100.0)
    assert (row.state, row.why) == ("unreach", "connected, has not described itself yet")
    # What was wrong stays so.
    own.findings = [m.Finding(cause="c", subject="s", text="t", severity="fail", since=1.0)]
    assert fleet_row(own, known(awaited=True), 100.0).state == "fail"


def test_a_robot_that_is_well_says_what_a_command_has_stopped() -> None:
    own = m.FleetRow(robot="x", state="ok", dataflow="pick", why="stopped by a command: pick/arm")
    assert fleet_row(own, known(), 9.0).why == "stopped by a command: pick/arm"
    updating = Software("r2", updating="rollout 12: node 3 of 5")
    assert fleet_row(own, known(software=updating), 9.0).why == "rollout 12: node 3 of 5"


def test_states_are_never_shown_as_one_another() -> None:
    warning = m.Finding(cause="c", subject="s", text="t", severity="warn", since=1.0)
    own = m.FleetRow(robot="x", dataflow="pick", findings=[warning])
    updating = Software("r2", updating="rollout 12: node 3 of 5")
    assert fleet_row(own, known(), 9.0).state == "warn"
    assert fleet_row(own, known(software=updating), 9.0).state == "update"
    own.findings = []
    ahead = RobotFacts("arm1", skew=Skew(3.0))
    busy = known(software=Software(busy="lease", since=40.0), facts=ahead)
    assert fleet_row(own, busy, 90.0).state == "busy"
    assert fleet_row(own, busy, 90.0).since == 37.0, "by the coordinator's clock"
    assert fleet_row(own, known(facts=RobotFacts("arm1", daemon="dead")), 9.0).state == "fail"
    paused = RobotFacts("arm1", state="conflict-paused", conflicts={"pick": "newer"})
    row = fleet_row(own, known(facts=paused), 9.0)
    assert (row.state, row.why) == ("fail", "it is paused because of `pick`: newer")


def test_what_a_robot_sends_of_itself_is_bounded_and_under_its_own_name() -> None:
    long = "x" * 100_000
    finding = m.Finding(cause=long, subject=long, text=long, severity="fail", since=100.0)
    row = m.FleetRow(
        robot="other", why=long, dataflow=long, labels={long: long}, findings=[finding] * 5000
    )
    found = checked(row, "arm1", skew=60.0)
    assert (found.robot, found.labels, len(found.findings)) == ("arm1", {}, MAX_FINDINGS)
    assert found.findings[0].since == 40.0
    assert len(found.why) == len(found.findings[0].text) == MAX_TEXT
    finding.since = 1.7e308
    never = m.FleetRow(robot="x", nodes=1 << 70, since=-1.7e308, findings=[finding])
    # JSON has no infinity: one such row would end the stream of every console.
    again = msgspec.json.decode(
        msgspec.json.encode(checked(never, "arm1", skew=-1.7e308)), type=m.FleetRow
    )
    assert again.nodes < 1 << 63


def test_only_rows_that_differ_are_sent() -> None:
    deltas = RowDeltas()
    rows = [m.FleetRow(robot=f"arm{at}", seen_at=1.0) for at in range(3)]
    first = deltas.take(rows)
    assert first is not None and first.whole and len(first.rows) == 3
    seen = [m.FleetRow(robot=f"arm{at}", seen_at=2.0) for at in range(3)]
    assert deltas.take(seen) is None
    seen[1].cpu = 5.0
    news = deltas.take(seen[:2])
    assert news is not None
    assert ([row.robot for row in news.rows], news.removed) == (["arm1"], ["arm2"])
