"""Commands that talk to a coordinator instead of a daemon."""

import asyncio
import json

import msgspec
import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from tests.cli.dora import dora
from tests.cli.fakedaemon import UUID, dataflow, fake_coordinator, node
from tests.harness.commands import fails, succeeds

FLOW = """\
nodes:
  - id: a
    path: dynamic
    build: touch built
    deploy: {machine: arm1}
"""

MISSING = {"arm2": "it has not been seen for 40 s"}


@pytest.fixture
def fleet(tmp_path):
    with fake_coordinator(tmp_path) as running:
        running.answers["dataflow.list"] = m.DataflowList(dataflows=[dataflow()], missing=MISSING)
        running.answers["node.list"] = m.NodeList(
            nodes=[node("a", machine="arm1"), node("b", machine="arm2")], missing=MISSING
        )
        yield running


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "here"
    path.mkdir()
    (path / "flow.yml").write_text(FLOW)
    return path


def test_start_sends_deploy_and_builds_nothing_here(fleet, folder):
    fleet.answers["dataflow.start"] = m.Started(uuid=UUID)
    fleet.answers["dataflow.wait"] = m.DataflowState(uuid=UUID, name=None, status="running")
    result = fleet.dora("start", "flow.yml", "--detach", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert f"dataflow started: {UUID}" in result.stdout
    assert "build commands are not run" in result.stderr
    assert not (folder / "built").exists()
    (sent,) = fleet.asked("dataflow.start")
    assert sent.descriptor["nodes"][0]["deploy"] == {"machine": "arm1"}


@pytest.mark.parametrize("mode", ["--detach", "--attach"])
def test_start_shows_once_what_it_waits_for(fleet, folder, mode):
    why = "`arm1`: without a link to `arm2` (the router tls/10.0.0.9:7447 cannot be reached)"
    looks = []
    over = asyncio.Event()

    async def end():
        await over.wait()
        return m.DataflowState(uuid=UUID, name=None, status="finished")

    def wait(params):
        if params.until == "ended":
            return end()
        looks.append(params.timeout)
        if len(looks) < 3:
            return ControlError("deadline", "it is starting", problems=[why])
        over.set()
        return m.DataflowState(uuid=UUID, name=None, status="running")

    fleet.answers["dataflow.start"] = m.Started(uuid=UUID)
    fleet.answers["dataflow.wait"] = wait
    fleet.answers["logs.read"] = []
    result = fleet.dora("start", "flow.yml", mode, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count(f"note: the start waits for {why}\n") == 1


def test_start_shows_why_a_start_failed(fleet, folder):
    fleet.answers["dataflow.start"] = ControlError("deadline", "arm2 was not ready after 30 s")
    result = fleet.dora("start", "flow.yml", "--detach", cwd=folder)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (
        1,
        "error: arm2 was not ready after 30 s",
    )


def test_lists_warn_about_machines_that_did_not_answer(fleet):
    result = fleet.dora("list", "-q")
    assert (result.returncode, result.stdout) == (0, f"{UUID}\n")
    assert result.stderr == "warning: arm2 is left out: it has not been seen for 40 s\n"
    result = fleet.dora("node", "list")
    assert [line.split()[-2:] for line in result.stdout.splitlines()] == [
        ["MACHINE", "DATAFLOW"],
        ["arm1", "demo"],
        ["arm2", "demo"],
    ]
    assert "arm2 is left out" in result.stderr


def test_the_list_names_the_machines_of_a_dataflow(fleet):
    many = [f"arm{number}" for number in range(1, 9)]
    flows = [
        dataflow(machines=["arm1", "arm2"]),
        dataflow("wide", machines=many),
        dataflow("none", "finished"),
    ]
    fleet.answers["dataflow.list"] = m.DataflowList(dataflows=flows)
    head, *rows = fleet.dora("list").stdout.splitlines()
    assert head.endswith("Memory  Machines")
    assert [row.split("MB ")[1].strip() for row in rows] == [
        "arm1, arm2",
        "arm1, arm2, arm3, arm4, arm5 and 3 more",
        "-",
    ]
    rows = map(json.loads, fleet.dora("list", "--format", "json").stdout.splitlines())
    assert [row.get("machines") for row in rows] == [["arm1", "arm2"], many, None]


def test_nodes_and_top_of_one_machine(fleet):
    result = fleet.dora("node", "list", "--machine", "arm1", "--format", "json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["node"], row["machine"]) for row in rows] == [("a", "arm1")]
    nodes = [node("a", machine="arm1"), node("b", machine="arm2")]
    fleet.answers["top"] = m.Top(at=1.0, window=1.0, nodes=nodes, edges=[])
    result = fleet.dora("top", "--once", "--machine", "arm2")
    (found,) = json.loads(result.stdout)
    assert (found["node_id"], found["daemon_id"]["machine_id"]) == ("b", "arm2")


def test_a_pending_node_says_why(fleet):
    pending = node("c", "pending", pid=None, reason="no machine has the label gpu")
    fleet.answers["node.list"] = m.NodeList(nodes=[pending])
    assert "Pending: no machine has the label gpu" in fleet.dora("node", "list").stdout


def test_status_and_doctor_are_those_of_the_fleet(fleet):
    out = succeeds(fleet.dora("status"))
    first, place, process, *rest = out.splitlines()
    assert (first, place) == (
        "✓ coordinator 0.1.0: running",
        f"  address: 127.0.0.1 port {fleet.port}",
    )
    assert process.startswith("  pid 99, up ")
    assert rest == ["active dataflows: 1 (2 nodes)", "✗ arm2: it has not been seen for 40 s"]
    found = json.loads(fleet.dora("status", "--format", "json").stdout)
    assert found["coordinator"]["status"] == "running"
    assert found["missing"] == MISSING
    checks = json.loads(fleet.dora("doctor", "--json").stdout)["checks"]
    by_name = {check["name"]: check for check in checks}
    assert by_name["coordinator"]["level"] == "PASS"
    assert by_name["machine arm2"]["level"] == "WARN"


def test_a_running_dataflow_is_drawn_and_checked(fleet, folder):
    nodes = [{"id": "a", "path": "absent.py", "deploy": {"machine": "arm1"}}]
    fleet.answers["dataflow.info"] = m.DataflowDetail(
        info=dataflow(), descriptor={"nodes": nodes}, path="/robot/flow.yml", log_dir="/robot/out"
    )
    result = fleet.dora("graph", "-d", "demo", cwd=folder)
    assert (result.returncode, result.stdout) == (0, "wrote demo-graph.html\n"), result.stderr
    assert "absent.py" in (folder / "demo-graph.html").read_text()
    result = fleet.dora("graph", "-d", "arm1/demo", cwd=folder)
    assert result.stdout == "wrote arm1-demo-graph.html\n", result.stderr
    assert fleet.dora("graph", "-d", "demo", "--mermaid").stdout.startswith("flowchart TB")
    result = fleet.dora("validate", "-d", "demo", cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("demo: ok")
    for words in (
        ["graph"],
        ["graph", "flow.yml", "-d", "demo"],
        ["validate", "flow.yml", "-d", "y"],
    ):
        assert fleet.dora(*words, cwd=folder).returncode == 2


def test_up_and_down_concern_this_machine_only(fleet):
    for command, instead in (("up", "dorafleet up cluster.yml"), ("down", "dorafleet down")):
        result = fleet.dora(command)
        assert result.returncode == 1
        assert f"`dora {command}` does not go to the coordinator at 127.0.0.1" in result.stderr
        assert f"`{instead}`" in result.stderr
    assert fleet.asked("daemon.shutdown") == []


def test_logs_of_a_fleet_are_never_files_of_this_machine(fleet, tmp_path):
    run = tmp_path / "out" / UUID
    run.mkdir(parents=True)
    (run / "log_a.jsonl").write_text("")
    result = dora(
        "logs",
        cwd=tmp_path,
        env={"DORA_COORDINATOR_ADDR": "127.0.0.1", "DORA_COORDINATOR_PORT": "1"},
    )
    assert result.returncode == 1
    assert "no coordinator is running at 127.0.0.1 port 1" in result.stderr


def test_lines_of_one_machine_are_chosen_by_the_coordinator(fleet):
    line = m.LogRecord(timestamp=1.0, level="info", node=None, message="a starts", machine="arm1")
    of_node = msgspec.structs.replace(line, node="dora.link", message="link to arm2: up")
    fleet.answers["logs.read"] = [m.LogLines(dataflow=UUID, lines=[of_node, line])]
    result = fleet.dora("logs", "demo", "--machine", "arm1", "-n", "dora", "--tail", "3", "-f")
    assert result.returncode == 0, result.stderr
    first, last = result.stdout.splitlines()
    assert first.endswith("INFO   arm1/dora.link: link to arm2: up")
    assert last.endswith("INFO   [dora arm1]: a starts")
    (asked,) = fleet.asked("logs.read")
    assert (asked.machine, asked.nodes, asked.tail, asked.follow) == ("arm1", ["dora"], 3, True)
    result = fleet.dora("logs", "demo", "--machine", "arm1", "--log-format", "json")
    shown = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(each["daemon_id"], each["node_id"]) for each in shown] == [
        ("arm1", "dora.link"),
        ("arm1", None),
    ]


def test_a_log_line_that_cannot_be_shown_is_refused(fleet):
    """A robot may be hostile; the coordinator passes on what it says."""
    line = m.LogRecord(timestamp=1e300, level="loud", node="a", message="x")
    fleet.answers["logs.read"] = [m.LogLines(dataflow=UUID, lines=[line])]
    result = fleet.dora("logs", "demo")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")


def test_a_dataflow_that_the_fleet_does_not_know_is_not_looked_for_here(fleet, tmp_path):
    (tmp_path / "out" / UUID).mkdir(parents=True)
    (tmp_path / "out" / UUID / "log_a.jsonl").write_text("")
    fleet.answers["logs.read"] = ControlError("not-found", "there is no dataflow `demo`")
    result = fleet.dora("logs", UUID, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (1, "error: there is no dataflow `demo`\n")


def test_a_missing_token_is_named(fleet):
    fails(fleet.dora("list", env={"XDG_STATE_HOME": "/nowhere"}), 1, "token cannot be read")
