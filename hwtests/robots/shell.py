"""Run commands on this machine, and wait for conditions."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Sequence

from hwtests.robots.errors import RobotError


def run(command: Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> str:
    """Run a command and return what it printed. Raises RobotError if it fails or takes longer."""
    done = attempt(command, stdin=stdin, timeout=timeout)
    if done.returncode:
        output = (done.stderr.strip() or done.stdout.strip())[-4000:]
        raise RobotError(f"{shlex.join(command)}: exit code {done.returncode}\n{output}")
    return done.stdout


def attempt(
    command: Sequence[str], *, stdin: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command; accept any exit code. Raises RobotError if it takes longer."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RobotError(f"{shlex.join(command)}: not done after {timeout:g} s") from error
    return subprocess.CompletedProcess(
        command,
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )


def wait_until(
    met: Callable[[], object], what: str, *, timeout: float = 30, every: float = 0.05
) -> None:
    """Wait for a condition. Raises RobotError with `what` if it is not met in time."""
    end = time.monotonic() + timeout
    while not met():
        if time.monotonic() > end:
            raise RobotError(f"after {timeout:g} s still not: {what}")
        time.sleep(every)
