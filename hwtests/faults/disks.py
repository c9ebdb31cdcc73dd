"""The campaigns with full disks: one for log files, one for the daemon's state."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

from hwtests.faults.campaigns import Outcome, check_undisturbed
from hwtests.faults.flow import RESTARTED, Flow
from hwtests.faults.testbed import DamageError, Testbed


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
    """Fill the disks: nodes keep running, and the daemon reports it."""
    try:
        return _join(_full_logs(), _full_state())
    except _NoDiskError as why:
        return Outcome(skipped=str(why))


def _full_logs() -> Outcome:
    with Testbed() as testbed:
        flow = Flow("flow", testbed.folder / "flow")
        flow.add_chain("undisturbed")
        flow.add("talk", "talk", tick=10, env={"FAULTS_LINES": "50"})
        flow.write()
        disk = flow.folder / "out"
        with _small_disk(disk, "512k"):
            testbed.start(flow)
            pids = [node.pid for node in testbed.nodes(flow).values()]
            if not testbed.wait_until(lambda: os.statvfs(disk).f_bavail <= 1):
                raise DamageError("the disk is not filled")
            if not testbed.wait_until(
                lambda: any("No space" in text for text in testbed.notices())
            ):
                testbed.faults.append("the daemon does not report that the disk for logs is full")
            lines = flow.counts("talk")[0]
            if not testbed.wait_until(lambda: flow.counts("talk")[0] > lines + 10_000):
                testbed.faults.append("a node that prints is blocked")
            testbed.wait_for_data(flow)
            if [node.pid for node in testbed.nodes(flow).values()] != pids:
                testbed.faults.append("nodes have ended")
            pause = check_undisturbed(testbed, flow)
            testbed.stop(flow)
            testbed.collect_faults([flow])
            lines = flow.counts("talk")[0]
    summary = f"{lines} lines printed though only some could be kept, longest pause {pause:.2f} s"
    return Outcome(summary, testbed.faults)


def _full_state() -> Outcome:
    testbed = Testbed()
    with _small_disk(testbed.folder / "state", "2m"), testbed:
        undisturbed = Flow("undisturbed", testbed.folder / "undisturbed")
        undisturbed.add_chain("undisturbed")
        faulty = Flow("faulty", testbed.folder / "faulty")
        faulty.add_chain("faulty", **RESTARTED)
        testbed.start(undisturbed)
        testbed.start(faulty)
        pids = [node.pid for node in testbed.nodes(undisturbed).values()]
        with (testbed.folder / "state" / "fill").open("wb", buffering=0) as fill:
            with contextlib.suppress(OSError):
                while True:
                    fill.write(bytes(4096))
        for node in testbed.nodes(faulty).values():
            testbed.signal(node.pid or 0, signal.SIGKILL)
        testbed.wait_for_data(undisturbed, faulty)
        if not testbed.wait_until(lambda: any("full" in text for text in testbed.notices())):
            testbed.faults.append("the daemon does not report that the disk for the state is full")
        testbed.signal(testbed.daemon_pid(), signal.SIGKILL)
        testbed.dora("up")
        testbed.wait_for_data(undisturbed, faulty)
        if [node.pid for node in testbed.nodes(undisturbed).values()] != pids:
            testbed.faults.append("nodes were not adopted from a full disk")
        pause = check_undisturbed(testbed, undisturbed)
        testbed.collect_faults([undisturbed, faulty])
    return Outcome(f"a killed daemon continues, longest pause {pause:.2f} s", testbed.faults)


def _join(logs: Outcome, state: Outcome) -> Outcome:
    summary = f"for logs: {logs.summary}; for the state: {state.summary}"
    return Outcome(summary, logs.faults + state.faults)
