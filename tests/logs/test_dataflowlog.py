"""The log of one dataflow: its folder and its followers."""

import asyncio
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from dorad.dataflow.load import load
from dorad.logrecord import LogRecord
from dorad.logs.dataflowlog import DataflowLog
from dorad.logs.hub import Follower
from dorad.logs.nodelog import NodeLog
from dorad.logs.selection import Selection, select
from tests.logs.captured import in_files

ID = "00000000-0000-4000-8000-000000000000"
YAML = "nodes: [{id: cam, path: a.py}, {id: imu, path: b.py, max_log_size: 1KB}]"


def made(folder: Path, **options: object) -> DataflowLog:
    (folder / "dataflow.yml").write_text(YAML)
    return DataflowLog(ID, load(folder / "dataflow.yml"), **options)


def node_log(log: DataflowLog, folder: Path, node: str) -> NodeLog:
    return log.node(load(folder / "dataflow.yml").node(node))


def about(log: DataflowLog) -> dict[str, object]:
    return dict(json.loads((log.folder / "dataflow.json").read_text()))


async def texts(follower: Follower) -> list[str]:
    return [record.message async for lines in follower for record in lines.records]


async def test_the_folder_describes_its_run_and_how_it_ended(tmp_path: Path) -> None:
    log = made(tmp_path, name="robot")
    log.begin()
    begun = about(log)
    assert (begun["uuid"], begun["name"], begun["status"]) == (ID, "robot", "running")
    assert (begun["nodes"], begun["ended_at"]) == (["cam", "imu"], None)
    assert begun["path"] == str(tmp_path / "dataflow.yml")
    log.end("failed")
    ended = about(log)
    assert ended["status"] == "failed"
    assert isinstance(ended["ended_at"], float)
    assert sorted(path.name for path in log.folder.parent.iterdir()) == [ID, ".gitignore"][::-1]


async def test_an_adopting_daemon_keeps_the_start_time(tmp_path: Path) -> None:
    log = made(tmp_path, started_at=12.5)
    log.begin()
    log.close()
    assert (about(log)["started_at"], about(log)["status"]) == (12.5, "running")


async def test_lines_of_the_daemon_have_a_separate_file(tmp_path: Path) -> None:
    seen: list[LogRecord] = []
    log = made(tmp_path, watch=seen.extend)
    log.report("warn", "cam", "did not end within 10 s")
    log.report("info", None, "ready")
    log.close()
    written = in_files(log.folder, "dora")
    assert [(r.node, r.level, r.message) for r in written] == [
        ("cam", "warn", "did not end within 10 s"),
        (None, "info", "ready"),
    ]
    assert [record.message for record in seen] == ["did not end within 10 s", "ready"]


async def test_a_follower_continues_exactly_where_the_history_ends(tmp_path: Path) -> None:
    log = made(tmp_path)
    log.report("info", None, "1")
    history, follower = log.follow(Selection())
    log.report("info", None, "2")
    log.end("finished")
    with history:
        assert [r.message for block in history.blocks() for r in block.records] == ["1"]
    assert await texts(follower) == ["2"]
    follower.close()


async def test_a_node_has_one_log_whose_settings_may_change(tmp_path: Path) -> None:
    log = made(tmp_path)
    node = load(tmp_path / "dataflow.yml").node("cam")
    first = log.node(node)
    assert log.node(node) is first
    other = log.node(replace(node, logging=replace(node.logging, max_log_size=5)))
    assert other is not first
    assert other.file.max_size == 5
    log.close()


async def test_added_and_removed_nodes_are_in_the_description(tmp_path: Path) -> None:
    log = made(tmp_path)
    log.begin()
    (tmp_path / "dataflow.yml").write_text("nodes: [{id: cam, path: a.py}, {id: new, path: c.py}]")
    log.update(load(tmp_path / "dataflow.yml"))
    assert about(log)["nodes"] == ["cam", "new"]
    assert log.nodes == ["cam", "imu", "new"]
    log.close()


async def test_daemons_that_share_a_folder_describe_its_run_at_the_same_time(
    tmp_path: Path,
) -> None:
    logs = [made(tmp_path), made(tmp_path)]
    flow = load(tmp_path / "dataflow.yml")
    for log in logs:
        log.begin()
    changes = [
        asyncio.to_thread(lambda log=log: [log.update(flow) for _ in range(200)]) for log in logs
    ]
    await asyncio.gather(*changes)
    assert [log.trouble.text for log in logs] == [None, None]
    assert [path.name for path in logs[0].folder.iterdir()] == ["dataflow.json"]


async def test_a_folder_that_cannot_be_created_is_reported_and_has_no_other_effect(
    tmp_path: Path,
) -> None:
    seen: list[LogRecord] = []
    log = made(tmp_path, watch=seen.extend)
    (tmp_path / "out").write_text("in the way")
    log.begin()
    log.report("info", None, "still there")
    log.end("finished")
    assert [record.level for record in seen] == ["error", "info", "error"]
    assert "log files are not written" in seen[0].message
    assert "1 line is missing" in seen[2].message
    assert log.trouble.text is not None


def test_an_invalid_disk_limit_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DORA_LOG_DISK_LIMIT", "much")
    with pytest.raises(ValueError, match="DORA_LOG_DISK_LIMIT"):
        made(tmp_path)


async def test_a_node_that_prints_without_end_keeps_below_the_limit_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DORA_LOG_DISK_LIMIT", "1MB")
    log = made(tmp_path)
    log.begin()
    file = node_log(log, tmp_path, "cam").file
    for _ in range(500):
        file.write(b"x" * 9_999 + b"\n", 1)
    log.end("finished")
    kept = [path.stat().st_size for path in log.folder.glob("log_cam*")]
    assert len(kept) == 6
    assert sum(kept) < 1 << 20


async def test_following_one_node_shows_its_lines_and_those_of_the_daemon_about_it(
    tmp_path: Path,
) -> None:
    log = made(tmp_path)
    history, follower = log.follow(select(["cam"]))
    history.close()
    log.report("info", "imu", "about the other")
    log.report("info", "cam", "about it")
    log.end("finished")
    assert await texts(follower) == ["about it"]
