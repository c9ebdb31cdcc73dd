"""Hundreds of nodes on one robot: they start, outlive the daemon, run again after a boot, stop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hwtests.robots import Robot
from hwtests.robots.effort import times
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

NODES = times(160, 600)
REAL = 10
"""Number of them that use `Node()` and exchange messages."""
FLOWS = times(2, 6)
EACH = 40
LIMIT_S = times(180, 600)

SOURCE = """\
  - id: ticks
    path: source.py
    inputs: {tick: dora/timer/millis/100}
    outputs: [data]
"""
SINK = """\
  - id: sink%d
    path: sink.py
    inputs: {data: ticks/data}
    env: {LOAD_FILE: /srv/load/%s.jsonl}
"""
SMALL = """\
  - id: small%d
    path: small.py
"""

pytestmark = pytest.mark.timeout(4 * LIMIT_S)


def flow(nodes: int, name: str, real: int = REAL) -> str:
    sinks = "".join(SINK % (number, f"{name}-{number}") for number in range(real - 1))
    return "nodes:\n" + SOURCE + sinks + "".join(SMALL % n for n in range(nodes - real))


@contextmanager
def measured(what: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begun:.1f} s")


@pytest.fixture
def ready(robot: Robot) -> Robot:
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot)
    return robot


def start(robot: Robot, name: str, text: str) -> None:
    robot.write(f"{load.FOLDER}/{name}.yml", text)
    words = (f"{load.FOLDER}/{name}.yml", "--name", name, "--detach", "--enable")
    dora(robot, "start", *words)


def dora(robot: Robot, *words: str) -> None:
    """Run a command; retry if the daemon of a busy machine does not answer in time."""
    done = robot.attempt("dora", *words, timeout=LIMIT_S)
    assert done.returncode == 0 or "has not answered" in done.stderr, done.stderr


def units(robot: Robot) -> int:
    listed = ("systemctl", "list-units", "--plain", "--no-legend", "--state=running", "dorad-*")
    return len(robot.attempt(*listed).stdout.splitlines())


def all_run(robot: Robot, flows: int, nodes: int) -> None:
    """Wait until every dataflow runs, and check every node."""
    wait_until(
        lambda: robot.attempt("dora", "list").stdout.count("Running") == flows,
        f"{flows} dataflows run",
        timeout=LIMIT_S,
        every=1.0,
    )
    assert units(robot) == nodes
    journal = robot.exec("journalctl", "-b", "-u", "dorad", "--no-pager", timeout=120)
    for trouble in ("is lost", "pending replies", "cannot start", "would be lost", "Traceback"):
        assert trouble not in journal


def pids(robot: Robot) -> str:
    return robot.sh("systemctl show --property=Id,ExecMainPID 'dorad-*' | sort")


def test_hundreds_of_nodes_start_outlive_their_daemon_reboot_and_stop(ready: Robot) -> None:
    with measured(f"{NODES} nodes start"):
        start(ready, "many", flow(NODES, "many"))
        all_run(ready, 1, NODES)
    before = pids(ready)
    stored = ready.exec("systemctl", "show", "-P", "NFileDescriptorStore", "dorad").strip()
    main = ready.exec("systemctl", "show", "-P", "MainPID", "dorad").strip()
    used = ready.sh(f"ls /proc/{main}/fd | wc -l").strip()
    print(f"{stored} descriptors in the store, {used} open")
    with measured("dorad is restarted under them"):
        ready.exec("systemctl", "restart", "dorad", timeout=LIMIT_S)
        wait_until(lambda: ready.attempt("dora", "list").stdout.count("Running") == 1, "it is back")
    assert pids(ready) == before
    with measured("the robot reboots and they run again"):
        ready.reboot()
        all_run(ready, 1, NODES)
    ended = ready.exec("journalctl", "-b", "-1", "-u", "dorad", "--no-pager", timeout=120)
    assert "timed out" not in ended
    with measured("they stop"):
        dora(ready, "stop", "many")
        wait_until(lambda: units(ready) == 0, "all have stopped", timeout=LIMIT_S)
    wait_until(
        lambda: int(ready.exec("systemctl", "show", "-P", "NFileDescriptorStore", "dorad")) <= 1,
        "nothing of them is kept",
    )


def test_dataflows_that_restart_at_the_same_time_all_run(ready: Robot) -> None:
    for number in range(FLOWS):
        start(ready, f"flow{number}", flow(EACH, f"flow{number}", real=2))
    all_run(ready, FLOWS, FLOWS * EACH)
    with measured(f"{FLOWS} dataflows of {EACH} nodes after a reboot"):
        ready.reboot()
        all_run(ready, FLOWS, FLOWS * EACH)
    with measured("all stop"):
        dora(ready, "stop", "--all")
        wait_until(lambda: units(ready) == 0, "all have stopped", timeout=LIMIT_S)
