"""Fixtures of the tests on a virtual machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.machine import virtual
from hwtests.robots.fixtures import deb, robots_possible

__all__ = ["deb", "robots_possible"]


@pytest.fixture(scope="session")
def prepared_disk(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The disk of a machine that has the package installed."""
    needed = virtual.missing()
    if needed:
        pytest.skip(f"a virtual machine needs tools: apt-get install {needed}")
    if os.uname().machine != "x86_64":
        pytest.skip("the virtual machine is an amd64")
    folder = tmp_path_factory.mktemp("machine")
    disk = folder / "disk.img"
    virtual.prepare(deb, disk, folder)
    yield disk
    disk.unlink()
