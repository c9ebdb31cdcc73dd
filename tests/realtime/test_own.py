"""Real time for the daemon itself: only for the thread of its loop, not for nodes."""

import os
from pathlib import Path

import pytest

from dorad.realtime.memory import CAP_IPC_LOCK, has_capability
from dorad.realtime.own import RealtimeSettings, apply
from dorad.realtime.schedule import Schedule
from tests.harness.daemon import daemon
from tests.harness.flows import counting
from tests.harness.waiting import wait_until
from tests.realtime.test_nodes import bare, locked_kb
from tests.realtime.test_processes import skip_unless_permitted

pytestmark = pytest.mark.timeout(120)


def policies(pid: int) -> dict[int, int]:
    """Return the policy of each thread of a process."""
    return {int(t.name): os.sched_getscheduler(int(t.name)) for t in threads(pid)}


def threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def test_settings_that_are_not_enabled_do_nothing() -> None:
    assert apply(RealtimeSettings(priority=1000, cpu_affinity=(10**6,))) == []


def test_only_the_thread_of_the_loop_runs_in_real_time(tmp_path: Path) -> None:
    skip_unless_permitted(Schedule(os.SCHED_FIFO, 10))
    with daemon() as dorad:
        dorad.end()
        dorad.start("--rt")
        dorad.dora_ok("start", counting(tmp_path), "--name", "count", "--detach")
        # Measurements run in another thread.
        wait_until(lambda: len(threads(dorad.pid)) > 1)
        found = policies(dorad.pid)
        assert found.pop(dorad.pid) == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        assert set(found.values()) == {os.SCHED_OTHER}
        if has_capability(CAP_IPC_LOCK):
            assert locked_kb(dorad.pid) > 4096
        with dorad.client() as client:
            nodes = client.nodes()
            assert client.status().notices == []
        assert {os.sched_getscheduler(n.pid) for n in nodes if n.pid} == {os.SCHED_OTHER}


def test_refusals_are_notices(tmp_path: Path) -> None:
    with daemon() as dorad:
        dorad.end()
        dorad.bin = bare(tmp_path, dorad.bin)
        dorad.start("--rt")
        with dorad.client() as client:
            notices = client.status().notices
        if os.sched_getscheduler(dorad.pid) != os.SCHED_OTHER:
            pytest.skip("every user may run in real time here")
        policy, memory = notices
        assert policy.startswith("dorad itself: realtime: runs without `fifo 10`: its limit of")
        assert memory.startswith("dorad itself: lock_memory: ")


def test_missing_cores_are_named() -> None:
    pid = os.fork()
    if pid == 0:
        every = os.sched_getaffinity(0)
        lines = apply(
            RealtimeSettings(
                enabled=True,
                policy="other",
                lock_memory=False,
                cpu_affinity=(min(every), 10**6),
            )
        )
        pinned = os.sched_getaffinity(0) == {min(every)}
        reported = len(lines) == 1 and "may not use core 1000000" in lines[0]
        os._exit(0 if pinned and reported else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
