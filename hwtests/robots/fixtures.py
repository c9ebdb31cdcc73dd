"""pytest fixtures for tests on robots; each conftest.py imports those it needs.

Tests are skipped with a reason where robots cannot run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path

import pytest

from hwtests.robots import host, rootfs
from hwtests.robots.robot import Robot
from hwtests.robots.testbed import Testbed

PROJECT = Path(__file__).parents[2]
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let fixtures know whether their test has failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def robots_possible() -> None:
    """Skip where robots cannot run."""
    reason = host.missing()
    if reason:
        pytest.skip(reason)


@cache
def built() -> Path:
    """Build the packages of this tree now, once for all tests, and return that of robots."""
    done = subprocess.run(
        [PROJECT / "packaging/deb.sh"], stdout=subprocess.PIPE, text=True, check=True
    )
    return PROJECT / done.stdout.split()[-1]


def package() -> Path:
    """Return the package of robots: $DORAD_DEB, else what `make deb` builds of this tree now."""
    given = os.environ.get("DORAD_DEB")
    return Path(given).absolute() if given else built()


def fleet_package(robots: Path) -> Path:
    """Return the package of the operator, which lies beside that of robots."""
    return robots.with_name(robots.name.replace("dorad_", "dorafleet_"))


@pytest.fixture(scope="session")
def deb(robots_possible: None) -> Path:
    """The package of robots."""
    return package()


@pytest.fixture(scope="session")
def fleet_deb(deb: Path) -> Path:
    """The package of the operator."""
    return fleet_package(deb)


@pytest.fixture(scope="session")
def newer_deb(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package under a higher version, to upgrade to."""
    return rootfs.newer(deb, "99.0.0", tmp_path_factory.mktemp("newer"))


@pytest.fixture
def bed(robots_possible: None) -> Iterator[Testbed]:
    """An empty test bed; `bed.up(n)` creates plain Debian robots."""
    with Testbed() as made:
        yield made


@pytest.fixture(scope="session")
def installed(deb: Path) -> Iterator[str]:
    """The root file system with the package, for the robots of all modules."""
    with Testbed() as made:
        made.preinstall(deb)
        yield made.lower


@pytest.fixture(scope="module")
def preinstalled_bed(installed: str) -> Iterator[Testbed]:
    """A test bed for all tests of a module, whose robots have the package from the start."""
    with Testbed(lower=installed) as made:
        yield made


@pytest.fixture
def robot(preinstalled_bed: Testbed, request: pytest.FixtureRequest) -> Iterator[Robot]:
    """A robot for one test, freshly booted, with the package installed.

    The log of its daemon is shown if the test fails.
    """
    (made,) = preinstalled_bed.up(1)
    yield made
    if request.node.stash.get(FAILED, False) and made.running:
        printed = ("SYSLOG_IDENTIFIER=dorad", "--output=short-precise", "--lines=60", "--no-pager")
        print(made.attempt("journalctl", *printed).stdout)
    made.destroy()
