"""Measuring continues after a moment in which nothing could be measured."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dorad.daemon.measuring import measure
from dorad.daemon.measuring.measure import Measure
from dorad.daemon.measuring.network import NetworkWatch
from dorad.daemon.record import Record
from tests.harness.waiting import until


class NoDataflows:
    """A registry of a daemon without dataflows."""

    records: tuple[Record, ...] = ()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let no file be opened in a `with` block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_measuring_continues_when_files_can_be_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "EVERY_S", 0.01)
    warnings: list[str] = []
    watch = NetworkWatch(lambda *_: None)
    measuring = Measure(NoDataflows(), watch, warnings.append)
    with no_descriptor_left():
        task = asyncio.create_task(measuring.run())
        await until(lambda: warnings)
    try:
        await until(lambda: measuring.own().memory > 0)
        assert len(warnings) == 1
        assert "cannot measure nodes" in warnings[0]
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})
