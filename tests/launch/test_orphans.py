"""Processes that carry a daemon's mark are found and ended, and no others."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from dorad.launch import orphans
from dorad.launch.model import Command, LaunchError
from dorad.procinfo import is_alive
from tests.harness.waiting import wait_until

from .conftest import Family
from .holders import Place, start


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    await place.clear()


@pytest.fixture
def mark(family: Family) -> Iterator[str]:
    family.env[orphans.VARIABLE] = f"{uuid.uuid4()}#flow"
    yield family.env[orphans.VARIABLE].removesuffix("#flow")


def left_behind(command: Command) -> None:
    """Start a command whose parent has ended, in its own session."""
    code = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    subprocess.run([sys.executable, "-c", code, *command.argv], env=dict(command.env), check=True)


def pids(found: list[orphans.Orphan]) -> list[int]:
    return sorted(orphan.pid for orphan in found)


def running_sleeps(family: Family) -> list[int]:
    """Return the processes that execute `sleep`; before that they carry their parent's mark."""
    found = []
    for pid in family.alive():
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).cmdline()[:1] == ["sleep"]:
                found.append(pid)
    return found


async def test_processes_of_a_dead_holder_are_ended(
    place: Place, family: Family, mark: str
) -> None:
    holder = await place.attach()
    for role in ("double_fork", "breeding", "orphan"):
        await start(holder, family.role(role))
        wait_until(family.ready(role).exists)
    # The leaders of double_fork and orphan exit a moment after the file appears.
    wait_until(lambda: len(family.alive()) == 64)
    os.kill(holder.pid, signal.SIGKILL)
    # The nodes die with it; what they started in their own sessions does not.
    wait_until(lambda: len(family.alive()) == 62)
    left = family.alive()
    assert pids(orphans.find(mark)) == sorted(left)
    assert pids(orphans.end(mark)) == sorted(left)
    assert family.has_ended()


async def test_processes_of_a_live_holder_are_spared(
    place: Place, family: Family, mark: str
) -> None:
    holder = await place.attach()
    await start(holder, family.role("double_fork"))
    wait_until(family.ready("double_fork").exists)
    left_behind(family.command("/bin/sleep", "100"))
    wait_until(lambda: len(family.alive()) == 3)
    assert len(orphans.end(mark, spare={holder.pid})) == 1
    assert len(family.alive()) == 2


def test_children_without_the_mark_are_ended_also_if_their_parent_dies_first(
    family: Family, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "_WATCHED", 1)
    left_behind(family.shell("for _ in 1 2 3 4 5; do env -u DORA_DAEMON sleep 100 & done; wait"))
    wait_until(lambda: len(running_sleeps(family)) == 5)
    assert len(orphans.end(mark)) == 6
    assert not family.alive()


def test_other_marks_are_left_alone(family: Family, mark: str) -> None:
    left_behind(family.shell(f"DORA_DAEMON={mark}x sleep 100 & DORA_DAEMON= sleep 100 & wait"))
    wait_until(lambda: len(running_sleeps(family)) == 2)
    assert len(orphans.end(mark)) == 1
    assert len(family.alive()) == 2
    assert orphans.find(mark) == []


def test_the_processes_of_one_dataflow_can_be_found(family: Family, mark: str) -> None:
    left_behind(family.command("/bin/sleep", "100"))
    wait_until(lambda: len(family.alive()) == 1)
    assert orphans.find(f"{mark}#other") == []
    assert pids(orphans.find(f"{mark}#flow")) == family.alive()


def test_children_of_this_process_are_spared(family: Family, mark: str) -> None:
    with subprocess.Popen(["/bin/sleep", "100"], env=dict(family.env)) as child:
        assert orphans.find(mark) == []
        child.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_users_are_left_alone(family: Family, mark: str) -> None:
    env = dict(family.env)
    with subprocess.Popen(["/bin/sleep", "100"], env=env, user=65534) as child:
        wait_until(lambda: len(family.alive()) == 1)
        code = f"from dorad.launch import orphans; assert orphans.end({mark!r}) == []"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert is_alive(child.pid)
        child.kill()


def test_a_later_process_with_the_same_pid_is_not_killed(family: Family, mark: str) -> None:
    left_behind(family.command("/bin/sleep", "100"))
    wait_until(lambda: len(family.alive()) == 1)
    (found,) = orphans.find(mark)
    orphans._kill([orphans.Orphan(found.pid, found.started - 1)])
    assert is_alive(found.pid, found.started)
    orphans._kill([found])
    wait_until(lambda: not family.alive())


def test_processes_that_cannot_be_ended_are_named(
    family: Family, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(family.command("/bin/sleep", "100"))
    wait_until(lambda: len(family.alive()) == 1)
    monkeypatch.setattr(orphans, "_kill", lambda _: None)
    with pytest.raises(LaunchError, match=f"cannot be ended: {family.alive()[0]}"):
        orphans.end(mark, seconds=0.1)
