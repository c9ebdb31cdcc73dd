"""Fixtures of the tests of the daemon."""

from collections.abc import Iterator

import pytest

from dorad.daemon.broker import foreign


@pytest.fixture(scope="session", autouse=True)
def closing_threads_end_soon() -> Iterator[None]:
    """Let no test wait a second until the last thread that closed a descriptor has ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "IDLE_S", 0.05)
        yield
