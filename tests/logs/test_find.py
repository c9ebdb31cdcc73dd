"""Finding the logs of a dataflow below a folder."""

import os
from pathlib import Path

import pytest

from dorad.logs import about
from dorad.logs.find import NoLogsError, find
from tests.logs.written import append, record

FIRST = "11111111-0000-4000-8000-000000000000"
SECOND = "12222222-0000-4000-8000-000000000000"
THIRD = "13333333-0000-4000-8000-000000000000"


def run(out: Path, uuid: str, name: str | None, at: float, **more: object) -> None:
    known = about.About(
        uuid=uuid,
        name=name,
        path="/d.yml",
        nodes=("b", "a"),
        started_at=at,
        **more,
    )
    about.write(out / uuid, known)
    append(out / uuid / "log_a.jsonl", record("a", at, "x"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    run(tmp_path, FIRST, "robot", 1.0, ended_at=2.0)
    run(tmp_path, SECOND, "robot", 3.0, ended_at=4.0)
    run(tmp_path, THIRD, None, 2.0, ended_at=4.0)
    (tmp_path / "other").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "uuid", "others"),
    [
        ("robot", SECOND, 1),
        (FIRST, FIRST, 0),
        (FIRST[:4], FIRST, 0),
        (THIRD, THIRD, 0),
        (None, SECOND, 2),
    ],
)
def test_the_newest_run_of_that_name_is_found(
    out: Path, wanted: str | None, uuid: str, others: int
) -> None:
    found = find(out, wanted)
    assert (found.folder.name, found.others) == (uuid, others)
    assert found.nodes == ["b", "a"]


def test_an_unknown_run_is_an_error_that_lists_the_known_ones(out: Path) -> None:
    with pytest.raises(NoLogsError) as caught:
        find(out, "nosuch")
    assert str(caught.value).endswith(f"there are: robot, {THIRD}")


def test_an_ambiguous_prefix_is_an_error(out: Path) -> None:
    run(out, FIRST[:-1] + "1", None, 9.0)
    with pytest.raises(NoLogsError, match="several UUIDs"):
        find(out, FIRST[:8])


def test_without_logs_the_error_explains_which_commands_write_them(tmp_path: Path) -> None:
    with pytest.raises(NoLogsError, match="dora run"):
        find(tmp_path / "out", None)


def test_a_folder_without_a_description_is_dated_by_its_files(out: Path) -> None:
    """As dora's own folders."""
    append(out / "unknown" / "log_n.jsonl", record("n", 1, "x"))
    append(out / "unknown" / "log_n.1.jsonl", record("n", 1, "x"))
    found = find(out, "unknown")
    assert (found.nodes, found.title, found.running) == (["n"], "unknown", False)
    (out / "unknown" / about.ABOUT).write_bytes(b"{nonsense")
    assert find(out, "unknown").about is None


def test_a_run_counts_as_running_while_its_writer_is_alive_and_has_not_recorded_its_end(
    out: Path,
) -> None:
    run(out, "live", "live", 10.0, pid=os.getpid(), pid_started=about.own_start())
    run(out, "dead", "dead", 10.0, pid=os.getpid(), pid_started=about.own_start() - 1)
    assert find(out, "live").running
    assert not find(out, "dead").running
    assert not find(out, "robot").running
