"""A dataflow with the key `record` records from boot on, and every power cut leaves its files."""

import json
import time
from random import Random
from typing import Any

import pytest

from hwtests.robots import Robot
from hwtests.robots.effort import times
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

CUTS = times(3, 20)
FOLDER = f"{load.FOLDER}/recordings"
FLOW = f"""\
nodes:
  - id: ticks
    path: source.py
    inputs: {{tick: dora/timer/millis/5}}
    outputs: [data]
record:
  folder: {FOLDER}
  %s
"""


def start(robot: Robot, more: str) -> None:
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot, FLOW % more)
    robot.exec("dora", "start", f"{load.FOLDER}/load.yml", "--name", "load", "--detach", "--enable")


def recordings(robot: Robot) -> list[dict[str, Any]]:
    text = robot.attempt("dora", "record", "list", FOLDER, "--format", "json").stdout
    return [json.loads(line) for line in text.splitlines()]


def until_recorded(robot: Robot, files: int) -> None:
    """Wait until the newest of so many files has messages."""

    def holds() -> bool:
        rows = recordings(robot)
        return len(rows) >= files and rows[-1]["messages"] > 20

    wait_until(holds, f"{files} recordings")


@pytest.mark.timeout(120 + 40 * CUTS)
def test_a_robot_records_after_every_boot_and_recovers_what_a_power_cut_has_left(
    robot: Robot, chance: Random
) -> None:
    start(robot, "compression: none")
    for cut in range(1, CUTS + 1):
        until_recorded(robot, cut)
        time.sleep(chance.uniform(0.0, 1.0))
        robot.power_cut()
        robot.start()
    until_recorded(robot, CUTS + 1)
    statuses = [row["status"] for row in recordings(robot)]
    print(statuses)
    assert statuses == [*["RECOVERED"] * CUTS, "UNFINISHED"]
    robot.exec("dora", "stop", "load")
    assert recordings(robot)[-1]["status"] == "COMPLETE"


def test_a_black_box_has_the_seconds_before_a_power_cut_at_the_next_boot(robot: Robot) -> None:
    start(robot, "keep: 30s")
    ring = f"{FOLDER}/ring"
    wait_until(lambda: len(robot.attempt("ls", ring).stdout.split()) > 1, "two segments")
    robot.power_cut()
    robot.start()
    marked = robot.exec("dora", "record", "mark", FOLDER, "--note", "after the cut", "--after", "0")
    name = marked.split()[1]
    robot.exec("dora", "record", "incidents", FOLDER, "--export", name, "-o", "/root/cut.mcap")
    found = json.loads(
        robot.attempt("dora", "record", "info", "/root/cut.mcap", "--format", "json").stdout
    )
    print(found["topics"])
    assert found["topics"]["ticks/data"]["messages"] > 100
