"""Processes that nodes leave in their own sessions, and the end of the holder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.procinfo import is_alive
from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import counting, seen, write_flow
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

LEAVING = """
    import pathlib, subprocess
    from dora import Node

    node = Node()
    child = subprocess.Popen(["setsid", "sleep", "600"])
    pathlib.Path("stray.tmp").write_text(str(child.pid))
    pathlib.Path("stray.tmp").rename("stray")
    for event in node:
        if event["type"] == "STOP":
            break
"""


@pytest.fixture
def dorad() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


def start_leaving(dorad: Daemon, folder: Path) -> int:
    """Start a dataflow named after its folder; return the pid of the process its node leaves."""
    node = {"id": "leaving", "path": "leaving.py", "inputs": {"tick": "dora/timer/millis/100"}}
    file = write_flow(folder, [node], leaving=LEAVING)
    dorad.dora_ok("start", file, "--name", folder.name, "--detach")
    wait_until((folder / "stray").exists)
    return int((folder / "stray").read_text())


def test_strays_end_with_their_dataflow_and_not_with_another(dorad: Daemon, tmp_path: Path) -> None:
    one = start_leaving(dorad, tmp_path / "one")
    other = start_leaving(dorad, tmp_path / "other")
    dorad.dora_ok("stop", "one")
    wait_until(lambda: not is_alive(one))
    assert is_alive(other)
    dorad.dora_ok("stop", "other")
    wait_until(lambda: not is_alive(other))


def test_strays_keep_running_under_the_next_daemon(dorad: Daemon, tmp_path: Path) -> None:
    stray = start_leaving(dorad, tmp_path / "flow")
    dorad.kill()
    dorad.start()
    assert is_alive(stray)
    dorad.dora_ok("stop", "flow")
    wait_until(lambda: not is_alive(stray))


def test_when_the_holder_is_killed_the_daemon_ends_and_nothing_is_left(
    dorad: Daemon, tmp_path: Path
) -> None:
    stray = start_leaving(dorad, tmp_path / "flow")
    dorad.dora_ok("start", counting(tmp_path / "counting"), "--name", "counting", "--detach")
    wait_until(lambda: len(seen(tmp_path / "counting")) > 5)
    (holder,) = (p for p in dorad.processes() if "serve_daemons" in " ".join(p.cmdline()))
    holder.kill()
    assert dorad.process is not None
    assert dorad.process.wait(30) == 1
    assert "the process holder was killed" in dorad.log
    assert not is_alive(stray)
    wait_until(lambda: not dorad.processes())
    dorad.start()
    with dorad.client() as client:
        assert [flow.status for flow in client.list()] == ["failed", "failed"]
