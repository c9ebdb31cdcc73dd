"""Secrets on robots: systemd gives them to the node that names them, and to no other process."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from hwtests.fleet.enrolled import NODES, EnrolledFleet
from hwtests.fleet.flows import FLOW_FILE
from hwtests.robots import Robot
from hwtests.robots.shell import wait_until

VALUE = "correct-horse-battery-staple-on-a-robot"
LATER = "another-value-for-the-same-robot"
PATTERNS = "/root/patterns"
FLOW = """\
nodes:
  - id: reader
    path: /opt/flow/secret.py
    inputs: {{tick: dora/timer/secs/1}}
    outputs: [none]
    secrets: [api-key]
    restart_policy: always
    deploy: {{machine: arm1}}
  - id: thief
    path: /opt/flow/secret.py
    inputs: {{tick: dora/timer/secs/1, none: reader/none}}
    env: {{DIGEST: {digest}}}
    deploy: {{machine: arm1}}
"""


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def set_secret(robots: EnrolledFleet, value: str) -> str:
    robots.server.write("/root/value", value)
    return robots.dorafleet("secret", "set", "api-key", "--for", "arm1", "--file", "/root/value")


def printed(robot: Robot, node: str, word: str) -> list[Any]:
    """Return what a node has printed after a word."""
    lines = robot.attempt("dora", "logs", "secretive", "--node", node).stdout.splitlines()
    return [json.loads(line.split(f" {word} ", 1)[1]) for line in lines if f" {word} " in line]


def places_with_values(machine: Robot, *left_out: str) -> list[str]:
    """Return the files of a machine that contain a value, except below these folders."""
    machine.write(PATTERNS, f"{VALUE}\n{LATER}\n")
    skipped = " ".join(f"-path {folder} -prune -o" for folder in left_out)
    folders = "/run /var /etc /dev/shm /tmp /opt /srv"
    find = f"find {folders} {skipped} -type f -print0"
    # grep ends with 1 if it finds nothing.
    return machine.sh(f"{find} | xargs -0 grep -lF -f {PATTERNS} || true").splitlines()


@pytest.fixture
def running(robots: EnrolledFleet) -> Iterator[EnrolledFleet]:
    robots.arm1.push(NODES / "secret.py", "/opt/flow/secret.py")
    set_secret(robots, VALUE)
    robots.server.write(FLOW_FILE, FLOW.format(digest=digest(VALUE)))
    robots.dora("start", FLOW_FILE, "--name", "secretive", "--detach")
    try:
        wait_until(lambda: printed(robots.arm1, "reader", "own"), "the node has its secret")
        yield robots
    finally:
        robots.dora("stop", "secretive")
        robots.attempt("secret", "remove", "api-key")


def test_systemd_gives_a_node_its_secret_and_nothing_else_on_the_robot_shows_it(
    running: EnrolledFleet,
) -> None:
    arm1 = running.arm1
    (own,) = printed(arm1, "reader", "own")
    print(own)
    unit = arm1.sh("systemctl list-units --no-legend --plain 'dorad-secretive-reader-*'").split()[0]
    assert own["folder"] == f"/run/credentials/{unit}"
    assert own["digests"] == {"api-key": digest(VALUE)}
    # With an entry for its user in the access list, which counts as the group's.
    assert own["mode"] in ("0o500", "0o550")
    arm1.write(PATTERNS, f"{VALUE}\n")
    for shows in (
        f"systemctl show --all {unit}",
        f"systemctl cat {unit}",
        "journalctl --no-pager -o export",
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline",
        "dora list; dora node info reader -d secretive; dora logs secretive",
    ):
        assert arm1.sh(f"({shows}) 2>/dev/null | grep -caF -f {PATTERNS} || true").strip() == "0"
    # In memory: of the agent, for root and dorad's group, and of this unit.
    there = places_with_values(arm1, "/run/dorad-agent/secrets", "/run/credentials")
    assert there == []
    assert arm1.exec("stat", "-c", "%a %U %G", "/run/dorad-agent/secrets/api-key").split() == [
        "640",
        "dorad-agent",
        "dorad",
    ]
    assert arm1.exec("stat", "-c", "%a %U", "/var/lib/dorad-agent/secrets/key").split() == [
        "600",
        "dorad-agent",
    ]
    for machine in (running.robots["arm2"], running.robots["arm3"]):
        assert places_with_values(machine) == []
    running.dorafleet("backup", "/var/lib/dorafleet/test.backup")
    running.server.exec("rm", "-f", "/root/value")
    assert places_with_values(running.server) == []


def test_another_node_of_the_same_dataflow_and_user_cannot_read_it(running: EnrolledFleet) -> None:
    arm1 = running.arm1
    wait_until(lambda: len(printed(arm1, "thief", "foreign")) > 1, "the other node has looked")
    users = arm1.sh("systemctl show -P User 'dorad-secretive-*'").split()
    assert len(users) > 1
    assert len(set(users)) == 1
    assert [found for found in printed(arm1, "thief", "foreign") if found] == []


def test_a_node_gets_the_value_again_without_its_agent_and_after_a_boot_without_a_network(
    running: EnrolledFleet,
) -> None:
    arm1 = running.arm1
    arm1.exec("systemctl", "stop", "dorad-agent")
    before = len(printed(arm1, "reader", "own"))
    arm1.exec("dora", "node", "restart", "reader", "-d", "secretive")
    wait_until(lambda: len(printed(arm1, "reader", "own")) > before, "it has started again")
    running.bed.network.cut(1)
    try:
        arm1.reboot()
        wait_until(lambda: printed(arm1, "reader", "own"), "it runs after the boot", timeout=90)
    finally:
        running.bed.network.repair(1)
    assert printed(arm1, "reader", "own")[-1]["digests"] == {"api-key": digest(VALUE)}
    running.wait_connected()


def test_a_new_value_is_there_at_the_next_start_and_a_removed_one_keeps_the_node_from_it(
    running: EnrolledFleet,
) -> None:
    arm1 = running.arm1
    set_secret(running, LATER)
    assert "secretive/reader" in running.dorafleet("secret", "list", "api-key")
    running.dora("node", "restart", "reader", "-d", "secretive")
    wait_until(
        lambda: printed(arm1, "reader", "own")[-1]["digests"] == {"api-key": digest(LATER)},
        "it has the new value",
    )
    assert "secretive/reader" not in running.dorafleet("secret", "list", "api-key")
    running.dorafleet("secret", "remove", "api-key")
    assert arm1.exec("ls", "/run/dorad-agent/secrets").split() == []
    assert arm1.exec("ls", "/var/lib/dorad-agent/secrets").split() == ["key"]
    there = ("--coordinator-addr", "127.0.0.1")
    words = ("dora", "node", "restart", "reader", "-d", "secretive", *there)
    refused = running.server.attempt(*words)
    assert refused.returncode == 1
    assert "dorafleet secret set api-key" in refused.stderr
