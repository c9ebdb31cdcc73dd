"""The daemon warns before its descriptors run out."""

import contextlib
import logging
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.daemon.descriptors import DescriptorWatch
from tests.harness.daemon import Daemon
from tests.harness.process import open_descriptors
from tests.harness.waiting import wait_until


@pytest.fixture
def tight() -> Iterator[int]:
    """Set a low limit in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_warns_before_descriptors_run_out_and_clears_the_warning(
    tight: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dorad")
    watch = DescriptorWatch()
    watch.check()
    assert watch.trouble is None
    pipes: list[int] = []
    try:
        while open_descriptors() < 0.81 * tight:
            pipes += os.pipe()
        watch.check()
        watch.check()
        assert watch.trouble is not None
        assert f"of at most {tight} descriptors are open (most of them: pipes)" in watch.trouble
        assert "LimitNOFILE" in watch.trouble
    finally:
        for end in pipes:
            os.close(end)
    watch.check()
    assert watch.trouble is None
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2  # once when it begins, once when it is over
    assert "open again" in messages[1]


def test_around_the_threshold_it_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dorad")
    counts = iter((79, 80, 79, 85, 71, 90))
    watch = DescriptorWatch(lambda: [str(n) for n in range(next(counts))], lambda: 100)
    for _ in range(6):
        watch.check()
    assert watch.trouble is not None
    assert len(caplog.records) == 1


def test_status_and_doctor_report_that_descriptors_run_out(own_daemon: Daemon) -> None:
    warning = "descriptors are open"
    with contextlib.ExitStack() as connections:
        for _ in range(24):
            connections.enter_context(own_daemon.client()).status()
        for command in ("status", "doctor"):
            printed = own_daemon.dora(command).stdout
            assert "dorad" in printed
            assert warning not in printed
        # Enough room for the commands below; more than 80 % even without what closes meanwhile.
        limit = len(list(Path(f"/proc/{own_daemon.pid}/fd").iterdir())) + 6
        _, hard_limit = resource.prlimit(own_daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(own_daemon.pid, resource.RLIMIT_NOFILE, (limit, hard_limit))
        wait_until(lambda: warning in own_daemon.log)
        for command in ("status", "doctor"):
            assert warning in own_daemon.dora(command).stdout
        assert f"of at most {limit} {warning}" in own_daemon.log
