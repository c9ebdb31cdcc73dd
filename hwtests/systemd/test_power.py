"""Dataflows that are enabled run after a boot, however the machine went down."""

import time
from random import Random

import numpy as np
import pytest

from hwtests.robots import Robot
from hwtests.robots.effort import times
from hwtests.robots.shell import wait_until
from hwtests.systemd import load
from hwtests.systemd.test_units import FLOW

CUTS = times(4, 50)


@pytest.fixture
def enabled(robot: Robot) -> Robot:
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot, FLOW)
    robot.exec("dora", "start", f"{load.FOLDER}/load.yml", "--name", "load", "--detach", "--enable")
    return robot


def first_line(robot: Robot) -> tuple[float, float]:
    """Wait for the talker's first line in this boot.

    Returns the seconds until then since the robot was switched on, and since dorad was started.
    """
    wait_until(
        lambda: "line 0" in robot.attempt("journalctl", "-b", "DORA_NODE=talker").stdout,
        "the dataflow runs",
    )
    powered = robot.exec("systemctl", "show", "-P", "UserspaceTimestampMonotonic")
    began = robot.exec("systemctl", "show", "-P", "ExecMainStartTimestampMonotonic", "dorad")
    line = robot.exec(
        "journalctl", "-b", "DORA_NODE=talker", "-o", "json", "-n", "1", "--grep=line 0$"
    )
    stamp = int(line.partition('"__MONOTONIC_TIMESTAMP":"')[2].partition('"')[0])
    return (stamp - int(powered)) / 1e6, (stamp - int(began)) / 1e6


@pytest.mark.timeout(60 + 30 * CUTS)
def test_it_runs_again_after_every_power_cut(enabled: Robot, chance: Random) -> None:
    found = []
    for _ in range(CUTS):
        time.sleep(chance.uniform(0.0, 3.0))
        enabled.power_cut()
        enabled.start()
        found.append(first_line(enabled))
        journal = enabled.exec("journalctl", "-b", "-u", "dorad", "--no-pager")
        assert "could not be used" not in journal
        assert enabled.exec("dora", "list").count("Running") == 1
    print(f"\n{CUTS} power cuts; to the first message of the dataflow:")
    for what, each in zip(("power-on", "start of dorad"), zip(*found, strict=True), strict=True):
        print(f"  from {what}: median {np.median(each):.2f} s, longest {max(each):.2f} s")


def test_it_runs_again_after_an_orderly_reboot_which_it_does_not_delay(enabled: Robot) -> None:
    begun = time.monotonic()
    enabled.reboot()
    print(f"a reboot takes {time.monotonic() - begun:.1f} s")
    first_line(enabled)
    assert "timed out" not in enabled.exec("journalctl", "-b", "-1", "-u", "dorad", "--no-pager")


def test_disabled_and_stopped_dataflows_are_not_started(enabled: Robot) -> None:
    enabled.exec("dora", "stop", "load")
    enabled.exec("systemctl", "restart", "dorad")
    assert "Running" not in enabled.exec("dora", "list")
    enabled.exec("dora", "disable", "load")
    enabled.reboot()
    wait_until(lambda: enabled.attempt("dora", "status").returncode == 0, "dorad is there")
    assert "Running" not in enabled.exec("dora", "list")
