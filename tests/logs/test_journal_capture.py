"""Output of a node in the journal: each line once, through restarts of journald and the daemon."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dorad.dataflow.load import load
from dorad.dataflow.settings import Logging
from dorad.logrecord import LogRecord
from dorad.logs import about, staging
from dorad.logs.capture import Capture
from dorad.logs.dataflowlog import DataflowLog
from dorad.logs.find import Found
from dorad.logs.journal import forward, reader, writer
from dorad.logs.journal.reader import JournalError, JournalPast, arrived
from dorad.logs.journal.sender import own
from dorad.logs.nodelog import NodeLog
from dorad.logs.selection import Selection, select
from dorad.logs.staging import Staging
from tests.harness.waiting import until
from tests.logs.captured import DEADLINE_S, in_files
from tests.logs.journald import Journald

ID = "00000000-0000-4000-8000-000000000000"
YAML = "nodes: [{id: cam, path: a.py}, {id: imu, path: b.py}]"
TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    x\nE: y'


class Robot:
    """A dataflow's log that goes to a journal."""

    def __init__(self, folder: Path, journald: Journald, **logging: object) -> None:
        (folder / "dataflow.yml").write_text(YAML)
        self.shown: list[LogRecord] = []
        self.log = DataflowLog(
            ID,
            load(folder / "dataflow.yml"),
            name="robot",
            watch=self.shown.extend,
            journal=journald.path,
        )
        self.log.begin()
        node = load(folder / "dataflow.yml").node("cam")
        self.node = self.log.node(node)
        assert self.node.journal is not None
        if logging:
            settings = Logging(**logging)
            self.node = NodeLog("cam", settings, self.node.file, self.log._take, self.node.journal)
        out, self.out = os.pipe()
        err, self.err = os.pipe()
        self.memory = staging.create()
        self.capture = Capture(out, err, Staging(self.memory), self.node)

    def close(self) -> None:
        for end in {self.out, self.err} - {-1}:
            os.close(end)
        self.out = self.err = -1

    async def drained(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.capture.drain()
        self.close()

    def end(self) -> None:
        self.close()
        self.capture.finish()
        self.log.end("finished")
        os.close(self.memory)

    @property
    def messages(self) -> list[str]:
        return [record.message for record in self.shown]


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journald]:
    with Journald(tmp_path / "journald") as made:
        monkeypatch.setenv("PATH", f"{made.client.parent}:{os.environ['PATH']}")
        yield made


async def taken(journald: Journald, count: int) -> list[str]:
    await until(lambda: len(journald.messages) >= count)
    return journald.messages


async def test_lines_go_to_the_journal_and_no_file_is_created(
    tmp_path: Path, journald: Journald
) -> None:
    robot = Robot(tmp_path, journald)
    os.write(robot.out, b"one\ntwo\nrest")
    await robot.drained()
    assert journald.messages == ["one", "two", "rest"]
    first, second, _ = journald.entries
    assert (first["DORA_NODE"], first["DORA_DATAFLOW_NAME"]) == ("cam", "robot")
    assert int(second["DORA_SEQ"]) == int(first["DORA_SEQ"]) + 1
    assert robot.messages == ["one", "two", "rest"]
    assert in_files(robot.log.folder) == []
    robot.end()
    found = about.read(robot.log.folder)
    assert found is not None and found.journal


async def test_a_traceback_that_arrives_in_pieces_is_one_entry(
    tmp_path: Path, journald: Journald
) -> None:
    robot = Robot(tmp_path, journald)
    for line in f"before\n{TRACEBACK}\nafter\n".splitlines(keepends=True):
        os.write(robot.err, line.encode())
        await asyncio.sleep(0)
    assert await taken(journald, 3) == ["before", TRACEBACK, "after"]
    assert robot.messages == ["before", *TRACEBACK.split("\n"), "after"]
    assert list(robot.capture.tail) == robot.messages
    robot.end()


async def test_waiting_for_the_rest_of_a_traceback_has_a_deadline(
    tmp_path: Path, journald: Journald
) -> None:
    robot = Robot(tmp_path, journald)
    half = TRACEBACK.rpartition("\n")[0]
    os.write(robot.err, half.encode() + b"\n")
    assert await taken(journald, 1) == [half]
    robot.end()


async def test_a_full_journal_blocks_only_the_node_that_prints(
    tmp_path: Path, journald: Journald
) -> None:
    robot = Robot(tmp_path, journald)
    lines = [f"line {number}" for number in range(3000)]
    os.write(robot.out, "".join(f"{line}\n" for line in lines).encode())
    for _ in range(20):
        await asyncio.sleep(0)  # the journal takes nothing: it is full soon
    assert len(robot.shown) < len(lines)
    assert await taken(journald, len(lines)) == lines
    assert robot.messages == lines
    robot.end()


async def test_the_last_lines_of_a_node_wait_for_the_journal_too(
    tmp_path: Path, journald: Journald
) -> None:
    robot = Robot(tmp_path, journald)
    lines = [f"line {number}" for number in range(3000)]
    os.write(robot.out, "\n".join(lines).encode())
    draining = asyncio.create_task(robot.drained())
    assert await taken(journald, len(lines)) == lines
    await draining
    assert robot.messages == lines
    robot.end()


async def test_finishing_without_waiting_writes_entries_that_the_journal_refuses_to_the_file(
    tmp_path: Path, journald: Journald
) -> None:
    robot = Robot(tmp_path, journald)
    lines = [f"line {number}" for number in range(3000)]
    os.write(robot.out, "\n".join(lines).encode())
    for _ in range(20):
        await asyncio.sleep(0)
    robot.capture.finish()
    spared = [record.message for record in in_files(robot.log.folder)]
    assert spared
    assert journald.messages + spared == lines
    robot.end()


async def test_lines_go_to_files_while_there_is_no_journal(
    tmp_path: Path, journald: Journald, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(writer, "RETRY_S", 0.1)
    robot = Robot(tmp_path, journald)
    os.write(robot.out, b"one\n")
    await taken(journald, 1)
    journald.stop()
    os.write(robot.out, b"two\n")
    await until(lambda: "two" in robot.messages)
    assert "the journal takes no lines" in " ".join(robot.messages)
    assert [record.message for record in in_files(robot.log.folder)] == ["two"]
    with Journald(tmp_path / "journald") as again:
        count = 2
        async with asyncio.timeout(DEADLINE_S):
            while "the journal takes lines again" not in again.messages:
                os.write(robot.out, b"more\n")
                count += 1
                await asyncio.sleep(0.05)
        assert "more" in again.messages
        again.entries[:0] = journald.entries
        again.take()
        await robot.drained()
        with robot.log.history(select(["cam"])) as history:
            read = [r.message for block in history.blocks() for r in block.records if r.node]
        assert read == ["one", "two"] + ["more"] * (count - 2)
    robot.end()


async def test_a_node_that_never_stops_printing_fills_its_share_and_continues_in_files(
    tmp_path: Path, journald: Journald, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "share", lambda: 2000)
    robot = Robot(tmp_path, journald)
    written = []
    for number in range(6):
        written.append(f"line {number}")
        os.write(robot.out, f"{written[-1]}\n".encode())
        await until(lambda: written[-1] in robot.messages)
    *lines, output = [m for m in journald.messages if m]
    assert lines == ["line 0", "line 1", "line 2"]
    assert output.startswith("has filled its share of the journal")
    assert [record.message for record in in_files(robot.log.folder)] == [
        "line 3",
        "line 4",
        "line 5",
    ]
    robot.end()


def test_a_used_up_share_refills_slowly() -> None:
    now = 0.0
    share = forward.Budget(86400, clock=lambda: now)
    for _ in range(2):
        share.take(86400 - forward.ENTRY_BYTES)
        assert not share.allows()
        now += 8639
        assert not share.allows()
        now += 1
        assert share.allows()
        now += 1e6
        assert share.allows()


@pytest.mark.parametrize(
    ("disk", "expected"), [(1 << 40, 1 << 30), (20 << 30, 512 << 20), (1 << 20, 32 << 20)]
)
def test_a_share_is_a_quarter_of_the_journal(disk: int, expected: int) -> None:
    assert forward.share_of(disk) == expected


async def test_a_large_entry_is_sent_as_a_memfd(tmp_path: Path, journald: Journald) -> None:
    robot = Robot(tmp_path, journald)
    large = "x" * 20_000_000
    robot.log.report("warn", None, large)
    assert journald.messages == [large]
    assert journald.memories == 1
    robot.end()


async def test_min_log_level_holds_for_the_journal(tmp_path: Path, journald: Journald) -> None:
    robot = Robot(tmp_path, journald, min_log_level="warn")
    os.write(robot.out, b"INFO:a:one\nWARNING:a:two\nINFO:a:three\n")
    await robot.drained()
    assert journald.messages == ["two"]
    robot.end()


async def test_the_history_ends_where_following_begins(tmp_path: Path, journald: Journald) -> None:
    robot = Robot(tmp_path, journald)
    os.write(robot.out, b"one\n")
    robot.log.report("info", None, "output one")
    await taken(journald, 2)
    history, follower = robot.log.follow(Selection())
    os.write(robot.out, b"two\n")
    os.write(robot.err, b"error\n")
    robot.log.report("info", "imu", "output two")
    await taken(journald, 5)
    with history:
        assert {r.message for block in history.blocks() for r in block.records} == {
            "one",
            "output one",
        }
    with robot.log.history(Selection()) as history:
        last = [[r.message for r in block.records] for block in history.blocks(2)]
        assert len(last[0]) == 2
    robot.end()
    live = {record.message async for lines in follower for record in lines.records}
    assert live == {"two", "error", "output two"}


async def test_the_last_lines_of_a_node_are_known_to_the_next_daemon(
    tmp_path: Path, journald: Journald
) -> None:
    robot = Robot(tmp_path, journald)
    os.write(robot.err, f"{TRACEBACK}\nlast\n".encode())
    await robot.drained()
    journald.take()
    robot.node.journal.settle(Staging(robot.memory).stderr, "stderr")
    assert robot.node.last_errors(2) == ["E: y", "last"]
    robot.end()


@pytest.mark.parametrize("trusted", [{"_UID": "4242"}, {}])
async def test_entries_of_other_users_are_not_lines_of_the_dataflow(
    tmp_path: Path, journald: Journald, trusted: dict[str, str]
) -> None:
    robot = Robot(tmp_path, journald)
    os.write(robot.out, b"true\n")
    await taken(journald, 1)
    entry = {key: value for key, value in journald.entries[0].items() if key != "_UID"}
    journald.entries.insert(0, entry | {"MESSAGE": "forged", "DORA_SEQ": "7"} | trusted)
    journald.take()
    with robot.log.history(Selection()) as history:
        assert [r.message for block in history.blocks() for r in block.records] == ["true"]
    found = Found.at(robot.log.folder)
    assert found.sender == own()
    past = JournalPast(ID, Selection(), found.sender)
    assert [record.message for record in past.forwards()] == ["true"]
    assert arrived(ID, "cam", "stdout", int(entry["DORA_SEQ"]))
    assert not arrived(ID, "cam", "stdout", 7)
    robot.end()


async def test_a_node_s_own_unit_cannot_speak_for_the_daemon_s(
    tmp_path: Path, journald: Journald
) -> None:
    """Where a node runs as the daemon's user."""
    robot = Robot(tmp_path, journald)
    os.write(robot.out, b"true\n")
    await taken(journald, 1)
    for entry, unit in ((0, "dorad.service"), (1, "dorad-robot-cam-1.service")):
        journald.entries.append(
            journald.entries[0] | {"MESSAGE": unit, "_SYSTEMD_UNIT": unit, "DORA_SEQ": str(entry)}
        )
    journald.take()
    past = JournalPast(ID, Selection(), own()._replace(unit="dorad.service"))
    assert [record.message for record in past.forwards()] == ["dorad.service"]
    robot.end()


@pytest.mark.parametrize(
    "odd",
    [
        {"DORA_TIME": "9" * 400},
        {"DORA_TIME": "9" * 5000},
        {"DORA_TIME": "9" * 19},
        {"DORA_TIME": "²"},
        {"DORA_SEQ": "9" * 400},
        {"DORA_STREAM": "other"},
        {"DORA_LEVEL": "loud"},
    ],
)
async def test_a_malformed_entry_is_skipped_and_counted_and_reading_continues(
    tmp_path: Path, journald: Journald, odd: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    robot = Robot(tmp_path, journald)
    os.write(robot.out, b"one\ntwo\n")
    await taken(journald, 2)
    journald.entries.insert(1, journald.entries[0] | odd)
    journald.take()
    for direction in ("forwards", "backwards"):
        past = JournalPast(ID, Selection(), own())
        read = {record.message for record in getattr(past, direction)()}
        assert read == {"one", "two"}
        assert past.skipped == 1
    assert "skipped an entry of the journal" in caplog.text
    robot.end()


async def test_the_journal_is_read_for_last_lines_only_when_a_node_has_failed(
    tmp_path: Path, journald: Journald, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = Robot(tmp_path, journald)
    os.write(robot.err, b"output to the first daemon\n")
    await taken(journald, 1)
    await robot.drained()
    asked: list[int] = []
    last_errors = NodeLog.last_errors
    monkeypatch.setattr(
        NodeLog,
        "last_errors",
        lambda *arguments: (asked.append(1), last_errors(*arguments))[1],
    )
    out, gone = os.pipe()
    err, output = os.pipe()
    next_capture = Capture(out, err, Staging(robot.memory), robot.node, adopted=True)
    os.write(output, b"output to the second\n")
    for end in (gone, output):
        os.close(end)
    await next_capture.drain()
    assert not asked
    await next_capture.recall()
    await next_capture.recall()
    assert list(next_capture.tail) == ["output to the first daemon", "output to the second"]
    assert len(asked) == 1
    next_capture.finish()
    robot.end()


def test_a_failing_journal_reader_is_an_error_with_its_reason(tmp_path: Path) -> None:
    program = (sys.executable, "-c", "import sys; sys.exit('no such boot')")
    past = JournalPast(ID, Selection(), own(), program=program)
    with pytest.raises(JournalError, match="the journal cannot be read: no such boot"):
        list(past.forwards())
    gone = JournalPast(ID, Selection(), own(), program=(str(tmp_path / "none"),))
    with pytest.raises(JournalError, match="cannot be run: No such file"):
        list(gone.forwards())


def test_a_silent_journal_reader_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(reader, "SYNC_S", 0.1)
    program = (sys.executable, "-c", "import signal; signal.pause()")
    past = JournalPast(ID, Selection(), own(), program=program)
    with pytest.raises(JournalError, match="no answer"):
        list(past.forwards())


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_kill_at_any_line_of_code_leaves_each_line_once_in_the_journal(tmp_path: Path) -> None:
    """Between pipe and journal, at every line of code."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.logs.dying", str(tmp_path), "journal"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
