"""A recording survives power cuts of its machine (`make vmtest`, a few minutes each).

QEMU is killed while the machine records. What the guest has not written to its disk is lost then,
as with the power of a real machine. `POWER_CUTS=20` cuts more often than three times.
"""

from __future__ import annotations

import os
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dorad.record.reader import RecordingReader
from dorad.record.recover import recover
from hwtests.machine import virtual
from hwtests.robots.shell import attempt, run

if TYPE_CHECKING:
    from collections.abc import Iterator

CUTS = int(os.environ.get("POWER_CUTS", "3"))
MAX_LOST_S = 1.0
FLOW = """\
nodes:
  - id: source
    path: counting.py
    inputs: {tick: dora/timer/millis/50}
    outputs: [number, block]
"""

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the dataflow."""
    path = tmp_path_factory.mktemp("flow") / "flow.yml"
    path.write_text(FLOW)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The disk that is recorded to."""
    path = tmp_path / "data.img"
    run(["truncate", "-s", "1G", str(path)])
    run(["mke2fs", "-q", "-t", "ext4", str(path)], timeout=60)
    return path


def record_until_cut(machine: virtual.Machine, flow: Path, seconds: float) -> float:
    """Record for some seconds, cut the power, and return when the last message was sent that the
    machine has told about, in seconds since 1970 of the machine.
    """
    machine.push(Path(__file__).with_name("nodes") / "counting.py", "/srv/cut/counting.py")
    machine.push(flow, "/srv/cut/flow.yml")
    machine.sh("mkdir -p /data && mount /dev/vdb /data")
    with machine.start("cd /srv/cut && dora record flow.yml -o /data/cut.mcap 2>&1") as process:
        assert process.stdout is not None
        lines = sent(process.stdout)
        last = next(lines)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            last = next(lines)
        machine.stop()
        return max((last, *lines))


def sent(lines: Iterator[str]) -> Iterator[float]:
    """Yield when each message was sent, from the lines of the node."""
    for line in lines:
        _, found, number = line.partition("sent at ")
        if found and number.endswith("\n"):
            yield float(number)


def read_out(data: Path, folder: Path) -> Path:
    """Replay the journal of a disk as a boot does, and return the recording on it."""
    assert attempt(["e2fsck", "-f", "-y", str(data)], timeout=120).returncode in (0, 1)
    target = folder / "cut.mcap"
    run(["debugfs", "-R", f"dump /cut.mcap {target}", str(data)], timeout=120)
    return target


@pytest.mark.parametrize("number", range(CUTS))
def test_a_power_cut_costs_no_more_than_a_second(
    prepared_disk: Path, flow: Path, data: Path, tmp_path: Path, number: int
) -> None:
    seconds = random.uniform(1.0, 12.0)
    with virtual.Machine(prepared_disk, data) as machine:
        last = record_until_cut(machine, flow, seconds)
    path = read_out(data, tmp_path)
    recover(path)
    with RecordingReader(path) as reader:
        assert not reader.problems
        messages = list(reader.messages(topics={"source/number", "source/block"}))
        numbers: dict[str, list[int]] = {"source/number": [], "source/block": []}
        for message in messages:
            values = message.decode().array
            assert len(values) in (1, 20_000)
            assert values[0].as_py() == values[-1].as_py()
            numbers[message.topic].append(values[0].as_py())
    for found in numbers.values():
        assert found[0] == 0
        assert all(after == before + 1 for before, after in pairwise(found))
    lost = last - messages[-1].time / 1e9
    print(f"\ncut {number}: {seconds:.1f} s recorded, {len(messages)} messages, {lost:.2f} s lost")
    assert lost <= MAX_LOST_S
