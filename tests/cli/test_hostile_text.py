"""Text of nodes, robots and files is shown on a terminal, and never controls it."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from dorad.control import messages as m
from dorad.control.arrays import to_ipc
from dorad.control.errors import ControlError
from tests.cli.dora import dora
from tests.cli.fakedaemon import UUID, daemon_status, dataflow, node
from tests.cli.running import dora as dora_run
from tests.cli.running import write
from tests.harness.commands import succeeds

HOSTILE = "\x1b]0;title\x07\x1b[2J \x9b2J \u202eback\x7f"
SHOWN = r"\x1b]0;title\x07\x1b[2J \x9b2J \u202eback\x7f"

PRINTER = f"""
    import sys
    from dora import Node
    node = Node()
    print({HOSTILE!r}, flush=True)
    node.log("error", {HOSTILE!r} + "\\n12:00:00 ERROR  other: forged", target={HOSTILE!r})
    sys.exit({HOSTILE!r})
"""


def harmless(text: str) -> bool:
    return all(line.replace("\t", "").isprintable() for line in text.split("\n"))


def test_the_live_log_and_the_report_of_a_run(tmp_path: Path) -> None:
    write(tmp_path, "nodes: [{id: cam, path: cam.py}]", cam=PRINTER)
    with dora_run(tmp_path, "dataflow.yml") as running:
        running.end(1)
    assert harmless(running.out) and harmless(running.err)
    assert f"stdout cam: {SHOWN}\n" in running.out
    assert "\n    12:00:00 ERROR  other: forged\n" in running.out
    assert SHOWN in running.err  # the last lines of a failed node

    result = dora("logs", "--local", cwd=tmp_path)
    assert harmless(result.stdout)
    assert SHOWN in result.stdout
    result = dora("logs", "--local", "--log-format", "json", cwd=tmp_path)
    assert harmless(result.stdout)
    assert HOSTILE in [json.loads(line)["message"] for line in result.stdout.splitlines()]


def texts(value: object) -> list[object]:
    """Return all texts within a JSON value."""
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    if not isinstance(inner, list):
        return [value]
    return [each for item in inner for each in texts(item)]


@pytest.fixture
def hostile(daemon):
    daemon.answers["dataflow.list"] = m.DataflowList(dataflows=[dataflow(name=HOSTILE)])
    info = node("arm", last_exit=HOSTILE, broken_inputs=["tick"])
    daemon.answers["node.list"] = m.NodeList(nodes=[node(HOSTILE)])
    daemon.answers["node.info"] = m.NodeDetail(
        info=info,
        path=HOSTILE,
        args=HOSTILE,
        restart_policy="never",
        max_restarts=3,
        restart_delay=None,
        max_restart_delay=None,
        restart_window=None,
        health_check_timeout=None,
        startup_timeout=None,
        inputs={"tick": HOSTILE},
        outputs={HOSTILE: []},
        notes=[HOSTILE],
    )
    header = m.TopicHeader(
        stream=0, topic="a/b", sequence=1, dropped=0, metadata={HOSTILE: HOSTILE}
    )
    daemon.answers["topic.subscribe"] = lambda _: [(header, bytes(to_ipc(pa.array([HOSTILE]))))]
    line = m.LogRecord(timestamp=1.0, level="stdout", node="cam", message=HOSTILE, stream="stdout")
    daemon.answers["logs.read"] = lambda _: [m.LogLines(dataflow=UUID, lines=[line])]
    daemon.answers["param.list"] = m.ParamList(
        params=[m.Param(key="a", value=HOSTILE, description=HOSTILE)]
    )
    daemon.answers["dataflow.stop"] = m.DataflowState(
        uuid=UUID,
        name="demo",
        status="failed",
        failures=[m.Failure(headline=HOSTILE, lines=[HOSTILE])],
    )
    daemon.answers["dataflow.restart"] = m.Restarted(old=HOSTILE, new=HOSTILE)
    daemon.answers["dataflow.wait"] = m.DataflowState(uuid=UUID, name="demo", status="running")
    daemon.answers["dataflow.enable"] = dataflow(name=HOSTILE)
    daemon.answers["lease.take"] = m.Lease(id=HOSTILE, reason="r", owner="o", since=1.0)
    daemon.answers["daemon.status"] = daemon_status(version=HOSTILE, problem=HOSTILE)
    incident = m.Incident(
        id=HOSTILE, time=1e308, before=1e308, after=0.0, segments=-1, bytes=-1, source="", note=""
    )
    box = m.BlackBox(dataflow=UUID, name=None, folder="/", incidents=[incident])
    daemon.answers["incident.list"] = m.IncidentList(boxes=[box])
    return daemon


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["status"],
        ["restart", "demo"],
        ["enable", "demo"],
        ["busy", "--ttl", "5s", "x"],
        ["record", "incidents", "-d", "demo"],
        ["node", "list"],
        ["node", "list", "--quiet"],
        ["node", "info", "arm"],
        ["topic", "echo", "a/b", "-d", "demo"],
        ["logs", "demo"],
        ["param", "list", "arm", "-d", "demo"],
        ["stop", "demo"],
    ],
)
def test_text_from_a_daemon(hostile, command: list[str]) -> None:
    result = hostile.dora(*command)
    assert harmless(result.stdout) and harmless(result.stderr)
    escaped = json.dumps(HOSTILE)[1:-1].replace("\x9b", "\\u009b").replace("\x7f", "\\u007f")
    shown = result.stdout + result.stderr
    assert SHOWN in shown or escaped in shown


@pytest.mark.parametrize(
    "command",
    [
        ["list", "--format", "json"],
        ["node", "info", "arm", "--format", "json"],
        ["topic", "echo", "a/b", "-d", "demo", "--format", "json"],
        ["logs", "demo", "--log-format", "json"],
    ],
)
def test_json_has_the_text_unchanged(hostile, command: list[str]) -> None:
    result = hostile.dora(*command)
    assert harmless(result.stdout)
    assert HOSTILE in texts(json.loads(result.stdout))


def test_errors_of_the_daemon(daemon) -> None:
    def refuse(_):
        raise ControlError("refused", HOSTILE, HOSTILE)

    daemon.answers["dataflow.stop"] = refuse
    result = daemon.dora("stop", "demo")
    assert harmless(result.stderr)
    assert SHOWN in result.stderr


def test_problems_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text('nodes: [{id: "a\\e[2J", path: "\\x9b"}]\n')
    result = dora("validate", "a.yml", cwd=tmp_path)
    assert result.returncode == 1
    assert harmless(result.stderr)
    assert r"a\x1b[2J" in result.stderr


def test_lines_of_a_build(tmp_path: Path) -> None:
    build = "printf '\\033[2J\\n'"
    (tmp_path / "a.yml").write_text(f"nodes:\n  - id: a\n    path: dynamic\n    build: {build}\n")
    out = succeeds(dora("build", "a.yml", cwd=tmp_path))
    assert harmless(out)
    assert r"a: \x1b[2J" in out
