"""`dorafleet` from its package: two robots from nothing to an upgrade, and no trace of it left."""

import json
import subprocess
from pathlib import Path
from typing import Any

from hwtests.fleet.conftest import Fleet
from hwtests.robots import Robot
from hwtests.robots.shell import run, wait_until

CLUSTER = "/root/cluster.yml"
TICKER = Path(__file__).parent / "nodes/ticker.py"
FLOW = """\
nodes:
  - id: ticker
    path: ticker.py
    inputs: {tick: dora/timer/millis/20}
"""
EVERYWHERE = "find / -xdev -path /proc -prune -o -path /sys -prune -o -path /tmp -prune -o -print"


def files(robot: Robot) -> set[str]:
    return set(robot.sh(EVERYWHERE, timeout=120).splitlines())


def dorafleet(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    return fleet.operator.attempt("dorafleet", *words, timeout=300)


def status(fleet: Fleet) -> dict[str, dict[str, Any]]:
    output = dorafleet(fleet, "status", CLUSTER, "--json")
    assert output.stdout, output.stderr
    return {machine["id"]: machine for machine in json.loads(output.stdout)}


def version(robot: Robot) -> str:
    return robot.exec("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "dorad")


def pid(robot: Robot) -> str:
    nodes = json.loads(robot.exec("dora", "node", "list", "--format", "json"))
    return str(nodes["pid"])


def test_the_package_for_robots_has_no_fleet_manager(deb: Path, fleet_deb: Path) -> None:
    robots, fleet = (run(["dpkg-deb", "-c", str(each)]) for each in (deb, fleet_deb))
    assert "dorafleet" not in robots
    assert "/textual/" not in robots
    for path in (
        "bin/dorafleet ",
        "share/man/man1/dorafleet.1.gz",
        "share/bash-completion/completions/dorafleet",
        "share/zsh/vendor-completions/_dorafleet",
        "share/fish/vendor_completions.d/dorafleet.fish",
        "share/doc/dorafleet/copyright",
    ):
        assert f"./usr/{path}" in fleet
    assert "./usr/lib/dorad/" not in fleet
    configuration = {path for line in fleet.splitlines() if "./etc/" in (path := line.split()[-1])}
    assert configuration == {"./etc/", "./etc/default/", "./etc/default/dorafleet",
                             "./etc/dorafleet/"}  # fmt: skip


def test_a_fleet_from_nothing_to_an_upgrade(fleet: Fleet, newer_deb: Path) -> None:
    operator, arm1, arm2 = fleet.operator, fleet.arm1, fleet.arm2
    operator.exec("apt-get", "-qq", "install", "-y", "/root/dorad.deb", timeout=300)
    before = files(operator)
    operator.exec("apt-get", "-qq", "install", "-y", "/root/dorafleet.deb", timeout=120)
    assert operator.exec("dorafleet", "check", CLUSTER) == f"{CLUSTER}: ok, 2 machines\n"

    # The robots' host keys are not known yet.
    refused = dorafleet(fleet, "install", CLUSTER, "/root/dorad.deb")
    assert refused.returncode == 1
    assert refused.stderr.count("ssh-keyscan") == 2
    assert arm1.attempt("dpkg", "-s", "dorad").returncode == 1

    installed = dorafleet(fleet, "install", CLUSTER, "/root/dorad.deb", "--accept-new")
    assert installed.returncode == 0, installed.stderr
    assert installed.stdout.count("installed, active") == 2
    for robot in (arm1, arm2):
        assert robot.exec("systemctl", "is-enabled", "dorad").strip() == "enabled"
        assert robot.sh("ls /var/tmp | grep dorafleet || true") == ""
        robot.exec("test", "!", "-e", "/usr/bin/dorafleet")
    again = dorafleet(fleet, "install", CLUSTER, "/root/dorad.deb")
    assert again.returncode == 0
    assert again.stdout.count("nothing to do") == 2

    # The user of the second robot may use the daemon once it is in its group.
    asked = status(fleet)
    assert asked["arm1"]["answers"]
    assert not asked["arm2"]["answers"]
    assert "group `dorad`" in asked["arm2"]["error"]["message"]
    arm2.exec("usermod", "--append", "--groups", "dorad", "pilot")

    arm1.push(TICKER, "/opt/flow/ticker.py")
    arm1.write("/opt/flow/dataflow.yml", FLOW)
    arm1.exec("dora", "start", "/opt/flow/dataflow.yml", "--name", "clock", "--detach")
    asked = status(fleet)
    assert [flow["name"] for flow in asked["arm1"]["dataflows"]] == ["clock"]
    assert asked["arm2"]["error"] is None
    assert asked["arm2"]["labels"] == {"zone": "hall"}
    node = pid(arm1)

    # One robot is cut off in the middle of it; the other is upgraded, its dataflow continues.
    operator.push(newer_deb, "/root/newer.deb")
    operator.sh(f"nohup dorafleet install {CLUSTER} /root/newer.deb >/root/output 2>&1 & echo $!")
    unit = "dorafleet-install-*"
    listed = ("systemctl", "list-units", "--no-legend", "--state=active,activating", unit)
    wait_until(lambda: arm2.exec(*listed), "the second robot installs", timeout=60)
    fleet.bed.network.silent(2)
    ended = "machines failed"
    wait_until(lambda: ended in operator.exec("cat", "/root/output"), "the first ends", timeout=120)
    output = operator.exec("cat", "/root/output")
    print(output)
    assert "arm1  ✓ " in output
    assert "→ 99.0.0, active" in output
    assert "the installation continues there: journalctl -u dorafleet-install-" in output
    assert "1 of 2 machines failed: arm2" in output
    assert version(arm1) == "installed 99.0.0"
    assert pid(arm1) == node
    wait_until(lambda: version(arm2) == "installed 99.0.0", "the second ends alone", timeout=60)
    assert arm2.sh("ls /var/tmp | grep dorafleet || true") == ""
    fleet.bed.network.repair(2)
    finished = dorafleet(fleet, "install", CLUSTER, "/root/newer.deb")
    assert finished.returncode == 0, finished.stderr

    # The message of apt-get reaches the operator.
    older = dorafleet(fleet, "install", CLUSTER, "/root/dorad.deb", "--only", "arm2")
    assert older.returncode == 1
    assert "E: Packages were downgraded" in older.stderr
    back = dorafleet(
        fleet, "install", CLUSTER, "/root/dorad.deb", "--only", "arm2", "--allow-downgrade"
    )
    assert back.returncode == 0, back.stderr
    assert version(arm2) != "installed 99.0.0"

    arm2.power_cut()
    gone = dorafleet(fleet, "status", CLUSTER)
    print(gone.stdout)
    assert gone.returncode == 1
    assert "clock" in gone.stdout
    assert "arm2" in gone.stdout

    operator.exec("apt-get", "-qq", "purge", "-y", "dorafleet", timeout=120)
    assert [path for path in files(operator) - before if "dorafleet" in path] == []
