"""The daemon and its everyday commands, as a user runs them."""

import json
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import yaml

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.procinfo import is_alive
from tests.harness.commands import fails
from tests.harness.daemon import Daemon
from tests.harness.flows import counting, seen, write_flow
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.long]


def test_start_list_stop_and_list_again(dorad: Daemon, tmp_path: Path) -> None:
    out = dorad.dora_ok("start", counting(tmp_path), "--name", "count", "--detach")
    uuid = out.split()[-1]
    wait_until(lambda: len(seen(tmp_path)) > 5)
    (row,) = map(json.loads, dorad.dora_ok("list", "-f", "json").splitlines())
    assert (row["uuid"], row["name"], row["status"], row["nodes"]) == (uuid, "count", "Running", 2)
    dorad.dora_ok("stop", "count")
    (row,) = map(json.loads, dorad.dora_ok("list", "-f", "json").splitlines())
    assert (row["status"], row["nodes"]) == ("Finished", 0)
    dorad.dora_ok("clean")
    assert dorad.dora_ok("list", "-f", "json") == ""


def test_a_failing_node_fails_its_dataflow_and_no_other(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", counting(tmp_path / "good"), "--name", "good", "--detach")
    bad = write_flow(
        tmp_path / "bad",
        [{"id": "bad", "path": "bad.py", "inputs": {"tick": "dora/timer/millis/20"}}],
        bad="""
            from dora import Node
            node = Node()
            node.next()
            raise ValueError("the gripper is gone")
        """,
    )
    fails(dorad.dora("start", bad, "--name", "bad", "--attach"), 1, "the gripper is gone")
    with dorad.client() as client:
        assert client.wait("good", until="running", timeout=30).status == "running"
        status = {flow.name: flow.status for flow in client.list()}
    assert status == {"good": "running", "bad": "failed"}


def test_a_name_that_is_taken_is_refused(dorad: Daemon, tmp_path: Path) -> None:
    file = counting(tmp_path)
    dorad.dora_ok("start", file, "--name", "one", "--detach")
    fails(dorad.dora("start", file, "--name", "one", "--detach"), 1, "'one' runs already")


def test_restart_runs_the_same_dataflow_under_a_new_uuid(dorad: Daemon, tmp_path: Path) -> None:
    dorad.dora_ok("start", counting(tmp_path), "--name", "flow", "--detach")
    wait_until(lambda: len(seen(tmp_path)) > 5)
    dorad.dora_ok("restart", "flow")
    with dorad.client() as client:
        old, new = client.list()
    assert (old.status, new.name, old.uuid != new.uuid) == ("finished", "flow", True)
    wait_until(lambda: seen(tmp_path).count(0) == 2)
    dorad.dora_ok("stop", "flow")
    assert "its UUID finds the one that has ended" in dorad.dora("restart", "flow").stderr
    dorad.dora_ok("restart", new.uuid)
    wait_until(lambda: seen(tmp_path).count(0) == 3)


def test_two_restarts_at_once_start_one_dataflow(dorad: Daemon, tmp_path: Path) -> None:
    stubborn = """
        import signal, time
        from dora import Node
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        node = Node()
        time.sleep(60)
    """
    node = {"id": "stubborn", "path": "stubborn.py", "inputs": {"tick": "dora/timer/secs/1"}}
    out = dorad.dora_ok("start", write_flow(tmp_path, [node], stubborn=stubborn), "--detach")
    uuid = out.split()[-1]
    first = dorad.begin("restart", uuid, "--grace-duration", "2s")
    with dorad.client() as client:
        wait_until(lambda: [flow.status for flow in client.list()] == ["stopping"])
        with pytest.raises(ControlError, match="is being restarted"):
            client.restart(uuid)
        assert first.wait(30) == 0
        old, new = client.list()
        assert old.uuid == uuid
        client.stop(new.uuid, force=True)  # it would hold up the daemon's end for 15 s


def test_down_refuses_while_something_runs_and_force_stops_it(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    own_daemon.dora_ok("start", counting(tmp_path), "--name", "flow", "--detach")
    refused = own_daemon.dora("down")
    assert (refused.returncode, "flow" in refused.stderr) == (1, True)
    own_daemon.dora_ok("down", "--force")
    assert not is_alive(own_daemon.pid)
    gone = own_daemon.dora("list")
    assert (gone.returncode, "dora up" in gone.stderr) == (1, True)


def test_up_starts_one_in_the_background_and_only_one(own_daemon: Daemon) -> None:
    own_daemon.end()
    first = own_daemon.dora_ok("up")
    second = own_daemon.dora_ok("up")
    assert ("started" in first, "already running" in second) == (True, True)
    own_daemon.dora_ok("down")


def test_up_starts_another_when_the_daemon_that_answers_is_just_ending(own_daemon: Daemon) -> None:
    """One that was killed a moment ago resets the connections that it had not accepted."""
    own_daemon.end()
    path = own_daemon.paths.control
    with socket.socket(socket.AF_UNIX) as ending, ThreadPoolExecutor() as thread:
        path.unlink(missing_ok=True)
        ending.bind(str(path))
        ending.listen()
        ending.settimeout(30)
        up = thread.submit(own_daemon.dora, "up")
        waiting, _ = ending.accept()
        waiting.close()
        ending.close()
        assert "started" in up.result().stdout
    own_daemon.dora_ok("down")


def test_sigterm_stops_the_nodes_too(own_daemon: Daemon, tmp_path: Path) -> None:
    own_daemon.dora_ok("start", counting(tmp_path), "--detach")
    wait_until(lambda: len(seen(tmp_path)) > 5)
    with own_daemon.client() as client:
        nodes = [node.pid for node in client.nodes() if node.pid]
    own_daemon.end()
    assert not any(map(is_alive, nodes))


def test_a_dataflow_knows_whether_it_ended_only_with_its_daemon(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    for name in ("stopped", "interrupted"):
        own_daemon.dora_ok("start", counting(tmp_path), "--name", name, "--detach")
    own_daemon.dora_ok("stop", "stopped")
    own_daemon.end()
    own_daemon.start()
    with own_daemon.client() as client:
        found = {each.name: each.interrupted for each in client.list()}
    assert found == {"stopped": False, "interrupted": True}


def test_two_daemons_in_one_place_are_refused(dorad: Daemon) -> None:
    done = subprocess.run(
        [dorad.bin / "dorad"], env=dorad.env, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert str(dorad.pid) in done.stderr
    assert dorad.dora("list").returncode == 0


def test_params_are_declared_set_refused_and_delivered(dorad: Daemon, tmp_path: Path) -> None:
    file = write_flow(
        tmp_path,
        [
            {
                "id": "arm",
                "path": "arm.py",
                "inputs": {"tick": "dora/timer/millis/20"},
                "params": {"gain": {"type": "float", "default": 1.5, "min": 0, "max": 10}},
            }
        ],
        arm="""
            from dora import Node
            node = Node()
            out = open("output", "a", buffering=1)
            out.write(f"start {node.param('gain')}\\n")
            for event in node:
                if event["type"] == "PARAM_UPDATE":
                    out.write(f"{event['id']} {event['value']} {node.param('gain')}\\n")
        """,
    )
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    output = tmp_path / "output"
    wait_until(lambda: output.exists() and "start 1.5" in output.read_text())
    refused = dorad.dora("param", "set", "arm", "gain", "11")
    assert (refused.returncode, "10" in refused.stderr) == (1, True)
    dorad.dora_ok("param", "set", "arm", "gain", "2.5")
    wait_until(lambda: "gain 2.5 2.5" in output.read_text())
    assert json.loads(dorad.dora_ok("param", "get", "arm", "gain")) == 2.5
    dorad.dora_ok("restart", "flow")
    wait_until(lambda: "start 2.5" in output.read_text())


def test_a_start_may_bring_parameters_which_a_run_that_is_known_overrides(
    dorad: Daemon, tmp_path: Path
) -> None:
    """A coordinator restarts a dataflow with those that were set before; see `dataflow.start`."""
    file = write_flow(
        tmp_path,
        [
            {
                "id": "arm",
                "path": "arm.py",
                "inputs": {"tick": "dora/timer/millis/100"},
                "params": {"gain": {"type": "float", "default": 1.5}},
            }
        ],
        arm="""
            from dora import Node
            node = Node()
            with open("output", "a") as file:
                file.write(f"{node.params()}\\n")
            for _ in node:
                pass
        """,
    )
    start = m.Start(
        descriptor=yaml.safe_load(file.read_text()),
        path=str(file),
        uuid="01a210b8-7107-7668-ad50-a69259bce001",
        params={"arm": {"gain": 2, "mode": ["x"]}, "absent": {"k": 1}},
    )
    output = tmp_path / "output"
    with dorad.client() as client:
        client.call(m.DATAFLOW_START, start)
        wait_until(lambda: output.exists() and "\n" in output.read_text())
        assert output.read_text() == "{'gain': 2.0, 'mode': ['x']}\n"
        client.set_param("arm", "gain", 3.0)
        client.delete_param("arm", "mode")
        client.stop()
        client.call(m.DATAFLOW_START, start)
        wait_until(lambda: output.read_text().count("\n") == 2)
        assert output.read_text().splitlines()[1] == "{'gain': 3.0}"
        client.stop()
        bad = msgspec.structs.replace(start, uuid=None, params={"arm": {"": 1}})
        with pytest.raises(ControlError, match="cannot be empty"):
            client.call(m.DATAFLOW_START, bad)
