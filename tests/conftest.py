"""What every test must leave as it found it: processes, descriptors, shared memory."""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import HealthCheck, settings

from dorad.shm import native
from tests.harness.daemon import Daemon, daemon, emptied

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTLE_S = 5.0

# A shell starts what it runs in the background with these ignored, and so would be every command
# that a test starts and sends one.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        )

# For property tests, a busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            # The descriptor of the listing itself.
            continue
    return found


def _leaks(before: dict[int, str], children: set[int]) -> list[str]:
    leaks = [
        f"descriptor {number} ({target})"
        for number, target in _descriptors().items()
        if before.get(number) != target and not _is_library(target)
    ]
    leaks += [
        f"process {child.pid} ({_command(child)})"
        for child in psutil.Process().children(recursive=True)
        if child.pid not in children
    ]
    leaks += [str(path) for path in Path("/dev/shm").glob(f"dorad-{os.getpid()}-*")]
    return leaks


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.status()
    except psutil.Error as error:
        return str(error)


def _is_library(target: str) -> bool:
    """Tell whether a descriptor belongs to something a library opens once for the process."""
    return target in ("/dev/urandom", "/dev/null") or target.endswith((".so", ".db", ".lock"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which data plane was tested."""
    terminalreporter.line(f"data plane: {native.describe()}")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a process, a descriptor or shared memory behind."""
    before = _descriptors()
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    deadline = time.monotonic() + SETTLE_S
    while leaks := _leaks(before, children):
        gc.collect()
        if time.monotonic() > deadline:
            pytest.fail("left behind: " + ", ".join(leaks))
        time.sleep(0.01)


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    """The daemon behind `dorad`."""
    with daemon() as found:
        yield found


@pytest.fixture
def dorad(shared_daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that nothing runs under; the tests of a file have it one after the other."""
    with emptied(shared_daemon) as found:
        yield found


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    """A daemon that the test may kill and start again."""
    with daemon() as found:
        yield found
