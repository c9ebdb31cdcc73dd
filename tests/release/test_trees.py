"""What a robot does with a release that has arrived: checks, trees, and what it removes."""

import errno
import os
import stat
import subprocess
import sys
import time

import pytest

from dorad.release import trees as trees_module
from dorad.release.errors import ReleaseError
from dorad.release.machine import Machine, this_machine
from tests.release.samples import (
    FLOW,
    MACHINE,
    OTHER,
    Robot,
    file_of,
    object_of,
    public,
    release,
)

CODE = b"print('two')\n"


def refusal(call):
    with pytest.raises(ReleaseError) as caught:
        call()
    return caught.value


def test_a_tree_has_the_files_of_the_release_as_links_that_no_user_may_write(robot):
    found = release({"dataflow.yml": FLOW, "lib/a.py": CODE, "lib/b.py": CODE})
    tree = robot.receive(found).stage(found.id)
    assert tree.entry.read_bytes() == FLOW
    assert (tree.folder / "files/lib/a.py").samefile(tree.folder / "files/lib/b.py")
    assert (tree.folder / "files/lib/a.py").stat().st_mode & 0o777 == 0o444
    assert (tree.folder / "files/lib").stat().st_mode & 0o777 == 0o755
    assert robot.trees.tree(found.id).manifest == tree.manifest


def test_dorad_and_nodes_of_other_users_can_read_it_whatever_the_umask(tmp_path):
    old = os.umask(0o077)
    try:
        machine = this_machine()
        robot = Robot(tmp_path / "strict", machine)
        found = release(packages={"p": {"site/p/q.py": b"1"}}, machine=machine)
        tree = robot.receive(found).stage(found.id)
    finally:
        os.umask(old)
    paths = [tree.folder, *tree.folder.rglob("*"), tree.folder.parent]
    modes = {path.stat().st_mode & 0o777 for path in paths if not path.is_symlink()}
    assert modes == {0o755, 0o444}


def test_an_executable_file_stays_one(robot):
    content = b"#!/bin/sh\nexit 0\n"
    files = [file_of("dataflow.yml", FLOW), file_of("run", content, executable=True)]
    found = release({"dataflow.yml": FLOW}, files=files)
    found.objects[object_of(content, executable=True)] = content
    tree = robot.receive(found).stage(found.id)
    subprocess.run([tree.folder / "files/run"], check=True, timeout=60)


def test_files_that_have_not_arrived_are_named_by_number(robot):
    found = release({"dataflow.yml": FLOW, "a.py": CODE})
    trees = robot.receive(found, without=(CODE,))
    assert trees.lacking(trees.manifest(found.id)) == [object_of(CODE)]
    error = refusal(lambda: trees.stage(found.id))
    assert (error.code, error.refused) == ("missing", False)
    assert "1 of 2 files" in str(error)


def test_a_byte_that_changed_on_the_disk_is_found_and_its_file_has_to_arrive_again(robot):
    found = release({"dataflow.yml": FLOW, "a.py": CODE})
    trees = robot.receive(found)
    tree = trees.stage(found.id)
    path = tree.folder / "files/a.py"
    path.chmod(0o644)
    path.write_bytes(CODE.replace(b"two", b"TWO"))
    error = refusal(lambda: trees.stage(found.id))
    assert error.code == "damaged"
    assert trees.lacking(tree.manifest) == [object_of(CODE)]
    assert refusal(lambda: trees.tree(found.id)).code == "missing"
    assert robot.receive(found).stage(found.id).folder == tree.folder
    assert path.read_bytes() == CODE


def test_a_file_that_was_removed_from_a_tree_is_there_after_staging_again(robot):
    found = release()
    trees = robot.receive(found)
    path = trees.stage(found.id).folder / "files/a.py"
    path.unlink()
    trees.stage(found.id)
    assert path.read_bytes() == b"print(1)\n"


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine("aarch64", "3.11", "2.36", "0.1.0"), "this machine is aarch64"),
        (Machine("x86_64", "3.13", "2.36", "0.1.0"), "python 3.13"),
        (Machine("x86_64", "3.11", "2.31", "0.1.0"), "glibc 2.31"),
        (Machine("x86_64", "3.11", "", "0.1.0"), "glibc 2.36"),
        (Machine("x86_64", "3.11", "2.41", "0.0.9"), "needs dorad 0.1.0"),
    ],
)
def test_a_release_for_another_machine_is_refused_before_it_is_kept(tmp_path, machine, reason):
    robot = Robot(tmp_path / "other", machine)
    found = release()
    error = refusal(lambda: robot.trees.put_manifest(found.content, found.signature))
    assert (error.code, error.refused) == ("machine", True)
    assert reason in str(error)
    assert robot.trees.manifests() == []


def test_a_release_for_an_older_c_library_fits(tmp_path):
    robot = Robot(tmp_path / "newer", Machine("x86_64", "3.11", "2.41", "0.2.0"))
    found = release()
    assert robot.receive(found).stage(found.id).id == found.id


def test_a_sequence_below_the_confirmed_one_is_refused_unless_it_is_allowed(robot):
    found = release(sequence=4)
    trees = robot.receive(found)
    error = refusal(lambda: trees.stage(found.id, confirmed=5))
    assert (error.code, error.refused) == ("sequence", True)
    assert "4 is below 5" in str(error)
    assert trees.ids() == []
    assert trees.stage(found.id, confirmed=4).id == found.id
    assert trees.stage(found.id, confirmed=5, allow_lower=True).id == found.id


def test_a_key_that_is_revoked_after_the_transfer_stops_the_staging(robot):
    found = release()
    trees = robot.receive(found)
    robot.trust(public(OTHER))
    assert refusal(lambda: trees.stage(found.id)).code == "signer"
    assert trees.ids() == []


def test_a_changed_manifest_is_not_staged(robot):
    found = release()
    trees = robot.receive(found)
    path = trees.folder / "manifests" / found.id
    path.chmod(0o644)
    path.write_bytes(found.content.replace(b'"sequence":1', b'"sequence":2'))
    assert refusal(lambda: trees.stage(found.id)).code == "manifest"


def test_a_full_disk_is_refused_with_both_sizes_and_leaves_nothing(robot, monkeypatch):
    found = release({"dataflow.yml": FLOW, "model.bin": os.urandom(1 << 20)})
    trees = robot.receive(found)
    full = os.statvfs_result((4096, 4096, 1000, 10, 10, 1000, 1000, 1000, 0, 255))
    monkeypatch.setattr(trees_module.os, "statvfs", lambda _: full)
    error = refusal(lambda: trees.stage(found.id))
    assert (error.code, error.refused) == ("space", True)
    assert "needed" in str(error)
    assert "41.0 kB free" in str(error)
    assert trees.ids() == []


def test_a_disk_that_fills_up_while_a_tree_is_made_leaves_no_half_tree(robot, monkeypatch):
    found = release({"dataflow.yml": FLOW, "a.py": CODE, "b.py": b"b"})
    trees = robot.receive(found)
    made = []

    def link(source, target, real=os.link):
        if len(made) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        made.append(target)
        real(source, target)

    monkeypatch.setattr(trees_module.os, "link", link)
    assert refusal(lambda: trees.stage(found.id)).code == "space"
    assert len(made) == 2
    assert [path.name for path in trees.folder.iterdir() if found.id in path.name] == []


def test_collecting_keeps_what_it_is_told_to_and_what_has_just_arrived(robot):
    one, two, three = (
        release({"dataflow.yml": FLOW, "a.py": b"%d" % number}, sequence=number)
        for number in (1, 2, 3)
    )
    for each in (one, two, three):
        robot.receive(each).stage(each.id)
    arriving = release({"dataflow.yml": FLOW, "a.py": b"4"}, sequence=4)
    trees = robot.receive(arriving)
    old = time.time() - 2 * trees_module.RECENT_S
    for each in (one, two, three):
        os.utime(trees.folder / "manifests" / each.id, (old, old))
    assert trees.collect({two.id, three.id}) == 1
    assert trees.ids() == sorted([two.id, three.id])
    assert set(trees.manifests()) == {two.id, three.id, arriving.id}
    assert trees.objects.lacking([object_of(b"1")]) == [object_of(b"1")]
    for each in (two, three, arriving):
        assert trees.stage(each.id).entry.read_bytes() == FLOW
    assert trees.collect({two.id, three.id}) == 0


def test_a_foreign_link_to_a_file_of_a_release_keeps_it_from_no_removal(robot, tmp_path, caplog):
    """Otherwise a user who can make one fills the disk with releases that are no longer used."""
    first = release({"dataflow.yml": FLOW, "a.py": CODE})
    trees = robot.receive(first)
    trees.stage(first.id)
    objects = [path for path in (trees.folder / "objects").rglob("*") if path.is_file()]
    for number, path in enumerate(objects):
        (tmp_path / f"link{number}").hardlink_to(path)
    # A file of a release never has a right that its content could misuse for others.
    assert {stat.S_IMODE(path.stat().st_mode) for path in objects} <= {0o444, 0o555}
    for path in (trees.folder / "manifests").iterdir():
        os.utime(path, (0, 0))
    assert trees.collect({first.id}) == 0
    assert all(path.exists() for path in objects)
    assert trees.collect(set()) == 0
    assert not any(path.exists() for path in objects)
    assert f"{len(objects)} files that no release needs have links outside" in caplog.text


def test_collecting_waits_for_no_transfer_but_says_that_one_is_in_progress(robot):
    trees = robot.trees
    with robot.trees.lock(wait=False):
        assert refusal(lambda: trees.collect(set())).code == "busy"


def test_an_environment_runs_its_own_packages_before_those_of_dorad(tmp_path):
    machine = this_machine()
    robot = Robot(tmp_path / "here", machine)
    wheel = {
        "site/greeting/__init__.py": b"TEXT = 'hello'\n",
        "site/msgspec.py": b"WHOSE = 'the release'\n",
        "bin/greet": b"#!/bin/sh\n",
        "data/share/greeting.txt": b"hello\n",
    }
    found = release(packages={"greeting": wheel}, machine=machine)
    tree = robot.receive(found).stage(found.id)
    assert tree.environment is not None
    code = "import greeting, msgspec, yaml, sys; print(greeting.TEXT, msgspec.WHOSE, sys.prefix)"
    shown = subprocess.run(
        [tree.environment / "bin/python", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.split()
    assert shown == ["hello", "the", "release", str(tree.environment)]
    assert (tree.environment / "share/greeting.txt").read_bytes() == b"hello\n"
    descriptor = tree.descriptor()
    assert descriptor["env"]["VIRTUAL_ENV"] == str(tree.environment)
    assert sys.version_info[:2] == tuple(map(int, machine.python.split(".")))


def test_a_release_without_packages_has_no_environment(robot):
    found = release()
    tree = robot.receive(found).stage(found.id)
    assert tree.environment is None
    assert "VIRTUAL_ENV" not in tree.descriptor().get("env", {})
    assert tree.manifest.targets == [MACHINE.target]
