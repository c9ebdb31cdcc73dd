"""`dora record merge` with files of other machines, with a program in the place of scp."""

import os

import pytest
from click.testing import CliRunner

from dorad.cli.record_edit import merge
from dorad.cli.remote_files import is_remote, local_files
from dorad.record.mcap.reader import RecordingReader
from tests.record.files import numbers, write

SCP = """#!/bin/sh
[ "$1 $2 $3" = "-B -r --" ] || exit 9
cp -r "$ROBOTS/$(echo "$4" | tr -d :)" "$5"
"""


@pytest.fixture
def robots(tmp_path, monkeypatch):
    """A folder with a folder for each machine, from which `scp` copies."""
    folder = tmp_path / "robots"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scp").write_text(SCP)
    (tmp_path / "bin/scp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ROBOTS", str(folder))
    monkeypatch.chdir(tmp_path)
    for name in ("arm1", "arm2"):
        (folder / name).mkdir(parents=True)
        write(folder / name / "day.mcap", numbers(5, f"{name}/number"))
    return folder


def run(*words):
    return CliRunner().invoke(merge, words)


def test_files_of_other_machines_are_copied_and_merged(robots, tmp_path):
    done = run("arm1:/day.mcap", "root@arm2:/day.mcap", "-o", "both.mcap")
    assert done.exit_code == 1
    assert "root@arm2:/day.mcap cannot be copied" in done.output
    assert not (tmp_path / "both.mcap").exists()
    done = run("arm1:/day.mcap", "arm2:/day.mcap", "-o", "both.mcap")
    assert done.exit_code == 0, done.output
    with RecordingReader(tmp_path / "both.mcap") as reader:
        assert reader.topics() == {"arm1/number": 5, "arm2/number": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "both.mcap", "robots"]


def test_copies_of_a_command_that_was_killed_are_removed_by_the_next(robots, tmp_path):
    (tmp_path / ".copied-abcd1234").mkdir()
    (tmp_path / ".copied-abcd1234/0_day.mcap").write_text("half")
    with local_files(["arm1:/day.mcap"], tmp_path / "a.mcap") as mine:
        assert run("arm2:/day.mcap", "-o", "b.mcap").exit_code == 0
        assert mine[0].exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.mcap", "bin", "robots"]


def test_a_file_here_is_no_file_of_another_machine(robots, tmp_path):
    write(tmp_path / "a:b.mcap", numbers(3))
    assert not is_remote("a:b.mcap")
    assert run("a:b.mcap", "-o", "c.mcap").exit_code == 0


@pytest.mark.parametrize("text", ["a.mcap", "./a:b", "/a:b", "-o:x", "arm1:", ":x", "a b:c"])
def test_what_names_no_host_is_a_file_here(text):
    assert not is_remote(text) or text.startswith("-")


def test_a_file_that_is_missing_and_a_target_that_exists_are_refused(robots, tmp_path):
    done = run("nothing.mcap", "-o", "c.mcap")
    assert done.exit_code == 2
    assert "'nothing.mcap' does not exist" in done.output
    (tmp_path / "c.mcap").write_text("")
    done = run("arm1:/day.mcap", "-o", "c.mcap")
    assert done.exit_code == 1
    assert "exists already" in done.output


def test_without_scp_the_package_is_named(robots, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    done = run("arm1:/day.mcap", "-o", "c.mcap")
    assert done.exit_code == 1
    assert "openssh-client" in done.output
