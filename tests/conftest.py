"""Fixtures of all tests: real daemons, and a check that no test leaks processes or memory."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from dorad.shm import native
from tests.harness.chance import chance
from tests.harness.commands import command_server
from tests.harness.daemon import Daemon, daemon, emptied
from tests.harness.leaks import collect_garbage, nothing_leaks
from tests.harness.ports import reserved_ports

__all__ = ["chance", "nothing_leaks"]

# Tests start thousands of interpreters. Without bytecode on the disk, each compiles all it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell starts background jobs with these signals ignored; commands of a test would inherit that.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        )

# A slow example of a property test is not a failure. The same commit passes or fails on each run:
# the examples depend on the test alone. `make explore` draws new ones, and more of them.
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
if examples := os.environ.get("EXPLORE_EXAMPLES"):
    settings.register_profile(
        "explore", settings.get_profile("same"), derandomize=False, max_examples=int(examples)
    )
# With a mutant, that a test fails is enough: the smallest example takes a minute to find.
settings.register_profile(
    "mutant", settings.get_profile("same"), phases=(Phase.explicit, Phase.generate)
)
settings.load_profile(
    "mutant" if "MUTATION_TEST" in os.environ else "explore" if examples else "same"
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are collected: modules and tests stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Leave out what was imported until now when a test collects garbage."""
    collect_garbage(also_frozen=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which data plane was tested, and why tests were skipped."""
    terminalreporter.line(f"data plane: {native.describe()}")
    for reason, count in skipped(terminalreporter.stats.get("skipped", [])).items():
        terminalreporter.line(f"skipped {count}: {reason}")


def skipped(reports: Iterable[pytest.TestReport]) -> Counter[str]:
    """Return how many tests were skipped for each reason."""
    # What was raised: the file, the line, and `Skipped: why`.
    texts = (str(each.longrepr[2]) for each in reports if isinstance(each.longrepr, tuple))
    return Counter(text.removeprefix("Skipped: ") for text in texts)


@pytest.fixture(scope="session", autouse=True)
def commands() -> Iterator[None]:
    """The process that forks commands; of the session, so that no test is blamed for it."""
    with command_server():
        yield


@pytest.fixture(scope="session", autouse=True)
def ports() -> Iterator[None]:
    """The ports that `free_port` returns."""
    with reserved_ports():
        yield


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short: those of sockets below it may have 107 bytes."""
    name = re.sub(r"\W", "_", request.node.name.removeprefix("test_"))
    return tmp_path_factory.mktemp(name[:12])


@pytest.fixture(autouse=True)
def root_logger_stays() -> Iterator[None]:
    """Undo what `Node()` and the daemon change at the root logger of this process.

    At level 0, pytest keeps the records of debug lines with their tracebacks, and these keep
    descriptors open.
    """
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    for handler in [each for each in root.handlers if each not in handlers]:
        root.removeHandler(handler)


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    """The daemon behind `dorad`."""
    with daemon() as found:
        yield found


@pytest.fixture
def dorad(shared_daemon: Daemon) -> Iterator[Daemon]:
    """A daemon without dataflows, shared by the tests of a file."""
    with emptied(shared_daemon) as found:
        yield found


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    """A daemon that the test may kill and restart."""
    with daemon() as found:
        yield found
