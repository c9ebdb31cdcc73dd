"""Damaged files of releases that run: found, repaired from the objects, or asked for again."""

import os
import subprocess

import pytest

from dorad.release.machine import this_machine
from dorad.release.repair import MANIFEST, Repairs
from tests.release.samples import FLOW, Robot, object_of, release

CODE = b"print('two')\n"
MODULE = b"NAME = 'q'\n"


@pytest.fixture
def found():
    return release(
        {"dataflow.yml": FLOW, "lib/a.py": CODE},
        {"p": {"site/p/q.py": MODULE}},
        machine=this_machine(),
    )


@pytest.fixture
def robot(tmp_path):
    return Robot(tmp_path / "robot", this_machine())


def overwrite(path, content):
    """Change a file as root can, in place."""
    path.chmod(0o644)
    path.write_bytes(content)


def test_a_file_that_was_removed_or_replaced_in_a_tree_is_repaired_from_its_object(robot, found):
    tree = robot.receive(found).stage(found.id)
    repairs = Repairs(robot.trees)
    assert repairs.repair(found.id) == []
    paths = [tree.folder / "files/dataflow.yml", tree.folder / "files/lib/a.py"]
    paths[0].unlink()
    paths[1].unlink()
    paths[1].write_bytes(CODE.replace(b"two", b"TWO"))
    (tree.folder / "env/pyvenv.cfg").unlink()
    assert repairs.repair(found.id) == []
    assert [path.read_bytes() for path in paths] == [FLOW, CODE]
    python = tree.folder / "env/bin/python"
    done = subprocess.run(
        [python, "-c", "import p.q; print(p.q.NAME)"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "q\n", done.stderr
    assert not list(robot.trees.folder.glob(".env-*"))


def test_a_process_in_the_folder_of_a_tree_keeps_it_during_a_repair(robot, found):
    tree = robot.receive(found).stage(found.id)
    folder = os.open(tree.folder / "files/lib", os.O_RDONLY | os.O_DIRECTORY)
    try:
        (tree.folder / "files/lib/a.py").unlink()
        Repairs(robot.trees).repair(found.id)
        assert os.stat("a.py", dir_fd=folder).st_size == len(CODE)
    finally:
        os.close(folder)


def test_a_whole_tree_that_was_removed_is_made_again(robot, found):
    tree = robot.receive(found).stage(found.id)
    before = sorted(path.relative_to(tree.folder) for path in tree.folder.rglob("*"))
    subprocess.run(["rm", "-rf", tree.folder], check=True)
    assert Repairs(robot.trees).repair(found.id) == []
    assert sorted(path.relative_to(tree.folder) for path in tree.folder.rglob("*")) == before
    assert tree.folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("content", [CODE.replace(b"two", b"TWO"), CODE + b"#", b""])
def test_a_file_that_was_changed_in_place_is_asked_for_and_repaired_when_it_has_arrived(
    robot, found, content
):
    tree = robot.receive(found).stage(found.id)
    repairs = Repairs(robot.trees)
    repairs.repair(found.id)
    overwrite(tree.folder / "files/lib/a.py", content)
    for _ in range(2):
        assert repairs.repair(found.id) == ["files/lib/a.py"]
    assert robot.trees.lacking(tree.manifest) == [object_of(CODE)]
    robot.receive(found)
    assert repairs.repair(found.id) == []
    assert (tree.folder / "files/lib/a.py").read_bytes() == CODE


def test_objects_are_read_only_if_they_have_changed(robot, found, monkeypatch):
    robot.receive(found).stage(found.id)
    trees = robot.trees
    repairs = Repairs(trees)
    read = []
    check = trees.objects.check
    monkeypatch.setattr(
        trees.objects, "check", lambda each: read.append(each.sha256) or check(each)
    )
    repairs.repair(found.id)
    assert sorted(read) == sorted(each.sha256 for each in found.objects)
    read.clear()
    repairs.repair(found.id)
    assert read == []


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_lost_manifest_is_asked_for(robot, found, damage):
    robot.receive(found).stage(found.id)
    path = robot.trees.folder / "manifests" / found.id
    repairs = Repairs(robot.trees)
    assert repairs.repair(found.id) == []
    if damage == "missing":
        path.unlink()
    else:
        overwrite(path, path.read_bytes().replace(b"flow", b"flaw"))
    assert repairs.repair(found.id) == [MANIFEST]
    robot.receive(found)
    assert repairs.repair(found.id) == []
