"""The wall clock of one robot, which can be set wrong although robots share the kernel's.

Programs of units that start after `prepare` read a shifted clock. Those that run already, among
them journald and the kernel itself, read the right one.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

from hwtests.robots.robot import Robot
from hwtests.robots.shell import run

SOURCE = Path(__file__).with_name("clock.c")
LIBRARY = "/usr/local/lib/wall-clock.so"
OFFSET = "/etc/wall-clock-offset"
FORMAT = "=q"
MANAGER = f"[Manager]\nDefaultEnvironment=LD_PRELOAD={LIBRARY}\n"


def compile_library(folder: Path) -> Path:
    """Return the compiled library. Raises RobotError without a compiler."""
    library = folder / "wall-clock.so"
    if not library.exists():
        run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)])
    return library


def prepare(robot: Robot, library: Path) -> None:
    """Let units that start from now on read the shifted clock, which is right at first."""
    robot.push(library, LIBRARY)
    robot.write(OFFSET, struct.pack(FORMAT, 0))
    robot.write("/etc/systemd/system.conf.d/wall-clock.conf", MANAGER)
    robot.exec("systemctl", "daemon-reload")


def shift(robot: Robot, seconds: float) -> None:
    """Set the clock of a prepared robot wrong by so many seconds in total, at once."""
    data = struct.pack(FORMAT, round(seconds * 1e9))
    # In place, in one write: processes have the file in their memory.
    write = f"dd of={OFFSET} conv=notrunc status=none"
    robot.exec("sh", "-c", write, stdin=data)


def shift_to(robot: Robot, year: int) -> float:
    """Set the clock to the second of January of a year; return by how many seconds it is wrong."""
    when = time.mktime((year, 1, 2, 0, 0, 0, 0, 0, 0))
    seconds = when - time.time()
    shift(robot, seconds)
    return seconds
