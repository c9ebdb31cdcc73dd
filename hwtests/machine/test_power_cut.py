"""A recording survives power cuts of its machine (`make vmtest`, about a minute each).

QEMU is killed while the machine records. What the guest has not written to its disk is lost then,
as with the power of a real machine. `POWER_CUTS=20` cuts more often than three times.
"""

import os
import select
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.recovery import recover
from hwtests.machine import virtual
from hwtests.robots.shell import attempt, run

CUTS = int(os.environ.get("POWER_CUTS", "3"))
MAX_LOST_S = 1.0
FLOW = """\
nodes:
  - id: source
    path: counting.py
    inputs: {tick: dora/timer/millis/50}
    outputs: [number, block]
"""
RECORD = """\
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mkdir -p /dev/shm /data
mount -t tmpfs tmpfs /dev/shm
mount -t sysfs sysfs /sys
mount -L data /data
cd /data
exec dora record flow.yml -o cut.mcap
"""
"""What is typed at the console of the machine, whose only other process is the shell."""

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The disk that is recorded to; it has the dataflow."""
    content = tmp_path / "content"
    content.mkdir()
    (content / "flow.yml").write_text(FLOW)
    shutil.copy(Path(__file__).with_name("nodes") / "counting.py", content)
    path = tmp_path / "data.img"
    run(
        ["mke2fs", "-q", "-t", "ext4", "-L", "data", "-d", str(content), str(path), "1G"],
        timeout=60,
    )
    return path


def record_until_cut(disk: Path, data: Path, seconds: float) -> float:
    """Boot, record for some seconds, and cut the power.

    Return when the last message was sent that the machine has told about. Both times are those of
    the machine, whose clock counts its instructions: a busy host makes it no slower. It boots
    without systemd, because only the kernel and the recording matter here.
    """
    clock = ("-icount", "shift=1", "-rtc", "clock=vm")
    drive = f"file={data},cache=none"
    command = virtual.qemu(disk, *clock, "-serial", "stdio", data=drive, append="init=/bin/sh")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            console = Console(process)
            console.until("# ", virtual.BOOT_S)
            for line in RECORD.splitlines():
                console.type(line)
            console.until("sent at ", virtual.BOOT_S)
            while not (times := sent(console.printed)) or times[-1] < times[0] + seconds:
                console.until("sent at ", virtual.BOOT_S)
        finally:
            process.kill()
        console.read_rest()
    return sent(console.printed)[-1]


class Console:
    """The serial console of a machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input, self._output = process.stdin, process.stdout
        self.printed = ""

    def read(self, seconds: float) -> None:
        """Wait for output, no longer than some seconds."""
        if select.select([self._output], [], [], max(0.0, seconds))[0]:
            found = os.read(self._output.fileno(), 65536)
            assert found, f"the machine has ended:\n{self.printed[-4000:]}"
            self.printed += found.decode(errors="replace")

    def until(self, text: str, seconds: float) -> None:
        """Wait until a text is printed after what was printed so far."""
        start, end = len(self.printed), time.monotonic() + seconds
        while text not in self.printed[start:]:
            assert time.monotonic() < end, f"no {text!r} in time:\n{self.printed[-4000:]}"
            self.read(end - time.monotonic())

    def type(self, line: str) -> None:
        """Type a command, and wait until it is echoed."""
        self._input.write(f"{line}\n".encode())
        self._input.flush()
        self.until("\n", virtual.BOOT_S)

    def read_rest(self) -> None:
        """Read what was printed before the cut."""
        self.printed += self._output.read().decode(errors="replace")


def sent(printed: str) -> list[float]:
    """Return when each message was sent, from whole lines that the node has printed."""
    lines = printed.rpartition("\n")[0].splitlines()
    return [float(line.partition("sent at ")[2]) for line in lines if "sent at " in line]


def read_out(data: Path, folder: Path) -> Path:
    """Replay the journal of a disk as a boot does, and return the recording on it."""
    assert attempt(["e2fsck", "-f", "-y", str(data)], timeout=120).returncode in (0, 1)
    target = folder / "cut.mcap"
    run(["debugfs", "-R", f"dump /cut.mcap {target}", str(data)], timeout=120)
    return target


@pytest.mark.parametrize("number", range(CUTS))
def test_a_power_cut_costs_no_more_than_a_second(
    prepared_disk: Path, data: Path, tmp_path: Path, number: int, chance: Random
) -> None:
    seconds = chance.uniform(1.0, 12.0)
    began = time.monotonic()
    last = record_until_cut(prepared_disk, data, seconds)
    took = time.monotonic() - began
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
    print(
        f"\ncut {number}: {seconds:.1f} s recorded, {len(messages)} messages, {lost:.2f} s lost "
        f"({took:.0f} s)"
    )
    assert lost <= MAX_LOST_S
