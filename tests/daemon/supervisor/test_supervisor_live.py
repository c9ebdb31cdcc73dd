"""The supervisor under a daemon: watched nodes, commands, and a daemon killed in between."""

import ast
import time
from pathlib import Path
from typing import Any

import pytest

from dorad.control.messages import NodeInfo
from tests.harness.daemon import Daemon
from tests.harness.flows import write_flow
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

SINK = """
    import time
    from dora import Node
    with open("events", "a", buffering=1) as out:
        for event in Node():
            print((event["type"], event["id"], event.get("reason"), time.monotonic()), file=out)
"""
NUMBERS = """
    import time
    from pathlib import Path
    import pyarrow as pa
    from dora import Node
    node = Node()
    while node.next(timeout=0.02)["type"] != "STOP":
        if Path("silent").exists():
            Path("quiet").touch()
        else:
            node.send_output("out", pa.array([1]))
        if Path("hang").exists():
            Path("hang").unlink()
            Path("hung").write_text(str(time.monotonic()))
            while True:
                pass
"""


def start(dorad: Daemon, folder: Path, *, timeout: float = 60.0, **keys: Any) -> None:
    """Run a source with these keys, and a sink whose input breaks after `timeout` seconds."""
    x = {"source": "source/out", "input_timeout": timeout}
    file = write_flow(
        folder,
        [
            {"id": "source", "path": "source.py", "outputs": ["out"], **keys},
            {"id": "sink", "path": "sink.py", "inputs": {"x": x}},
        ],
        source=NUMBERS,
        sink=SINK,
    )
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    wait_until(lambda: "INPUT" in kinds(folder))


def events_of(folder: Path) -> list[tuple[str, str, str | None, float]]:
    """Return the events of the sink: type, id, reason, time."""
    path = folder / "events"
    whole, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
    return [ast.literal_eval(line) for line in whole.splitlines()]


def kinds(folder: Path) -> list[str]:
    """Return the types of the sink's events; messages in a row count as one."""
    found = [each[0] for each in events_of(folder)]
    return [kind for index, kind in enumerate(found) if index == 0 or kind != found[index - 1]]


def info(dorad: Daemon, name: str) -> NodeInfo:
    with dorad.client() as client:
        return next(node for node in client.nodes() if node.node == name)


def wait_for(dorad: Daemon, name: str, status: str) -> None:
    wait_until(lambda: info(dorad, name).status == status, why=f"{name} is not {status}")


def silence(dorad: Daemon, folder: Path) -> None:
    """Let the source send no more, and wait until that breaks the sink's input.

    On a busy machine the source may pause for longer than the timeout, and then send once more.
    """
    (folder / "silent").touch()
    wait_until((folder / "quiet").exists)
    wait_until(
        lambda: kinds(folder)[-1] == "INPUT_CLOSED" and info(dorad, "sink").status == "degraded"
    )


def test_a_hanging_node_is_restarted(dorad: Daemon, tmp_path: Path) -> None:
    start(dorad, tmp_path, restart_policy="on-failure", health_check_timeout=1.0)
    (tmp_path / "hang").touch()
    wait_until(lambda: "NODE_RESTARTED" in kinds(tmp_path))
    (restarted_at,) = (each[3] for each in events_of(tmp_path) if each[0] == "NODE_RESTARTED")
    assert 0.7 <= restarted_at - float((tmp_path / "hung").read_text()) <= 10
    wait_for(dorad, "source", "running")
    found = info(dorad, "source")
    assert found.restarts == 1
    assert found.last_exit == "was killed because it had not called dora for 1 s"


def test_a_silent_input_degrades_its_node_until_messages_come_again(
    dorad: Daemon, tmp_path: Path
) -> None:
    start(dorad, tmp_path, timeout=0.5)
    silence(dorad, tmp_path)
    assert info(dorad, "sink").broken_inputs == ["x"]
    (tmp_path / "silent").unlink()
    wait_for(dorad, "sink", "running")
    wait_until(lambda: "INPUT_RECOVERED" in kinds(tmp_path))
    closed = {each[2] for each in events_of(tmp_path) if each[0] == "INPUT_CLOSED"}
    assert closed == {"timeout"}


def test_a_broken_input_recovers_under_the_next_daemon(own_daemon: Daemon, tmp_path: Path) -> None:
    start(own_daemon, tmp_path, timeout=0.5)
    silence(own_daemon, tmp_path)
    own_daemon.kill()
    own_daemon.start()
    assert info(own_daemon, "sink").status == "degraded"
    (tmp_path / "silent").unlink()
    wait_for(own_daemon, "sink", "running")
    wait_until(lambda: "INPUT_RECOVERED" in kinds(tmp_path))


def test_a_node_that_hangs_without_a_daemon_is_restarted_by_the_next_one(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    start(own_daemon, tmp_path, restart_policy="on-failure", health_check_timeout=1.0)
    own_daemon.kill()
    (tmp_path / "hang").touch()
    wait_until((tmp_path / "hung").exists)
    own_daemon.start()
    wait_until(lambda: "NODE_RESTARTED" in kinds(tmp_path))
    wait_for(own_daemon, "source", "running")


@pytest.mark.long
def test_a_restart_delay_continues_under_the_next_daemon(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    start(
        own_daemon,
        tmp_path,
        restart_policy="on-failure",
        restart_delay=3.0,
        max_restart_delay=3.0,
        health_check_timeout=1.0,
    )
    (tmp_path / "hang").touch()
    wait_for(own_daemon, "source", "restarting")
    begun = time.monotonic()
    own_daemon.kill()
    own_daemon.start()
    waits = info(own_daemon, "source").status == "restarting"
    assert waits or time.monotonic() - begun > 3.0
    wait_for(own_daemon, "source", "running")
    assert time.monotonic() - begun >= 1.5
    assert info(own_daemon, "source").restarts == 1


def test_a_manual_restart_ends_no_consumer(dorad: Daemon, tmp_path: Path) -> None:
    start(dorad, tmp_path)
    pid = info(dorad, "source").pid
    dorad.dora_ok("node", "restart", "source")
    wait_for(dorad, "source", "running")
    assert info(dorad, "source").pid != pid
    wait_until(lambda: kinds(tmp_path)[-2:] == ["NODE_RESTARTED", "INPUT"])
    assert "STOP" not in kinds(tmp_path)
    assert info(dorad, "sink").status == "running"


def test_a_stopped_node_stays_stopped_and_its_consumer_is_notified(
    dorad: Daemon, tmp_path: Path
) -> None:
    start(dorad, tmp_path, restart_policy="always")
    dorad.dora_ok("node", "stop", "source")
    wait_until(lambda: kinds(tmp_path)[-2:] == ["INPUT_CLOSED", "STOP"])
    with dorad.client() as client:
        wait_until(lambda: [flow.status for flow in client.list()] == ["finished"])


def test_a_replacement_that_does_not_start_changes_nothing(dorad: Daemon, tmp_path: Path) -> None:
    start(dorad, tmp_path)
    pid = info(dorad, "source").pid
    (tmp_path / "bad.py").write_text("raise SystemExit(5)")
    new = tmp_path / "new.yml"
    new.write_text("{id: source, path: bad.py, outputs: [out]}")
    done = dorad.dora("node", "replace", "source", "--from-yaml", new)
    assert done.returncode == 1
    assert (
        "exited with code 5 before it called Node(); node source keeps its old process"
        in done.stderr
    )
    assert (info(dorad, "source").pid, info(dorad, "source").status) == (pid, "running")
    mark = len(events_of(tmp_path))
    wait_until(lambda: len(events_of(tmp_path)) > mark + 10)
    assert set(kinds(tmp_path)) == {"INPUT"}
