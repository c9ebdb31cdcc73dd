"""Reading log files."""

import os
from pathlib import Path

import pytest

from dorad.logs.filter import LogFilter
from dorad.logs.history import BLOCK, BLOCK_CHARACTERS, TAIL_CHARACTERS, History
from dorad.logs.selection import Selection, select
from tests.logs.written import WHEN, append, numbered, record


def read(
    folder: Path, *nodes: str, tail: int | None = None, wanted: Selection | None = None
) -> list[str]:
    with History(folder, nodes, wanted or Selection()) as history:
        return [record.message for block in history.blocks(tail) for record in block.records]


def test_nodes_are_merged_by_time(tmp_path: Path) -> None:
    append(tmp_path / "log_a.jsonl", record("a", 1, "1"), record("a", 4, "4"))
    append(tmp_path / "log_b.jsonl", record("b", 2, "2"), record("b", 3, "3"))
    append(tmp_path / "log_dora.jsonl", record(None, 2.5, "2.5"))
    assert read(tmp_path, "a", "b") == ["1", "2", "2.5", "3", "4"]
    assert read(tmp_path, "a", "b", tail=3) == ["2.5", "3", "4"]
    assert read(tmp_path, "a", "b", tail=0) == []


def test_rotated_files_come_first_the_oldest_before_all(tmp_path: Path) -> None:
    append(tmp_path / "log_a.2.jsonl", record("a", 1, "1"))
    append(tmp_path / "log_a.1.jsonl", record("a", 2, "2"))
    append(tmp_path / "log_a.jsonl", record("a", 3, "3"))
    assert read(tmp_path, "a") == ["1", "2", "3"]
    assert read(tmp_path, "a", tail=2) == ["2", "3"]


def test_a_node_named_like_a_rotated_file_is_another_node(tmp_path: Path) -> None:
    append(tmp_path / "log_a.jsonl", record("a", 1, "of a"))
    append(tmp_path / "log_a.1.jsonl", record("a.1", 2, "of a.1"))
    wanted = Selection(nodes=frozenset(["a"]))
    assert read(tmp_path, "a", "a.1", wanted=wanted) == ["of a"]
    assert read(tmp_path, "a", "a.1") == ["of a", "of a.1"]


def test_lines_of_a_node_stay_in_order_whatever_their_times(tmp_path: Path) -> None:
    append(
        tmp_path / "log_a.jsonl",
        record("a", 5, "first"),
        record("a", 1, "second"),
        record("a", 6, "third"),
    )
    append(tmp_path / "log_b.jsonl", record("b", 3, "b"))
    assert read(tmp_path, "a", "b") == ["b", "first", "second", "third"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (select(["b"]), ["bad", "about b"]),
        (select(["dora"]), ["ours"]),
        (select(level="warn"), ["bad", "about b"]),
        (select(level="error", by_node={"a": "stdout"}), ["Hello", "bad"]),
        (select(grep="HELL"), ["Hello"]),
        (select(since=WHEN + 3), ["about b", "ours"]),
        (select(until=WHEN + 2), ["Hello", "bad"]),
        (Selection(stream="stderr", shown=LogFilter()), ["bad"]),
    ],
)
@pytest.mark.parametrize("tail", [None, 10])
def test_only_selected_lines_are_read(
    tmp_path: Path, wanted: Selection, found: list[str], tail: int | None
) -> None:
    append(tmp_path / "log_a.jsonl", record("a", 1, "Hello"))
    append(tmp_path / "log_b.jsonl", record("b", 2, "bad", "error", "stderr"))
    append(tmp_path / "log_dora.jsonl", record("b", 3, "about b", "warn"), record(None, 4, "ours"))
    assert read(tmp_path, "a", "b", wanted=wanted, tail=tail) == found


def test_foreign_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log_a.jsonl"
    append(path, record("a", 1, "1"))
    with path.open("ab") as file:
        file.write(b'{"ts":"2026\n\n\xff\n')
    append(path, record("a", 2, "2"))
    with path.open("ab") as file:
        file.write(b'{"ts":"half')
    assert read(tmp_path, "a") == ["1", "2"]
    assert read(tmp_path, "a", tail=5) == ["1", "2"]


def test_long_files_are_read_in_blocks_from_both_ends(tmp_path: Path) -> None:
    texts = [f"a {number}" for number in range(20_000)]
    append(tmp_path / "log_a.jsonl", *numbered("a", range(20_000), 0.001))
    append(tmp_path / "log_a.jsonl", record("a", 30, "x" * 600_000), record("a", 31, "end"))
    assert read(tmp_path, "a") == [*texts, "x" * 600_000, "end"]
    assert read(tmp_path, "a", tail=3) == [texts[-1], "x" * 600_000, "end"]
    with History(tmp_path, ["a"], Selection()) as history:
        assert {len(block.records) for block in history.blocks()} == {BLOCK, 2}


def test_long_lines_are_read_in_smaller_blocks_and_few_are_the_newest(tmp_path: Path) -> None:
    text = "x" * (BLOCK_CHARACTERS // 4)
    count = TAIL_CHARACTERS // len(text) + 3
    written = [record("a", number, text) for number in range(count)]
    append(tmp_path / "log_a.jsonl", *written)
    with History(tmp_path, ["a"], Selection()) as history:
        assert max(len(block.records) for block in history.blocks()) == 4
        newest = list(history.blocks(count - 1))
    assert [block.left_out for block in newest] == [2, *[0] * (len(newest) - 1)]
    kept = [each for block in newest for each in block.records]
    assert (len(kept), kept[-1]) == (count - 3, written[-1])


def test_lines_written_later_are_not_part_of_the_history(tmp_path: Path) -> None:
    path = tmp_path / "log_a.jsonl"
    append(path, record("a", 1, "1"))
    with History(tmp_path, ["a"], Selection()) as history:
        append(path, record("a", 2, "2"))
        path.rename(tmp_path / "log_a.1.jsonl")
        append(path, record("a", 3, "3"))
        assert [r.message for block in history.blocks() for r in block.records] == ["1"]


def test_files_rotated_while_they_are_opened_are_read_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log_a.jsonl"
    append(path, record("a", 1, "1"))
    append(tmp_path / "log_a.1.jsonl", record("a", 0, "0"))
    opened: list[str] = []
    original = os.open

    def opening(name: os.PathLike[str], *arguments: int) -> int:
        descriptor = original(name, *arguments)
        if not opened:
            (tmp_path / "log_a.1.jsonl").rename(tmp_path / "log_a.2.jsonl")
            path.rename(tmp_path / "log_a.1.jsonl")
        opened.append(os.fspath(name))
        return descriptor

    monkeypatch.setattr(os, "open", opening)
    assert read(tmp_path, "a") == ["0", "1"]


def test_no_files_are_an_empty_history(tmp_path: Path) -> None:
    assert read(tmp_path / "none", "a") == []
