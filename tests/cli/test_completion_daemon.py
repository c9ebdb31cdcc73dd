"""Completions that come from the running daemon."""

import socket
import tempfile
import time
from socket import AF_UNIX

import pytest

from dorad.control import messages as m
from tests.cli.dora import dora
from tests.cli.fakedaemon import OTHER, dataflow, no_daemon, node


def complete(env, *words):
    """Return what is offered for the last of the words."""
    asked = {"_DORA_COMPLETE": "bash_complete", "_DORA_WORDS": "\n".join(words)}
    result = dora(env={**env, **asked})
    assert result.stderr == ""
    return result.stdout.split()


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
def test_what_runs_is_offered(env, words, offered):
    assert complete(env, *words) == offered


def test_the_dataflow_that_was_chosen_is_asked_for(daemon, env):
    assert complete(env, "node", "info", "-d", "demo", "") == ["arm", "camera"]
    assert daemon.asked("node.list") == [m.Ref(dataflow="demo")]


def test_without_a_daemon_nothing_is_offered_or_said(tmp_path):
    assert complete(no_daemon(tmp_path), "stop", "") == []


def test_a_daemon_that_hangs_does_not_hold_up_the_shell():
    with tempfile.TemporaryDirectory(prefix="dora-test-") as folder, socket.socket(AF_UNIX) as hung:
        hung.bind(f"{folder}/hung.sock")
        hung.listen()
        begun = time.monotonic()
        assert complete({"DORA_SOCKET": f"{folder}/hung.sock"}, "stop", "") == []
        assert time.monotonic() - begun < 2.4  # the deadline of a connection is 2.5 s
