"""Replays the drive on which the brake failed."""

import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def replayed(*options: str) -> subprocess.CompletedProcess[str]:
    command = ["dora", "replay", "crash.mcap", "--step", *options]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)


def test_the_old_brake_fails_again_at_the_same_distance() -> None:
    replay = replayed("--live", "brake")
    assert replay.returncode == 1
    assert "ZeroDivisionError" in replay.stdout + replay.stderr


def test_the_mended_brake_passes_it() -> None:
    replay = replayed("--replace", "brake=mended_brake.py")
    assert replay.returncode == 0, replay.stdout + replay.stderr
