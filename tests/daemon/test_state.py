"""The state file: rows survive the process, and damage to the file is reported."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from dorad.daemon import database as database_module
from dorad.daemon.database import StateError, copy_to_spare
from dorad.daemon.record import Record
from dorad.daemon.recordstore import RecordStore
from dorad.daemon.state import Options, Row, State


def never(text: str) -> None:
    raise AssertionError(text)


def row(uuid: str = "u1", **changes: object) -> Row:
    fields = {
        "uuid": uuid,
        "name": "camera",
        "path": "/robot/dataflow.yml",
        "original": {"nodes": [{"id": "a"}]},
        "descriptor": {"nodes": [{"id": "a"}, {"id": "b"}]},
        "options": Options(env={"K": "V"}, uv=True),
        "log_dir": "/robot/out/u1",
        "status": "running",
        "started_at": 12.5,
        "snapshot": {"restarts": {"a": 2}},
    }
    return Row(**(fields | changes))


def test_a_dataflow_is_read_as_it_was_stored(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", never)
    state.put(row())
    state.close()
    again = State(tmp_path / "state.db", never)
    assert again.rows() == [row()]
    again.close()


def test_only_its_user_can_read_the_state(tmp_path: Path) -> None:
    """It holds the `env` of nodes; and an earlier version left it to the umask."""
    path = tmp_path / "state.db"
    before = os.umask(0)
    try:
        path.touch(mode=0o644)
        state = State(path, never)
        state.put(row())
        modes = {each.name: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
        state.close()
    finally:
        os.umask(before)
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}


def test_storing_again_replaces_and_a_snapshot_alone_leaves_the_rest(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", never)
    state.put(row())
    state.put(row(status="finished", ended_at=20.0))
    state.put_snapshot("u1", {"x": 1})
    assert state.rows() == [row(status="finished", ended_at=20.0, snapshot={"x": 1})]
    state.close()


def test_a_stored_row_survives_sigkill_right_after(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from dorad.daemon.state import State
from tests.daemon.test_state import never, row
State(Path(sys.argv[1]), never).put(row())
os.kill(os.getpid(), 9)
"""
    path = tmp_path / "state.db"
    done = subprocess.run([sys.executable, "-c", code, path], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    state = State(path, never)
    assert [found.uuid for found in state.rows()] == ["u1"]
    state.close()


def test_sync_flushes_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk: list[str] = []

    def fdatasync(descriptor: int) -> None:
        on_disk.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    state = State(tmp_path / "state.db", never)
    state.put(row())
    state.sync()
    state.close()
    assert on_disk == [str(tmp_path / "state.db-wal")]


def test_repeated_writes_do_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "MAX_LOG", 100_000)
    path = tmp_path / "state.db"
    log = path.with_name("state.db-wal")
    state = State(path, never)
    state.put(row())
    sizes = []
    for number in range(300):
        state.put_snapshot("u1", {"number": number, "text": "x" * 2000})
        if number % 10 == 9:
            state.sync()
            sizes.append(log.stat().st_size)
    assert max(sizes) < 300_000
    assert min(sizes[1:]) < 100_000
    # As after a crash: from the two files as they are.
    for file in (path, log):
        shutil.copy(file, tmp_path / file.name.replace("state", "copy"))
    copy = State(tmp_path / "copy.db", never)
    assert copy.rows()[0].snapshot["number"] == 299
    copy.close()
    state.close()


def test_sync_reports_a_removed_file(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", never)
    state.put(row())
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(StateError, match="has been removed"):
        state.sync()
    assert list(tmp_path.iterdir()) == []
    state.close()


def test_forgetting_a_dataflow_forgets_its_params(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", never)
    state.put(row())
    state.set_param("u1", "a", "gain", 1.5)
    state.forget(["u1"])
    assert (state.rows(), state.params("u1")) == ([], {})
    state.close()


def test_dataflows_are_forgotten_all_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path / "state.db", never)
    for uuid in ("a", "b"):
        state.put(row(uuid))

    def uuids() -> Iterator[str]:
        yield "a"
        raise KeyboardInterrupt  # stands for SIGKILL

    with pytest.raises(KeyboardInterrupt):
        state.forget(uuids())
    assert {each.uuid for each in state.rows()} == {"a", "b"}
    state.close()


def test_in_a_block_where_one_write_fails_none_is_stored(tmp_path: Path) -> None:
    state, warnings = State(tmp_path / "state.db", never), list[str]()
    store = RecordStore(state, warnings.append)
    refused = Record(row("b", descriptor={"x": object()}))
    with store.atomically():
        store.put(Record(row("a")))
        store.put(refused)
        store.put(Record(row("c")))
    assert state.rows() == []
    assert len(warnings) == 1
    store.put(Record(row("a")))
    assert len(state.rows()) == 1
    state.close()


def test_params_keep_their_json_types(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", never)
    state.put(row())
    values = {"f": 1.0, "i": 1, "s": "1", "n": None, "l": [1, {"k": True}]}
    for key, value in values.items():
        state.set_param("u1", "a", key, value)
    state.set_param("u1", "a", "s", "changed")
    state.delete_param("u1", "a", "n")
    del values["n"]
    assert state.params("u1") == {"a": values | {"s": "changed"}}
    assert isinstance(state.params("u1")["a"]["f"], float)
    state.close()


VERSION_1 = """
CREATE TABLE dataflow (
    uuid TEXT PRIMARY KEY, name TEXT, path TEXT NOT NULL, original TEXT NOT NULL,
    descriptor TEXT NOT NULL, options TEXT NOT NULL, log_dir TEXT NOT NULL,
    status TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL,
    results TEXT NOT NULL DEFAULT '[]', failures TEXT NOT NULL DEFAULT '[]',
    snapshot TEXT NOT NULL DEFAULT '{}'
) STRICT, WITHOUT ROWID;
CREATE TABLE node (
    dataflow TEXT NOT NULL REFERENCES dataflow ON DELETE CASCADE, node TEXT NOT NULL,
    pid INTEGER, started_at REAL, restarts INTEGER NOT NULL, last_exit TEXT,
    PRIMARY KEY (dataflow, node)
) STRICT, WITHOUT ROWID;
CREATE TABLE restart (
    dataflow TEXT NOT NULL REFERENCES dataflow ON DELETE CASCADE, node TEXT NOT NULL,
    at REAL NOT NULL, why TEXT NOT NULL
) STRICT;
CREATE INDEX restart_by_dataflow ON restart (dataflow, node, at);
CREATE TABLE param (
    dataflow TEXT NOT NULL REFERENCES dataflow ON DELETE CASCADE, node TEXT NOT NULL,
    key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (dataflow, node, key)
) STRICT, WITHOUT ROWID;
INSERT INTO dataflow
    (uuid, name, path, original, descriptor, options, log_dir, status, started_at)
    VALUES ('u1', 'camera', '/f.yml', '{}', '{}', '{}', '/out/u1', 'running', 1);
INSERT INTO node VALUES ('u1', 'a', 1, 2.0, 3, NULL);
INSERT INTO restart VALUES ('u1', 'a', 1.0, 'exited with code 1');
INSERT INTO param VALUES ('u1', 'a', 'gain', '1.5');
PRAGMA user_version = 1;
"""
VERSION_2 = VERSION_1.replace(
    "snapshot TEXT NOT NULL DEFAULT '{}'",
    "snapshot TEXT NOT NULL DEFAULT '{}', enabled INTEGER NOT NULL DEFAULT 0",
).replace("user_version = 1", "user_version = 2")


VERSION_3 = (
    VERSION_2[: VERSION_2.index("CREATE TABLE node")]
    + VERSION_2[VERSION_2.index("CREATE TABLE param") : VERSION_2.index("INSERT INTO node")]
    + VERSION_2[VERSION_2.index("INSERT INTO param") :]
).replace("user_version = 2", "user_version = 3")


@pytest.mark.parametrize("layout", [VERSION_1, VERSION_2, VERSION_3])
def test_the_file_of_an_earlier_version_is_upgraded(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "state.db"
    database = apsw.Connection(str(path))
    database.execute(layout)
    database.close()
    for _ in range(2):
        state = State(path, never)
        (found,) = state.rows()
        assert (found.uuid, found.name, found.enabled) == ("u1", "camera", False)
        assert found.interrupted, "nothing is known of its end"
        assert state.params("u1") == {"a": {"gain": 1.5}}
        state.put(found)
        state.close()
    database = apsw.Connection(str(path))
    tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    database.close()
    assert tables == [("dataflow",), ("param",), ("alerts",), ("assignment",)]


@pytest.mark.parametrize("damage", ["garbage", "half", "version", "json", "shape", "utf8", "other"])
def test_a_file_that_cannot_be_used_is_renamed_and_reported(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    state = State(path, never)
    for number in range(200):
        state.put(row(f"u{number}"))
    state.sync()
    state.close()
    match damage:
        case "garbage":
            path.write_bytes(os.urandom(5000))
        case "half":
            path.write_bytes(path.read_bytes()[:8192] + os.urandom(8192))
        case "version":
            database = apsw.Connection(str(path))
            database.pragma("user_version", 99)
            database.close()
        case "json":
            database = apsw.Connection(str(path))
            database.execute("UPDATE dataflow SET snapshot = '{'")
            database.close()
        case "shape":
            database = apsw.Connection(str(path))
            database.execute("UPDATE dataflow SET options = '[]' WHERE uuid = 'u7'")
            database.close()
        case "utf8":
            data = path.read_bytes()
            path.write_bytes(data.replace(b"/robot/out/u1", b"/robot/out/\xff1"))
        case "other":
            path.unlink()
            database = apsw.Connection(str(path))
            database.execute("CREATE TABLE notes (text)")
            database.close()
    warnings: list[str] = []
    state = State(path, warnings.append)
    assert state.rows() == []
    state.put(row())
    state.close()
    (text,) = warnings
    kept = [entry for entry in tmp_path.glob("state.db.unusable-*") if "-wal" not in entry.name]
    assert kept and kept[0].name in text


def test_when_the_disk_cannot_be_used_that_is_reported_and_the_state_is_in_memory(
    tmp_path: Path,
) -> None:
    spare, warnings = tmp_path / "spare.db", list[str]()
    state = State(Path("/sys/state.db"), warnings.append, spare=spare)
    (text,) = warnings
    assert "/sys/state.db cannot be used" in text
    state.put(row())
    state.close()
    # It survives the daemon.
    again = State(Path("/sys/state.db"), warnings.append, spare=spare)
    assert again.rows() == [row()]
    again.close()

    # It moves to the disk once that can be used.
    disk = tmp_path / "state.db"
    State(disk, never).close()
    for _ in range(2):
        state = State(disk, never, spare=spare)
        assert (state.path, state.rows()) == (disk, [row()])
        state.close()
        assert not list(tmp_path.glob("spare*"))


def test_an_existing_spare_state_is_not_overwritten(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db", never)
    state.put(row())
    copy_to_spare(tmp_path / "state.db", tmp_path / "spare.db")
    state.put(row("later"))
    copy_to_spare(tmp_path / "state.db", tmp_path / "spare.db")
    state.close()
    spare = State(tmp_path / "spare.db", never)
    assert spare.rows() == [row()]
    spare.close()


def test_a_spare_state_that_a_killed_daemon_had_half_copied_is_copied_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, spare = State(tmp_path / "state.db", never), tmp_path / "spare.db"
    state.put(row("old"))
    copy_to_spare(tmp_path / "state.db", spare)
    spare.unlink()  # of the copy before, only the write-ahead log is left
    state.forget(["old"])
    state.put(row())
    state.close()  # which empties the log

    def killed(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", killed)
        with pytest.raises(KeyboardInterrupt):
            copy_to_spare(tmp_path / "state.db", spare)
    copy_to_spare(tmp_path / "state.db", spare)
    again = State(spare, never)
    assert again.rows() == [row()]
    again.close()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"state\.db"):
        State(tmp_path / "missing" / "state.db", never)


def test_values_that_cannot_be_stored_raise_only_state_errors(tmp_path: Path) -> None:
    """Callers handle only StateError."""
    state = State(tmp_path / "state.db", never)
    state.put(row())
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for bad in ({"x": "\ud800"}, {"x": deep}, {"x": object()}):
        with pytest.raises(StateError):
            state.put_snapshot("u1", bad)
    with pytest.raises(StateError):
        state.put(row(name="\ud800"))
    assert state.rows() == [row()]
    state.close()


def fill_up(state: State) -> None:
    """Let the file grow no more, as on a full disk."""
    connection = state._connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").get
    connection.execute(f"PRAGMA max_page_count = {pages}")


LONG = {"restarts": {"a": 1}, "text": "x" * 100_000}


def test_a_disk_that_gets_full_loses_no_change(tmp_path: Path) -> None:
    """So the next daemon adopts nodes that were started while the disk was full."""
    said: list[str] = []
    path, spare = tmp_path / "disk" / "state.db", tmp_path / "run" / "state.db"
    path.parent.mkdir()
    spare.parent.mkdir()
    state = State(path, said.append, spare=spare)
    state.put(row("before"))
    fill_up(state)
    state.put(row("during", snapshot=LONG))
    state.put_snapshot("before", {"restarts": {"a": 7}})
    assert state.path == spare
    assert len(said) == 1
    assert "database or disk is full" in said[0]
    # A daemon that is killed closes nothing.
    again = State(path, said.append, spare=spare)
    assert {each.uuid: each.snapshot for each in again.rows()} == {
        "before": {"restarts": {"a": 7}},
        "during": LONG,
    }
    again.close()


def test_a_block_on_a_disk_that_gets_full_is_stored_as_a_whole(tmp_path: Path) -> None:
    said: list[str] = []
    path, spare = tmp_path / "disk.db", tmp_path / "spare.db"
    state = State(path, said.append, spare=spare)
    state.put(row("old"))
    fill_up(state)
    store = RecordStore(state, said.append)
    with store.atomically():
        store.put(Record(row("first")))
        store.put(Record(row("large", snapshot=LONG)))
        with pytest.raises(RuntimeError), store.atomically():
            store.put(Record(row("never")))
            raise RuntimeError
        store.put(Record(row("last")))
    assert state.path == spare
    assert sorted(each.uuid for each in state.rows()) == ["first", "large", "last", "old"]
    assert len(said) == 1
    state.close()


def test_the_state_moves_to_the_disk_once_there_is_room(tmp_path: Path) -> None:
    said: list[str] = []
    path, spare = tmp_path / "disk.db", tmp_path / "spare.db"
    state = State(path, said.append, spare=spare)
    assert not state.move_back()
    fill_up(state)
    state.put(row("during", snapshot=LONG))
    assert state.path == spare
    assert state.move_back()
    assert state.path == path
    assert not spare.exists()
    state.put(row("after"))
    state.close()
    again = State(path, never, spare=spare)
    assert sorted(each.uuid for each in again.rows()) == ["after", "during"]
    again.close()


def test_a_disk_without_room_keeps_the_state_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, spare = tmp_path / "disk.db", tmp_path / "spare.db"
    state = State(path, lambda _: None, spare=spare)
    fill_up(state)
    state.put(row("during", snapshot=LONG))
    monkeypatch.setattr(database_module, "MIN_ROOM", 1 << 60)
    assert not state.move_back()
    state.put(row("later"))
    assert state.path == spare
    state.close()
