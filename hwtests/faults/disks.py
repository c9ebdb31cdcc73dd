"""The campaigns with full disks: one for log files, one for the daemon's state."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from hwtests.faults.bed import Bed, DamageError
from hwtests.faults.campaigns import Outcome, check_calm
from hwtests.faults.flow import RESTARTED, Flow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random


class _NoDiskError(Exception):
    pass


@contextlib.contextmanager
def _small_disk(path: Path, size: str) -> Iterator[None]:
    """Mount a disk of this size (`512k`). Raises _NoDiskError."""
    if os.geteuid() != 0:
        raise _NoDiskError("only root can mount a small disk")
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", str(path)]
    if (done := subprocess.run(command, capture_output=True, text=True)).returncode:
        raise _NoDiskError(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


def fulldisk(_seconds: float, _rng: Random) -> Outcome:
    """Full disks: nodes go on, and it is reported."""
    try:
        return _join(_full_logs(), _full_state())
    except _NoDiskError as why:
        return Outcome(skipped=str(why))


def _full_logs() -> Outcome:
    with Bed() as bed:
        flow = Flow("flow", bed.folder / "flow")
        flow.add_chain("calm")
        flow.add("talk", "talk", tick=10, env={"FAULTS_LINES": "50"})
        flow.write()
        disk = flow.folder / "out"
        with _small_disk(disk, "512k"):
            bed.start(flow)
            pids = [node.pid for node in bed.nodes(flow).values()]
            if not bed.comes(lambda: os.statvfs(disk).f_bavail <= 1):
                raise DamageError("the disk does not get full")
            if not bed.comes(lambda: any("No space" in text for text in bed.notices())):
                bed.faults.append("nobody says that the disk for logs is full")
            lines = flow.counts("talk")[0]
            if not bed.comes(lambda: flow.counts("talk")[0] > lines + 10_000):
                bed.faults.append("a node that prints has come to a halt")
            bed.flows(flow)
            if [node.pid for node in bed.nodes(flow).values()] != pids:
                bed.faults.append("nodes have ended")
            pause = check_calm(bed, flow)
            bed.stop(flow)
            bed.judge([flow])
            lines = flow.counts("talk")[0]
    said = f"{lines} lines printed though only some could be kept, longest pause {pause:.2f} s"
    return Outcome(said, bed.faults)


def _full_state() -> Outcome:
    bed = Bed()
    with _small_disk(bed.folder / "state", "2m"), bed:
        calm = Flow("calm", bed.folder / "calm")
        calm.add_chain("calm")
        struck = Flow("struck", bed.folder / "struck")
        struck.add_chain("struck", **RESTARTED)
        bed.start(calm)
        bed.start(struck)
        pids = [node.pid for node in bed.nodes(calm).values()]
        with (bed.folder / "state" / "fill").open("wb", buffering=0) as fill:
            with contextlib.suppress(OSError):
                while True:
                    fill.write(bytes(4096))
        for node in bed.nodes(struck).values():
            bed.signal(node.pid or 0, signal.SIGKILL)
        bed.flows(calm, struck)
        if not bed.comes(lambda: any("full" in text for text in bed.notices())):
            bed.faults.append("nobody says that the disk for the state is full")
        bed.signal(bed.daemon_pid(), signal.SIGKILL)
        bed.dora("up")
        bed.flows(calm, struck)
        if [node.pid for node in bed.nodes(calm).values()] != pids:
            bed.faults.append("nodes were not adopted from a full disk")
        pause = check_calm(bed, calm)
        bed.judge([calm, struck])
    return Outcome(f"a killed daemon goes on, longest pause {pause:.2f} s", bed.faults)


def _join(logs: Outcome, state: Outcome) -> Outcome:
    said = f"for logs: {logs.said}; for the state: {state.said}"
    return Outcome(said, logs.faults + state.faults)
