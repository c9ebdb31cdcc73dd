"""Fixtures of the tests of the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dorad.daemon.broker import foreign

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def closing_threads_end_soon() -> Iterator[None]:
    """Let no test wait a second until the last thread that closed a descriptor has ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "IDLE_S", 0.05)
        yield
