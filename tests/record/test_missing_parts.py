"""A part of a recording that is not there, though those around it are, is named by each tool."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.cli.main import run_command
from dorad.cli.record_options import LOSSY
from dorad.record.box.ring import segment_name
from dorad.record.edit import merge
from dorad.record.mcap.reader import RecordingReader
from dorad.record.sources import Part, missing_parts
from tests.record.files import START, numbers, write

PARTS = 6
PER_PART = 5


def part(folder: Path, number: int, name: str = "day_{:04}.mcap") -> Path:
    """Write one part of a recording: five messages, 10 ms apart."""
    lines = numbers(PARTS * PER_PART)[(number - 1) * PER_PART : number * PER_PART]
    return write(folder / name.format(number), lines, first_part="1", part=str(number))


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parts 1, 2, 4 and 5 of a recording."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for number in (1, 2, 4, 5):
        part(tmp_path, number)
    return tmp_path


SAID = (
    r"day_0004.mcap is damaged: missing an unknown number of messages of unknown topics, "
    r".*090 to .*150: part 3 of the recording is not there"
)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("record list", LOSSY),
        ("record merge day_0001.mcap day_0002.mcap day_0004.mcap -o all.mcap", LOSSY),
        ("record merge day_0004.mcap day_0002.mcap -o all.mcap", LOSSY),
        ("record export day_0002.mcap day_0004.mcap --to lerobot -o all", LOSSY),
        ("replay day_0001.mcap day_0002.mcap day_0004.mcap --assert", 1),
    ],
)
def test_each_tool_names_the_part_with_its_exit_code(
    day: Path, command: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(command.split()) == code
    out, err = capsys.readouterr()
    assert re.search(SAID, err), out + err


@pytest.mark.parametrize(
    "command",
    [
        "record merge day_0001.mcap day_0002.mcap -o all.mcap",
        "record merge day_0005.mcap day_0004.mcap -o all.mcap",
        "record merge day_0004.mcap day_0004.mcap -o all.mcap",
    ],
)
def test_parts_that_follow_each_other_lack_nothing(day: Path, command: str) -> None:
    assert run_command(command.split()) == 0


def test_what_was_merged_without_a_part_is_not_complete_and_has_no_number(day: Path) -> None:
    merge([day / "day_0002.mcap", day / "day_0004.mcap"], day / "some.mcap")
    with RecordingReader(day / "some.mcap") as reader:
        assert reader.status == "INCOMPLETE"
    again = merge([day / "some.mcap", day / "day_0005.mcap"], day / "more.mcap")
    assert not again.missing


def test_an_incident_says_how_many_of_its_segments_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "recordings/incidents/20260501-101500-3f2a"
    own.mkdir(parents=True)
    (own / "incident.json").write_text(f'{{"time_ns": {START}}}')
    for number in (3, 4, 6):
        part(own, number, segment_name(number, START + number))
    assert run_command(["record", "incidents"]) == LOSSY
    out, err = capsys.readouterr()
    assert " 3 of 4 " in out
    assert f"{own.name} lacks 1 of its 4 segments" in err
    assert run_command(["record", "incidents", "--export", own.name]) == LOSSY
    assert "part 5 of the recording is not there" in capsys.readouterr().err


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 12)), max_size=12))
def test_the_parts_between_are_missed_and_no_others(parts: list[tuple[str, int]]) -> None:
    known = [Part(Path(f"{whose}{n}"), whose, n, 10 * n, 10 * n + 9) for whose, n in parts]
    texts = [str(missing) for _, missing in missing_parts(known)]
    for whose in "ab":
        own = {number for name, number in parts if name == whose}
        lacking = set(range(min(own, default=0), max(own, default=-1) + 1)) - own
        said: set[int] = set()
        for path, missing in missing_parts(known):
            if path.name[0] == whose:
                first, last = re.findall(r"parts? (\d+)(?: to (\d+))?", missing.why)[0]
                said |= set(range(int(first), int(last or first) + 1))
                assert missing.first <= missing.last == 10 * int(path.name[1:])
        assert said == lacking, texts
