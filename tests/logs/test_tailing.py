"""Following files that another process writes and rotates."""

from pathlib import Path

from dorad.logs.history import History
from dorad.logs.logfile import LogFile, Trouble
from dorad.logs.selection import Selection, select
from dorad.logs.tailing import Tailing
from tests.logs.written import append, encode, record


def texts(tailing: Tailing, *nodes: str) -> list[str]:
    return [record.message for record in tailing.read(nodes)]


def test_following_continues_where_the_history_ended(tmp_path: Path) -> None:
    path = tmp_path / "log_a.jsonl"
    append(path, record("a", 1, "old"))
    with History(tmp_path, ["a"], Selection()) as history, Tailing(tmp_path, history) as tailing:
        assert texts(tailing, "a") == []
        append(path, record("a", 2, "new"))
        assert texts(tailing, "a") == ["new"]
        assert texts(tailing, "a") == []


def test_later_nodes_and_the_daemon_are_followed_too(tmp_path: Path) -> None:
    with History(tmp_path, ["a"], Selection()) as history, Tailing(tmp_path, history) as tailing:
        append(tmp_path / "log_b.jsonl", record("b", 2, "of b"))
        append(tmp_path / "log_a.jsonl", record("a", 1, "of a"))
        append(tmp_path / "log_dora.jsonl", record(None, 3, "ours"))
        assert texts(tailing, "a", "b") == ["of a", "of b", "ours"]


def test_only_selected_lines_are_followed(tmp_path: Path) -> None:
    wanted = select(["a"], level="warn")
    with History(tmp_path, ["a"], wanted) as history, Tailing(tmp_path, history) as tailing:
        append(tmp_path / "log_b.jsonl", record("b", 1, "of b", "error"))
        append(tmp_path / "log_a.jsonl", record("a", 1, "chatter"), record("a", 1, "bad", "error"))
        assert texts(tailing, "a", "b") == ["bad"]


def test_an_unfinished_line_is_delivered_once_complete(tmp_path: Path) -> None:
    line = encode([record("a", 1, "whole")])[0]
    with History(tmp_path, ["a"], Selection()) as history, Tailing(tmp_path, history) as tailing:
        with (tmp_path / "log_a.jsonl").open("ab", buffering=0) as file:
            file.write(line[:20])
            assert texts(tailing, "a") == []
            file.write(line[20:])
            assert texts(tailing, "a") == ["whole"]


def test_rotation_loses_and_doubles_nothing(tmp_path: Path) -> None:
    file = LogFile(tmp_path, "a", Trouble(lambda *_: None), max_size=300, max_rotated=5)
    seen: list[str] = []
    with History(tmp_path, ["a"], Selection()) as history, Tailing(tmp_path, history) as tailing:
        for number in range(200):
            file.write(encode([record("a", number, str(number))])[0], 1)
            if number % 7 == 0:
                seen += texts(tailing, "a")
        seen += texts(tailing, "a")
    file.close()
    assert seen == [str(number) for number in range(200)]


def test_deleted_files_are_a_gap_in_following(tmp_path: Path) -> None:
    file = LogFile(tmp_path, "a", Trouble(lambda *_: None), max_size=1, max_rotated=1)
    with History(tmp_path, ["a"], Selection()) as history, Tailing(tmp_path, history) as tailing:
        for number in range(10):
            file.write(encode([record("a", number, str(number))])[0], 1)
        assert texts(tailing, "a") == ["8", "9"]
    file.close()
