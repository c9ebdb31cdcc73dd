"""Deleting logs that take too much of the disk."""

import os
import uuid
from pathlib import Path

import pytest

from dorad.logs import about, disk
from dorad.logs.disk import LogEntry, Run, files_to_delete


def run(name: str, *files: tuple[str, int, float], finished: bool = True) -> Run:
    folder = Path(name)
    entries = tuple(LogEntry(folder / file, size, changed) for file, size, changed in files)
    rotated = tuple(entry for entry in entries if ".1." in entry.path.name)
    return Run(folder, entries, rotated, finished)


OLD = run("old", ("log_a.jsonl", 100, 1.0), ("dataflow.json", 10, 1.0))
NEW = run("new", ("log_a.jsonl", 100, 5.0))
LIVE = run("live", ("log_a.jsonl", 100, 9.0), ("log_a.1.jsonl", 100, 8.0), finished=False)


@pytest.mark.parametrize(
    ("limit", "gone"),
    [
        (410, []),
        (409, ["old/log_a.jsonl", "old/dataflow.json"]),
        (300, ["old/log_a.jsonl", "old/dataflow.json"]),
        (299, ["old/log_a.jsonl", "old/dataflow.json", "new/log_a.jsonl"]),
        (
            199,
            ["old/log_a.jsonl", "old/dataflow.json", "new/log_a.jsonl", "live/log_a.1.jsonl"],
        ),
        (
            0,
            ["old/log_a.jsonl", "old/dataflow.json", "new/log_a.jsonl", "live/log_a.1.jsonl"],
        ),
    ],
)
def test_old_dataflows_are_deleted_first_then_rotated_files_and_never_open_ones(
    limit: int, gone: list[str]
) -> None:
    assert [str(path) for path in files_to_delete([LIVE, NEW, OLD], limit)] == gone


@pytest.mark.parametrize(
    ("text", "limit"), [("", 1 << 30), ("500MB", 500 << 20), ("off", None), ("OFF", None), ("0", 0)]
)
def test_the_limit_comes_from_the_environment(text: str, limit: int | None) -> None:
    assert disk.limit({disk.VARIABLE: text}) == limit


def test_an_invalid_limit_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match=disk.VARIABLE):
        disk.limit({disk.VARIABLE: "plenty"})


def folder(out: Path, *, ended: bool, pid: int | None = None) -> Path:
    name = str(uuid.uuid4())
    alive = pid is not None
    about.write(
        out / name,
        about.About(
            uuid=name,
            name=None,
            path="/d.yml",
            nodes=("a",),
            started_at=1.0,
            ended_at=2.0 if ended else None,
            pid=pid,
            pid_started=about.own_start() if alive else None,
        ),
    )
    for file in ("log_a.jsonl", "log_a.1.jsonl"):
        (out / name / file).write_bytes(b"x" * 1000)
    return out / name


def test_finished_folders_are_deleted_and_foreign_files_are_not(tmp_path: Path) -> None:
    ended, running, mine = (
        folder(tmp_path, ended=True),
        folder(tmp_path, ended=False, pid=os.getpid()),
        folder(tmp_path, ended=True),
    )
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "log_a.jsonl").write_bytes(b"x" * 5000)
    (ended / "keep.txt").write_text("not ours")
    disk.make_room(tmp_path, keep={mine.name}, limit=0)
    assert [path.name for path in ended.iterdir()] == ["keep.txt"]
    assert sorted(path.name for path in running.iterdir()) == ["dataflow.json", "log_a.jsonl"]
    assert sorted(path.name for path in mine.iterdir()) == ["dataflow.json", "log_a.jsonl"]
    assert (tmp_path / "notes" / "log_a.jsonl").exists()


def test_an_empty_folder_is_deleted_too(tmp_path: Path) -> None:
    ended = folder(tmp_path, ended=True)
    disk.make_room(tmp_path, keep=(), limit=0)
    assert not ended.exists()


def test_a_folder_that_another_daemon_may_adopt_is_kept_for_a_while(tmp_path: Path) -> None:
    lost = folder(tmp_path, ended=False)
    disk.make_room(tmp_path, keep=(), limit=0)
    assert (lost / "log_a.jsonl").exists()
    for path in lost.iterdir():
        os.utime(path, (1.0, 1.0))
    disk.make_room(tmp_path, keep=(), limit=0)
    assert not lost.exists()


def test_no_limit_deletes_nothing(tmp_path: Path) -> None:
    ended = folder(tmp_path, ended=True)
    disk.make_room(tmp_path, keep=(), limit=None)
    assert (ended / "log_a.jsonl").exists()


def test_a_new_out_folder_is_ignored_by_git_and_an_old_one_is_not_changed(
    tmp_path: Path,
) -> None:
    disk.prepare(tmp_path / "out" / "id")
    assert (tmp_path / "out" / ".gitignore").read_text() == "*\n"
    (tmp_path / "own").mkdir()
    disk.prepare(tmp_path / "own" / "id")
    assert not (tmp_path / "own" / ".gitignore").exists()
