"""Which processes belong to a unit: those of its control group, as the kernel names it."""

import os
import subprocess
from pathlib import Path

import pytest

from dorad.launch import membership
from dorad.launch.spawner import Process

GROUP = "/dorad.slice/dorad-a-1.service"
TEXTS = {
    "unified": f"0::{GROUP}\n",
    "hybrid": f"5:memory:/elsewhere\n1:name=systemd:{GROUP}\n0::{GROUP}\n",
    "v1": f"9:name=systemd:{GROUP}\n8:pids:/\n0::/\n",
    "unified in a container on a hybrid host": f"9:name=systemd:/\n8:pids:/\n0::{GROUP}\n",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_the_control_group_is_found_as_systemd_names_it(kind: str) -> None:
    assert GROUP in membership.groups_in(TEXTS[kind])


def test_other_hierarchies_are_ignored() -> None:
    assert membership.groups_in(f"8:pids:{GROUP}\n0::/other\n") == ["/other"]


def test_a_process_has_the_control_groups_that_the_kernel_names_until_it_has_exited() -> None:
    process = subprocess.Popen(["sleep", "60"])
    text = Path(f"/proc/{process.pid}/cgroup").read_text()
    groups = membership.control_groups(process.pid)
    process.kill()
    process.wait()
    assert groups
    # A child starts in the control group of its parent.
    assert groups == [line.split(":", 2)[2] for line in text.splitlines() if _of_units(line)]
    assert membership.control_groups(process.pid) == []


def _of_units(line: str) -> bool:
    return line.split(":", 2)[1] in ("", "name=systemd")


def test_a_unit_has_a_real_process_of_its_control_group() -> None:
    """Nothing is replaced here: a process that runs belongs to the unit, an exited one does not."""
    process = Process(1, 1, lambda *_: None)
    with subprocess.Popen(["sleep", "60"]) as running:
        (*_, process.control_group) = membership.control_groups(running.pid)
        assert membership.belongs(running.pid, process, ("", ""))
        process.control_group += "/below"
        assert not membership.belongs(running.pid, process, ("", ""))
        process.control_group = process.control_group.removesuffix("/below")
        running.kill()
    assert not membership.belongs(running.pid, process, ("", ""))


def test_the_control_group_is_that_of_the_process_asked_for() -> None:
    """Two processes in different groups: the kernel's file of each is read, not our own."""
    folder = _writable_group()
    if folder is None:
        pytest.skip("this user can make no control group")
    group = folder / f"dorad-test-{os.getpid()}"
    group.mkdir()
    try:
        with subprocess.Popen(["sleep", "60"]) as inside, subprocess.Popen(["sleep", "60"]) as not_:
            (group / "cgroup.procs").write_text(str(inside.pid))
            assert any(each.endswith(group.name) for each in membership.control_groups(inside.pid))
            process = Process(1, 1, lambda *_: None)
            (process.control_group,) = (
                each for each in membership.control_groups(inside.pid) if each.endswith(group.name)
            )
            assert membership.belongs(inside.pid, process, ("", ""))
            assert not membership.belongs(not_.pid, process, ("", ""))
            inside.kill()
            not_.kill()
    finally:
        group.rmdir()


def _writable_group() -> Path | None:
    """Return the folder of this process's own control group if groups can be made in it."""
    for hierarchy, name in (("unified", ""), ("systemd", "name=systemd"), ("", "")):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            folder = Path("/sys/fs/cgroup", hierarchy, path.lstrip("/"))
            if (
                controllers == name
                and (folder / "cgroup.procs").exists()
                and os.access(folder, os.W_OK)
            ):
                return folder
    return None


@pytest.mark.parametrize(
    ("group", "inside"),
    [
        (GROUP, True),
        (f"{GROUP}/below", True),
        (f"{GROUP}2", False),
        (f"/user.slice/user@1.service{GROUP}", False),
        ("", False),
    ],
)
def test_a_unit_has_the_processes_of_its_control_group_and_no_others(
    group: str, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "control_groups", lambda _pid: [group])
    process = Process(1, 1, lambda *_: None)
    process.control_group = GROUP
    assert membership.belongs(7, process, ("", "")) is inside


def test_a_unit_without_a_known_control_group_has_no_processes() -> None:
    process = Process(1, 1, lambda *_: None)
    process.control_group = ""
    assert not membership.belongs(os.getpid(), process, ("", ""))
