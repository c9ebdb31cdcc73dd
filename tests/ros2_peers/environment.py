"""A venv with real ROS 2 from PyPI, made once: `python -m tests.ros2_peers.environment`.

ROS2_DISTRIBUTION in the environment chooses another one than Kilted, which has a venv of its own.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DISTRIBUTION = os.environ.get("ROS2_DISTRIBUTION", "kilted")
DEFAULT = REPOSITORY / (".venv-ros2" if DISTRIBUTION == "kilted" else f".venv-ros2-{DISTRIBUTION}")
RELEASES = {"jazzy": ("==7.1.6", "==5.3.6", "==2.0.3"), "kilted": ("==9.1.2", "", "")}
"""Of rclpy, of the messages in COMMON, of test_msgs; empty for the newest."""
COMMON = ("std-msgs", "sensor-msgs", "geometry-msgs", "std-srvs")

_rclpy, _common, _test_msgs = RELEASES[DISTRIBUTION]
PACKAGES = (
    f"ros-rclpy[fastrtps]{_rclpy}",
    *(f"ros-{name}{_common}" for name in COMMON),
    f"ros-test-msgs{_test_msgs}",
)
"""The bridge takes pyarrow and numpy from dora's own environment."""


def unavailable() -> str | None:
    """Return why there can be no such venv here, None if there can."""
    if platform.machine() != "x86_64":
        return f"the wheels of ROS 2 are for x86-64, not {platform.machine()}"
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        return "the wheels of ROS 2 are for Python 3.10 to 3.13"
    return None


def prepare(folder: Path = DEFAULT) -> Path:
    """Return the folder of the venv, made or refreshed as needed.

    Safe to call from several processes at once. Raises subprocess.CalledProcessError if pip fails.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256("\n".join((sys.version, *PACKAGES)).encode()).hexdigest()
    stamp = folder / "packages.sha256"
    lock = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            pip = [sys.executable, "-m", "pip", "--python", folder, "--disable-pip-version-check"]
            subprocess.run([*pip, "install", "-q", *PACKAGES], check=True)
            stamp.write_text(wanted)
    finally:
        os.close(lock)
    return folder


if __name__ == "__main__":
    print(unavailable() or prepare())
