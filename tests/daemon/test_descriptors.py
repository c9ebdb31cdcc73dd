"""The daemon warns before its descriptors run out."""

import logging
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.daemon.descriptors import DescriptorWatch
from tests.harness.daemon import daemon


@pytest.fixture
def tight() -> Iterator[int]:
    """A low limit."""
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
        while len(os.listdir("/proc/self/fd")) < 0.81 * tight:  # noqa: PTH208
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
    open_now = 0
    watch = DescriptorWatch(lambda: [str(n) for n in range(open_now)], lambda: 100)
    for open_now in (79, 80, 79, 85, 71, 90):  # noqa: B007 - the watch looks at it
        watch.check()
    assert watch.trouble is not None
    assert len(caplog.records) == 1


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_dora_status_shows_it(command: str) -> None:
    with daemon() as dorad:
        assert dorad.process is not None
        pid = dorad.process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        assert "descriptors are open" not in dorad.dora(command).stdout
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 4, most))
        dorad.until(lambda: "descriptors are open" in dorad.dora(command).stdout)
        assert f"of at most {used + 4} descriptors are open" in dorad.log
