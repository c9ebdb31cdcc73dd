"""`dora node`."""

import json

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from tests.cli.fakedaemon import UUID, node
from tests.harness.commands import fails

DETAIL = m.NodeDetail(
    info=node(
        "arm",
        broken_inputs=["tick"],
        last_exit="exited with code 3",
        pending=2,
        restarts=1,
        protocol=5,
    ),
    path="arm.py",
    args="--fast",
    restart_policy="on-failure",
    max_restarts=3,
    restart_delay=0.5,
    max_restart_delay=None,
    restart_window=60.0,
    health_check_timeout=None,
    startup_timeout=None,
    inputs={"tick": "dora/timer/millis/50"},
    outputs={"pose": [m.Subscriber(node="viewer", input="arm")], "spare": []},
)

CAMERA = """\
id: camera
path: camera.py
env:
  SPEED: ${SPEED:-3}
inputs:
  tick: dora/timer/millis/50
outputs: [image]
"""


@pytest.fixture
def nodes(daemon):
    daemon.answers["node.list"] = m.NodeList(
        nodes=[node("arm"), node("camera", "restarting", pid=None, restarts=3)]
    )
    return daemon


@pytest.fixture
def changing(daemon):
    for name in ("add", "remove", "replace", "connect", "disconnect"):
        daemon.answers[f"node.{name}"] = m.Changed(uuid=UUID, changes=["something"])
    return daemon


def test_the_list_has_doras_columns(nodes):
    assert nodes.dora("node", "list").stdout.splitlines() == [
        "NODE    STATUS      PID   CPU   MEMORY  RESTARTS  DATAFLOW",
        "arm     Running     4711  2.5%  95 MB   0         demo",
        "camera  Restarting  -     2.5%  95 MB   3         demo",
    ]
    assert nodes.asked("node.list") == [m.Ref(dataflow=None)]


def test_with_a_dataflow_its_column_is_left_out(nodes):
    first, _ = nodes.dora("node", "list", "-d", "demo", "-f", "json").stdout.splitlines()
    assert json.loads(first) == {
        "node": "arm",
        "status": "Running",
        "pid": "4711",
        "cpu": "2.5%",
        "memory": "95 MB",
        "restarts": "0",
    }
    assert nodes.asked("node.list") == [m.Ref(dataflow="demo")]


def test_quiet_prints_names_only(nodes):
    assert nodes.dora("node", "list", "-q").stdout == "arm\ncamera\n"


def test_info_shows_wiring_policy_and_figures(daemon):
    daemon.answers["node.info"] = DETAIL
    shown = daemon.dora("node", "info", "arm").stdout
    for line in (
        "Node: arm",
        "Path: arm.py --fast",
        "  policy:          OnFailure",
        "  max restarts:    3",
        "  tick <- dora/timer/millis/50  (broken: its source is silent)",
        "  pose -> viewer/arm",
        "  spare (no subscribers)",
        "  pending:         2 messages",
        "  node API:        version 5",
        "  last exit:       exited with code 3",
    ):
        assert line in shown.splitlines()


def test_info_as_json_has_doras_keys(daemon):
    daemon.answers["node.info"] = DETAIL
    found = json.loads(daemon.dora("node", "info", "arm", "--format", "json").stdout)
    assert found["outputs"][0] == {"id": "pose", "subscribers": ["viewer/arm"]}
    assert found["inputs"] == [{"id": "tick", "source": "dora/timer/millis/50"}]
    assert (found["restart_policy"], found["max_restarts"]) == ("OnFailure", 3)
    assert found["metrics"]["restart_count"] == 1
    assert found["protocol"] == 5


@pytest.mark.parametrize(
    ("words", "asked", "reported"),
    [
        (
            ["remove", "arm", "--grace", "500ms"],
            m.NodeStop(node="arm", dataflow=UUID, grace=0.5),
            "removed node `arm`",
        ),
        (
            ["connect", "a/x", "b/y", "-d", "demo"],
            m.EdgeNew(source="a/x", target="b/y", dataflow="demo"),
            "a/x -> b/y",
        ),
        (
            ["disconnect", "a/x", "b/y"],
            m.EdgeRef(source="a/x", target="b/y", dataflow=UUID),
            "a/x -x- b/y",
        ),
    ],
)
def test_a_change_is_shown_with_the_difference_to_the_file(changing, words, asked, reported):
    result = changing.dora("node", *words)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{reported}\n"
    assert result.stderr == "note: differs from its file: something\n"
    assert changing.asked(f"node.{words[0]}") == [asked]


@pytest.mark.parametrize(
    ("words", "reported"), [(["restart", "arm"], "restarted"), (["stop", "arm"], "stopped")]
)
def test_restart_and_stop(daemon, words, reported):
    result = daemon.dora("node", *words, "--grace", "2s")
    assert result.stdout == f"{reported} node `arm`\n"
    (asked,) = daemon.asked(f"node.{words[0]}")
    assert asked == m.NodeStop(node="arm", dataflow=UUID, grace=2.0)


def test_add_and_replace_send_one_node_with_its_env_expanded(changing, tmp_path):
    (tmp_path / "camera.yml").write_text(CAMERA)
    words = ("--from-yaml", "camera.yml", "-d", "demo")
    result = changing.dora("node", "add", *words, cwd=tmp_path)
    assert result.stdout == "added node `camera`\n"
    (added,) = changing.asked("node.add")
    assert added.definition["env"] == {"SPEED": "3"}
    assert added.dataflow == "demo"
    assert changing.dora("node", "replace", "camera", *words, cwd=tmp_path).returncode == 0
    (replaced,) = changing.asked("node.replace")
    assert (replaced.node, replaced.definition) == ("camera", added.definition)


def test_an_error_in_the_file_of_a_node_is_reported_with_line_and_column(changing, tmp_path):
    (tmp_path / "camera.yml").write_text("id: camera\npath: camera.py\ninptus: {}\n")
    result = changing.dora("node", "add", "--from-yaml", "camera.yml", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: camera.yml:3:1: ")
    assert changing.asked("node.add") == []


def test_a_refusal_of_the_daemon_is_one_line(daemon):
    daemon.answers["node.restart"] = ControlError("not-found", "no node 'am'", "there is arm")
    result = daemon.dora("node", "restart", "am")
    assert result.returncode == 1
    assert result.stderr == "error: no node 'am' (there is arm)\n"


def test_an_unknown_subcommand_gets_the_nearest_suggested(daemon):
    fails(daemon.dora("node", "ad"), 2, "did you mean 'add'?", "`dora node --help`")


def test_without_a_subcommand_the_help_is_a_usage_error(daemon):
    result = daemon.dora("node")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: dora node")
