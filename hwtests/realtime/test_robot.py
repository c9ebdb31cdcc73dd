"""Real time on a robot, seen from outside: chrt, /proc and the network."""

import json
from typing import Any

import pytest
import yaml

from hwtests.robots import Robot
from hwtests.robots.shell import wait_until

pytestmark = pytest.mark.timeout(300)

NODE = """\
from dora import Node
for event in Node():
    pass
"""


@pytest.fixture
def served(robot: Robot) -> Robot:
    """A robot whose daemon runs."""
    robot.exec("systemctl", "enable", "--now", "dorad.service")
    return robot


def start(robot: Robot, **realtime: Any) -> int:
    """Start a node as an unprivileged user, and return its pid."""
    node = {
        "id": "arm",
        "path": "arm.py",
        "user": "dorad-node",
        "inputs": {"tick": "dora/timer/millis/20"},
        "realtime": realtime,
    }
    robot.write("/opt/flow/arm.py", NODE)
    robot.write("/opt/flow/flow.yml", yaml.safe_dump({"nodes": [node]}))
    robot.exec("dora", "start", "/opt/flow/flow.yml", "--name", "robot", "--detach")
    wait_until(lambda: _pid(robot) is not None, "the node's process")
    pid = _pid(robot)
    assert pid is not None
    return pid


def _pid(robot: Robot) -> int | None:
    (node,) = json.loads(robot.exec("dora", "top", "--once")) or [None]
    return None if node is None or not node["metrics"] else node["metrics"]["pid"]


def locked_kb(robot: Robot, pid: int) -> int:
    return int(robot.exec("grep", "VmLck", f"/proc/{pid}/status").split()[1])


def test_a_node_of_an_unprivileged_user_has_real_time_priority(served: Robot) -> None:
    pid = start(served, policy="fifo", priority=42, lock_memory=True)
    output = served.exec("chrt", "-p", str(pid))
    assert "SCHED_FIFO|SCHED_RESET_ON_FORK" in output
    assert "42" in output.splitlines()[1]
    wait_until(lambda: locked_kb(served, pid) > 4096, "locked memory")
    assert "Notes:" not in served.exec("dora", "node", "info", "arm")


def test_a_node_of_an_unprivileged_user_has_a_deadline(served: Robot) -> None:
    pid = start(served, policy="deadline")
    assert "SCHED_DEADLINE" in served.exec("chrt", "-p", str(pid))
    status = served.exec("cat", f"/proc/{pid}/status")
    assert "CapEff:\t0000000000000000" in status


def test_the_daemon_has_real_time_priority_within_its_sandbox(served: Robot) -> None:
    served.write("/etc/dorad/dorad.toml", "[realtime]\nenabled = true\n")
    served.exec("systemctl", "restart", "dorad.service")
    pid = served.exec("systemctl", "show", "-P", "MainPID", "dorad.service").strip()
    assert "SCHED_FIFO|SCHED_RESET_ON_FORK" in served.exec("chrt", "-p", pid)
    assert locked_kb(served, int(pid)) > 4096
    assert "note:" not in served.exec("dora", "status")
    assert "real-time priority: " in served.attempt("dora", "doctor", "--rt").stdout


def test_a_lost_link_is_reported_at_once(served: Robot) -> None:
    def network() -> str:
        return served.exec("dora", "status").partition("network:")[2]

    wait_until(lambda: "eth0" in network(), "the network")
    served.exec("ip", "addr", "add", "203.0.113.9/24", "dev", "eth0")
    wait_until(lambda: "203.0.113.9/24" in network(), "the new address")
    served.exec("ip", "link", "set", "eth0", "down")
    wait_until(lambda: "eth0 (down)" in network(), "the lost link")
