"""Reading logs for a client of the control API."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dorad.control.errors import ControlError
from dorad.control.logposition import LogPosition
from dorad.control.messages import LogRead
from dorad.daemon.logreads import FRAME, read_logs
from dorad.dataflow.load import load
from dorad.logs.dataflowlog import DataflowLog
from dorad.logs.paths import log_folder
from tests.logs.written import append, numbered, record

ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dataflow.yml").write_text("nodes: [{id: a, path: a.py}, {id: b, path: b.py}]")
    return log_folder(tmp_path, ID)


def running(folder: Path) -> DataflowLog:
    return DataflowLog(ID, load(folder.parents[1] / "dataflow.yml"))


async def read(folder: Path, log: DataflowLog | None, **wanted: Any) -> list[str]:
    async with asyncio.timeout(30):
        return [
            line.message
            async for lines in read_logs(LogRead(**wanted), ID, folder, log)
            for line in lines.lines
        ]


async def test_an_ended_dataflow_is_read_from_its_files(folder: Path) -> None:
    append(folder / "log_a.jsonl", record("a", 1, "1"), record("a", 3, "3", "error"))
    append(folder / "log_b.jsonl", record("b", 2, "2"))
    assert await read(folder, None) == ["1", "2", "3"]
    assert await read(folder, None, tail=2) == ["2", "3"]
    assert await read(folder, None, nodes=["b"]) == ["2"]
    assert await read(folder, None, level="error") == ["3"]
    assert await read(folder, None, by_node={"a": "error"}) == ["2", "3"]
    assert await read(folder, None, follow=True) == ["1", "2", "3"]


async def test_following_ends_with_the_dataflow(folder: Path) -> None:
    log = running(folder)
    log.report("info", None, "before")
    reading = asyncio.create_task(read(folder, log, follow=True))
    await asyncio.sleep(0)
    log.report("info", None, "during")
    log.end("finished")
    assert await reading == ["before", "during"]


async def test_a_reader_who_comes_back_knows_the_stored_lines_that_it_has_seen_live(
    folder: Path,
) -> None:
    log = running(folder)
    position = LogPosition()
    stream = read_logs(LogRead(follow=True), ID, folder, log)
    reading = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    for number in range(20):  # times have microseconds, files keep milliseconds
        log.report("info", None, f"{number}")
    seen = position.take((await reading).lines)
    while len(seen) < 20:
        seen += position.take((await anext(stream)).lines)
    await stream.aclose()
    log.report("info", None, "meanwhile")
    since = position.resume()
    again = [
        each
        async for lines in read_logs(LogRead(since=since), ID, folder, log)
        for each in position.take(lines.lines)
    ]
    assert [each.message for each in again] == ["meanwhile"]
    log.close()


async def test_without_follow_a_running_dataflow_is_read_up_to_now(folder: Path) -> None:
    log = running(folder)
    assert await read(folder, log) == []
    log.report("info", None, "expected")
    assert await read(folder, log) == ["expected"]
    log.close()


async def test_large_messages_come_in_separate_frames(folder: Path) -> None:
    big = "x" * (FRAME // 2 + 1)
    append(folder / "log_a.jsonl", *(record("a", at, big) for at in range(3)))
    append(folder / "log_b.jsonl", *numbered("b", range(10, 1010)))
    frames = [
        [len(line.message) for line in lines.lines]
        async for lines in read_logs(LogRead(), ID, folder, None)
    ]
    assert all(sum(sizes) <= FRAME and len(sizes) <= 500 for sizes in frames)
    assert sum(len(sizes) for sizes in frames) == 1003


@pytest.mark.parametrize(
    ("wanted", "code", "message"),
    [
        ({"nodes": ["nosuch"]}, "not-found", "there are: a, b"),
        ({"level": "loud"}, "bad-request", "log level"),
        ({"by_node": {"a": "loud"}}, "bad-request", "log level"),
        ({"tail": -1}, "bad-request", "tail"),
    ],
)
async def test_invalid_requests_are_refused(
    folder: Path, wanted: dict[str, Any], code: str, message: str
) -> None:
    log = running(folder)
    with pytest.raises(ControlError, match=message) as caught:
        await read(folder, log, **wanted)
    assert caught.value.code == code
    log.close()


async def test_missing_files_are_an_error(folder: Path) -> None:
    with pytest.raises(ControlError, match="no longer exist"):
        await read(folder, None)


async def test_following_ends_with_the_client(folder: Path) -> None:
    log = running(folder)
    stream = read_logs(LogRead(follow=True), ID, folder, log)
    log.report("info", None, "x")
    assert (await anext(stream)).lines[0].message == "x"
    await stream.aclose()
    assert log.hub._followers == set()
    log.close()
