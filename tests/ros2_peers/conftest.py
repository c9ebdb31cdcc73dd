"""Real nodes of ROS 2, in a venv of their own that is made once."""

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.dataflow import clean_environment

from .environment import prepare, unavailable

PROGRAMS = Path(__file__).parent / "programs"
SHORT_LEASE = Path(__file__).parent / "short_lease.xml"
"""With it others miss a killed process after 8 seconds, not 20."""
INSTALL_TIMEOUT = 600
DOMAINS = 100
"""Those whose ports no client of Linux is given."""

Peer = Callable[..., "subprocess.Popen[str]"]

_domains = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = unavailable()
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(INSTALL_TIMEOUT))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def ros() -> Path:
    return prepare()


@pytest.fixture
def domain(worker_id: str) -> int:
    """A domain of ROS 2 for this test alone.

    Each is used again as late as possible: others believe in a killed process for 20 seconds.
    """
    worker = 0 if worker_id == "master" else int(worker_id.removeprefix("gw"))
    each = DOMAINS // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return 1 + worker * each + next(_domains) % each


@pytest.fixture
def peer(ros: Path, domain: int, tmp_path: Path) -> Iterator[Peer]:
    """Start `program.py ARGUMENTS` in the domain and the folder of the test; killed at its end."""
    started = []

    def start(
        program: str, *arguments: object, short_lease: bool = False
    ) -> "subprocess.Popen[str]":
        env = {"ROS_DOMAIN_ID": str(domain)}
        if short_lease:
            profile = str(SHORT_LEASE)
            env |= {f"FAST{name}_DEFAULT_PROFILES_FILE": profile for name in ("DDS", "RTPS")}
        process = subprocess.Popen(
            [ros / "bin/python", "-u", PROGRAMS / f"{program}.py", *map(str, arguments)],
            cwd=tmp_path,
            env=clean_environment(ros / "bin", env),
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def listened(listener: "subprocess.Popen[str]") -> tuple[list[int], float | None]:
    """Return what `peer.py listen` has received, and when its subscription had a publisher.

    A number that came several times in a row counts once.
    """
    numbers, matched_s = json.loads(line_of(listener))
    return distinct(numbers), matched_s


def distinct(numbers: list[int]) -> list[int]:
    """Return the numbers without those that are like the one before."""
    return [each for each, _ in itertools.groupby(numbers)]


def line_of(process: "subprocess.Popen[str]") -> str:
    """Return the next line that a peer prints; empty if it has ended."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")
