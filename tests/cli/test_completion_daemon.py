"""Completions that come from the running daemon."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from socket import AF_UNIX

import pytest

from dorad.control import messages as m
from tests.cli.dora import DORA
from tests.cli.fakedaemon import OTHER, dataflow, no_daemon, node

COMPLETE = """
import dorad.commandline.complete as complete
from dorad.cli.main import main
complete.DEADLINE_S = 30.0
main()
"""


def complete(env, *words, command=DORA):
    """Return the completions of the last of the words."""
    asked = {"_DORA_COMPLETE": "bash_complete", "_DORA_WORDS": "\n".join(words)}
    result = subprocess.run(
        command, env={**os.environ, **env, **asked}, capture_output=True, text=True, timeout=40
    )
    assert result.stderr == ""
    return result.stdout.split()


def offers(env, *words):
    """Return the completions without the time limit of 0.5 s, for a busy machine."""
    return complete(env, *words, command=[sys.executable, "-c", COMPLETE])


@pytest.fixture
def env(daemon):
    flows = [dataflow(), dataflow(None, uuid=OTHER), dataflow("old", "finished", uuid="3")]
    daemon.answers["dataflow.list"] = m.DataflowList(dataflows=flows)
    daemon.answers["node.list"] = m.NodeList(nodes=[node("arm"), node("camera")])
    image = m.TopicInfo(
        node="camera", output="image", subscribers=[m.Subscriber(node="arm", input="view")]
    )
    daemon.answers["topic.list"] = m.TopicList(dataflow="demo", topics=[image])
    daemon.answers["param.list"] = m.ParamList(params=[m.Param(key="speed", value=1)])
    return {"DORA_SOCKET": str(daemon.socket)}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["stop", ""], ["demo", OTHER]),
        (["node", "list", "-d", "de"], ["demo"]),
        (["node", "info", ""], ["arm", "camera"]),
        (["node", "restart", "c"], ["camera"]),
        (["topic", "echo", ""], ["camera/image"]),
        (["topic", "hz", "camera/image", "cam"], ["camera/image"]),
        (["node", "disconnect", "camera/image", ""], ["arm/view"]),
        (["param", "get", "arm", ""], ["speed"]),
    ],
)
def test_running_dataflows_are_completed(env, words, offered):
    assert offers(env, *words) == offered


def test_nodes_are_completed_from_the_selected_dataflow(daemon, env):
    assert offers(env, "node", "info", "-d", "demo", "") == ["arm", "camera"]
    assert daemon.asked("node.list") == [m.Ref(dataflow="demo")]
    assert offers(env, "logs", "old", "-n", "") == ["arm", "camera"]
    assert daemon.asked("node.list")[1:] == [m.Ref(dataflow="old")]


def test_machines_are_those_of_the_selected_dataflow(daemon, env):
    daemon.answers["dataflow.info"] = m.DataflowDetail(
        info=dataflow("old", "finished", uuid="3"),
        descriptor={},
        path="/d.yml",
        log_dir="",
        placement={"arm": "arm2", "camera": "arm1", "view": "arm1"},
    )
    assert offers(env, "logs", "3", "--machine", "") == ["arm1", "arm2"]
    daemon.answers["node.list"] = m.NodeList(nodes=[node("arm", machine="arm9"), node("camera")])
    assert offers(env, "logs", "--machine", "a") == ["arm9"]


def test_without_a_daemon_nothing_is_completed_or_printed(tmp_path):
    assert complete(no_daemon(tmp_path), "stop", "") == []


def test_a_hanging_daemon_does_not_block_the_shell():
    with tempfile.TemporaryDirectory(prefix="dora-test-") as folder, socket.socket(AF_UNIX) as hung:
        hung.bind(f"{folder}/hung.sock")
        hung.listen()

        def takes():
            begun = time.monotonic()
            assert complete({"DORA_SOCKET": f"{folder}/hung.sock"}, "stop", "") == []
            return time.monotonic() - begun

        # The deadline of a connection is 2.5 s; a busy machine may need as long for the rest.
        assert any(takes() < 2.4 for _ in range(8))
