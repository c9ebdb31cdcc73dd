"""Cluster files of dora 1.x, unchanged, with `dora cluster` from an empty machine to `down`."""

import json
import subprocess
from pathlib import Path

from hwtests.fleet.conftest import Fleet
from hwtests.fleet.enrolled import push_nodes
from hwtests.robots import Robot
from hwtests.robots.shell import wait_until

FILE = "/root/site/cluster.yml"
SITE = """\
coordinator:
  addr: 198.18.0.13
  port: 6013

machines:
  - id: arm1
    host: 198.18.0.11
    user: root
    port: 22
    daemon_port: 53291
    labels:
      arch: x86_64
      gpu: "true"
  - id: arm2
    host: robot2
    user: pilot
    zenoh_addr: 198.18.0.12
    zenoh_port: 7447
    labels:
      arch: x86_64
"""
"""All keys that dora 1.x has, but `zenoh_peer`, which excludes the other two of Zenoh."""
FLOW = """\
nodes:
  - id: count
    path: /opt/flow/count.py
    inputs:
      tick: dora/timer/millis/50
    outputs:
      - number
    deploy:
      labels:
        gpu: "true"
  - id: check
    path: /opt/flow/check.py
    inputs:
      number: count/number
    deploy:
      machine: arm2
"""


def dora(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `dora` as the operator, and show what it prints."""
    done = fleet.operator.attempt("dora", *words, timeout=300)
    print(f"$ dora {' '.join(words)}\n{done.stdout}{done.stderr}")
    return done


def pids(robot: Robot) -> dict[str, int]:
    """Return the processes of the nodes on a robot."""
    listed = robot.attempt("dora", "node", "list", "--format", "json").stdout
    return {each["node"]: each["pid"] for each in map(json.loads, listed.splitlines())}


def received(fleet: Fleet) -> int:
    """Return how many lines the last node of the dataflow has printed."""
    lines = fleet.arm2.attempt("dora", "logs", "demo", "--node", "check", "--tail", "1000").stdout
    return lines.count("received")


def test_a_site_of_dora_is_installed_started_upgraded_and_ended_by_its_own_commands(
    fleet: Fleet, newer_deb: Path
) -> None:
    operator, arm1, arm2 = fleet.operator, fleet.arm1, fleet.arm2
    operator.exec("apt-get", "-qq", "install", "-y", "/root/dorad.deb", timeout=300)
    operator.exec("apt-get", "-qq", "install", "-y", "/root/dorafleet.deb", timeout=120)
    operator.write(FILE, SITE)
    operator.write("/root/site/dataflow.yml", FLOW)
    operator.sh("ssh-keyscan 198.18.0.11 robot2 >>/root/.ssh/known_hosts 2>/dev/null")
    there = ("--coordinator-addr", "127.0.0.1")

    # Not installed yet: each machine says so, and the command that helps.
    early = dora(fleet, "cluster", "up", FILE)
    assert early.returncode == 1
    assert "dorafleet install" in early.stdout + early.stderr
    assert dora(fleet, "cluster", "install", FILE, "/root/dorad.deb").returncode == 0
    for robot in (arm1, arm2):
        push_nodes(robot)

    assert dora(fleet, "cluster", "up", FILE).returncode == 0
    again = dora(fleet, "cluster", "up", FILE)
    assert again.returncode == 0
    assert again.stdout.count("nothing to do") == 2
    status = dora(fleet, "cluster", "status")
    assert status.returncode == 0
    assert status.stdout.count("connected") == 2

    started = dora(fleet, "start", "/root/site/dataflow.yml", "--name", "demo", "--detach", *there)
    assert started.returncode == 0
    wait_until(lambda: received(fleet) > 1, "data flows")
    before = pids(arm1)["count"]
    restarted = dora(fleet, "cluster", "restart", FILE, "demo")
    assert restarted.returncode == 0
    assert "->" in restarted.stdout
    after = pids(arm1)["count"]
    assert after != before

    # Agents are services of their machines, also after a boot.
    assert dora(fleet, "cluster", "install", FILE).returncode == 0
    assert arm2.exec("systemctl", "is-enabled", "dorad-agent").strip() == "enabled"
    arm2.reboot()
    wait_until(lambda: "check" in pids(arm2), "arm2 runs its share", timeout=60)

    operator.push(newer_deb, "/root/newer.deb")
    nodes = pids(arm1), pids(arm2)
    assert dora(fleet, "cluster", "upgrade", FILE, "/root/newer.deb").returncode == 0
    assert "99.0.0" in arm1.exec("dpkg-query", "-W", "dorad")
    assert (pids(arm1), pids(arm2)) == nodes
    seen = received(fleet)
    wait_until(lambda: received(fleet) > seen, "data flows through the upgrade")
    missing = dora(fleet, "cluster", "upgrade", FILE)
    assert missing.returncode == 2
    assert "PACKAGE" in missing.stderr

    assert dora(fleet, "stop", "demo", *there).returncode == 0
    assert dora(fleet, "cluster", "uninstall", FILE).returncode == 0
    for robot in (arm1, arm2):
        assert robot.attempt("systemctl", "is-active", "dorad-agent").stdout.strip() == "inactive"
        assert robot.attempt("systemctl", "is-enabled", "dorad-agent").stdout.strip() == "disabled"
    assert dora(fleet, "cluster", "up", FILE).returncode == 0
    assert dora(fleet, "cluster", "status").returncode == 0

    assert dora(fleet, "cluster", "down").returncode == 0
    wait_until(
        lambda: operator.attempt("pgrep", "-f", "dorafleet").returncode == 1, "its process is gone"
    )
    gone = dora(fleet, "cluster", "status")
    assert gone.returncode == 1
    assert "dorafleet up" in gone.stderr or "cluster up" in gone.stderr
