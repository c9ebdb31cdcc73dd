"""Fixtures of the tests that those on robots use as well."""

import os

import pytest

from hwtests.robots import host
from hwtests.robots.fixtures import package
from tests.harness.chance import chance
from tests.harness.leaks import nothing_leaks

__all__ = ["chance", "nothing_leaks"]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Build the packages before workers start: once for all, and outside a test's timeout."""
    if session.config.getoption("numprocesses", None) and not host.missing():
        os.environ["DORAD_DEB"] = str(package())
