"""Nodes under a real daemon: their scheduling in the kernel, and the reports of refusals."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.realtime.memory import CAP_IPC_LOCK, has_capability
from dorad.realtime.schedule import Schedule
from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import write_flow
from tests.harness.waiting import wait_until
from tests.realtime.test_processes import skip_unless_permitted

pytestmark = pytest.mark.timeout(120)

TICKED = """
    import time
    from dora import Node
    for event in Node():
        if event["type"] == "INPUT" and "slow" == "{speed}":
            time.sleep(0.05)
"""


@pytest.fixture
def dorad() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


def flow(folder: Path, speed: str = "fast", millis: int = 20, **realtime: object) -> Path:
    node = {
        "id": "arm",
        "path": "arm.py",
        "inputs": {"tick": {"source": f"dora/timer/millis/{millis}", "queue_size": 1}},
        "realtime": realtime,
    }
    return write_flow(folder, [node], arm=TICKED.format(speed=speed))


def start(dorad: Daemon, file: Path) -> int:
    """Return the pid of the node once it runs."""
    dorad.dora_ok("start", file, "--name", "robot", "--detach")
    with dorad.client() as client:
        pid = client.node_info("arm").info.pid
    assert pid is not None
    return pid


def locked_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmLck:")[2].split()[0])


def test_a_node_runs_in_real_time_with_locked_memory(dorad: Daemon, tmp_path: Path) -> None:
    skip_unless_permitted(Schedule(os.SCHED_FIFO, 9))
    if not has_capability(CAP_IPC_LOCK):
        pytest.skip("memory can be locked without limit only with CAP_IPC_LOCK")
    pid = start(dorad, flow(tmp_path, policy="fifo", priority=9, lock_memory=True))
    assert os.sched_getscheduler(pid) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    assert os.sched_getparam(pid).sched_priority == 9
    wait_until(lambda: locked_kb(pid) > 4096)
    info = dorad.dora_ok("node", "info", "arm")
    assert "Real time: fifo 9, memory locked" in info
    assert "Notes:" not in info


def test_refusals_are_in_the_log_and_in_the_nodes_info(tmp_path: Path) -> None:
    with daemon() as dorad:
        dorad.end()
        dorad.bin = bare(tmp_path, dorad.bin)
        dorad.start()
        file = flow(tmp_path, policy="fifo", priority=9, lock_memory=True)
        pid = start(dorad, file)
        if os.sched_getscheduler(pid) != os.SCHED_OTHER:
            pytest.skip("every user may run in real time here")
        wait_until(lambda: "lock_memory:" in dorad.dora_ok("node", "info", "arm"))
        info = dorad.dora_ok("node", "info", "arm")
        logs = dorad.dora_ok("logs", "robot")
        for text in (info, logs):
            assert "realtime: runs without `fifo 9`: its limit of real-time priority is" in text
            assert "LimitRTPRIO=99" in text
            assert "lock_memory:" in text
            assert "LimitMEMLOCK=infinity" in text


def bare(folder: Path, programs: Path) -> Path:
    """A folder of programs whose `dorad` has no capabilities, and little memory to lock."""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    if os.geteuid() == 0 and subprocess.run([*drop, "true"], check=False).returncode:
        pytest.skip("setpriv cannot take rights away here")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for program in programs.iterdir():
        (bin_folder / program.name).symlink_to(program)
    (bin_folder / "dorad").unlink()
    own = f"exec {programs / 'dorad'}"
    if os.geteuid() == 0:
        own = f"exec {' '.join(drop)} {programs / 'dorad'}"
    (bin_folder / "dorad").write_text(f'#!/bin/sh\nulimit -l 8192\n{own} "$@"\n', encoding="utf-8")
    (bin_folder / "dorad").chmod(0o755)
    return bin_folder


def timers(dorad: Daemon) -> dict[str, float]:
    """The timer statistics of the node; empty until the daemon has sampled them."""
    (node,) = json.loads(dorad.dora_ok("top", "--once"))
    return node["timers"] or {}


def test_missed_deadlines_are_counted(dorad: Daemon, tmp_path: Path) -> None:
    start(dorad, flow(tmp_path, speed="slow", deadline_ms=15))
    wait_until(
        lambda: (now := timers(dorad)).get("deadline_misses", 0) > 10 and now["worst_ms"] > 15
    )
    info = dorad.dora_ok("node", "info", "arm")
    assert "ticks due within 15 ms" in info
    assert "deadlines missed" in info


def test_a_node_in_time_misses_no_deadline(dorad: Daemon, tmp_path: Path) -> None:
    start(dorad, flow(tmp_path, millis=500, deadline_ms=3000))
    wait_until(lambda: timers(dorad).get("delay_ms") is not None)
    assert timers(dorad)["deadline_misses"] == 0
