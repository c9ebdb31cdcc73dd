"""What is damaged in a recording is named by topic and time, by each tool, with an exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.cli.main import run_command
from dorad.cli.record_options import LOSSY
from dorad.record.damage import Missing, dropped_in, summary
from dorad.record.drec import DrecReader
from dorad.record.edit import merge
from dorad.record.mcap.reader import RecordingError, RecordingReader
from dorad.record.sources import open_recording, verify
from tests.record.files import DREC, numbers, write

if TYPE_CHECKING:
    from collections.abc import Callable

PER_CHUNK = 7
RERUN = """#!/bin/sh
test "$1 $2" = "mcap convert" && exec cp "$3" "$5"
"""
"""Stands in for rerun's converter, where that is not installed: what it gets is tested here."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a recording: 20 numbers, and 20 texts between them, in six chunks."""
    texts = [("a/text", n * 10 + 5, pa.array([f"t{n}" * 50]), {"n": n}) for n in range(20)]
    lines = sorted([*numbers(20), *texts], key=lambda line: line[1])
    path = tmp_path_factory.mktemp("whole") / "day.mcap"
    return write(path, lines, per_chunk=PER_CHUNK, compression="none").read_bytes()


class Chunk(NamedTuple):
    offset: int
    length: int


@pytest.fixture(scope="module")
def chunks(whole, tmp_path_factory):
    path = tmp_path_factory.mktemp("chunks") / "day.mcap"
    path.write_bytes(whole)
    with RecordingReader(path) as reader:
        return [Chunk(each.offset, each.length) for each in reader._chunks]


@pytest.fixture
def here(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    if not shutil.which("rerun"):
        programs = tmp_path_factory.mktemp("bin")
        (programs / "rerun").write_text(RERUN)
        (programs / "rerun").chmod(0o755)
        monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    return tmp_path


def flipped(content, at):
    changed = bytearray(content)
    changed[at] ^= 4
    return bytes(changed)


@pytest.fixture
def day(here, whole, chunks):
    """The third chunk, with messages 14 to 20, has a wrong bit."""
    path = here / "day.mcap"
    path.write_bytes(flipped(whole, chunks[2].offset + chunks[2].length // 2))
    (here / "whole.mcap").write_bytes(whole)
    return path


class Damage(NamedTuple):
    """One kind of damage of the recording: its bytes, and what a reader can know of it."""

    content: Callable[[bytes, list[Chunk]], bytes]
    missing: tuple[str, ...]
    """What the tools say is missing; nothing if all messages can be read."""
    status: str
    """What `record info --check` calls the file; empty if it is no recording."""
    recovered: int
    """The exit code of `record recover`."""


def in_chunk(whole, chunks):
    return flipped(whole, chunks[2].offset + chunks[2].length // 2)


KNOWN = (
    "missing 3 messages of a/text, .*075 to .*095",
    "missing 4 messages of source/number, .*070 to .*100",
)
UNKNOWN = ("missing an unknown number of messages of unknown topics, at ",)
DAMAGES = {
    "a bit of a chunk": Damage(in_chunk, KNOWN, "DAMAGED", LOSSY),
    "a bit of a chunk, and no summary": Damage(
        lambda whole, chunks: in_chunk(whole, chunks)[: chunks[5].offset + chunks[5].length],
        KNOWN,
        "UNFINISHED",
        LOSSY,
    ),
    "cut in a chunk": Damage(
        lambda whole, chunks: whole[: chunks[3].offset + chunks[3].length // 2],
        UNKNOWN,
        "UNFINISHED",
        LOSSY,
    ),
    "cut behind the last chunk": Damage(
        lambda whole, chunks: whole[: chunks[5].offset + chunks[5].length], (), "UNFINISHED", 0
    ),
    "a bit of the index of a chunk": Damage(
        lambda whole, chunks: flipped(whole, chunks[1].offset + chunks[1].length + 20),
        (),
        "COMPLETE",
        0,
    ),
    "a bit of the summary": Damage(
        lambda whole, _: flipped(whole, len(whole) - 60), (), "UNFINISHED", 0
    ),
    "no end": Damage(lambda whole, _: whole[:-8], (), "UNFINISHED", 0),
    "another beginning": Damage(lambda whole, _: flipped(whole, 2), (), "", 1),
    "nothing": Damage(lambda *_: b"", (), "", 1),
}
TOOLS = (
    "record cut day.mcap -o out.mcap",
    "record merge whole.mcap day.mcap -o out.mcap",
    "record merge day.mcap whole.mcap -o out.mcap",
    "record export day.mcap --to parquet -o out",
    "record export day.mcap --to arrow -o out",
    "record export day.mcap --to csv -o out",
    "record export day.mcap --to lerobot --exclude a/text -o out",
    "record export day.mcap --to rrd -o out",
    "record info day.mcap --check",
    "record list --check",
    "diff whole.mcap day.mcap",
    "diff day.mcap whole.mcap",
    "replay day.mcap --live worker --assert",
    "record recover day.mcap",
)


def expected_code(tool, damage):
    """Return the exit code of a tool for a damaged recording."""
    if "recover" in tool:
        return damage.recovered
    if not damage.status:
        return 1  # no recording, or nothing of one
    if damage.missing:
        return 1 if "replay" in tool else LOSSY
    return 1 if "info" in tool and damage.status != "COMPLETE" else 0


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_each_tool_names_what_is_missing_with_its_exit_code(damage, here, whole, chunks, capsys):
    (here / "whole.mcap").write_bytes(whole)
    for tool in TOOLS:
        if "replay" in tool and damage.status and not damage.missing:
            continue  # it would run
        path = here / "day.mcap"
        path.write_bytes(damage.content(whole, chunks))
        code = run_command(tool.split())
        out, err = capsys.readouterr()
        said = f"{tool}: {code}\n{out}{err}"
        assert code == expected_code(tool, damage), said
        assert "Traceback" not in err, said
        if not damage.status:
            assert "day.mcap" in err, said
            assert not any(here.glob("out*")), said
        elif "recover" not in tool:
            # A dataset for LeRobot has no texts.
            named = [
                each for each in damage.missing if not ("lerobot" in tool and "a/text" in each)
            ]
            assert len(re.findall("is damaged: ", err)) == len(named), said
            for each in named:
                assert re.search(f"day.mcap is damaged: {each}", err), said
        if "--check" in tool and damage.status:
            assert damage.status in out, said
        if (copy := here / "out.mcap").exists():
            with RecordingReader(copy) as reader:
                whole_copy = damage.status == "COMPLETE"
                assert reader.status == ("COMPLETE" if whole_copy else "INCOMPLETE"), said
            copy.unlink()
        shutil.rmtree(here / "out", ignore_errors=True)


STRANGE = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000)),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
def test_each_tool_refuses_what_is_no_recording_and_waits_for_nothing(make, here, whole, capsys):
    (here / "whole.mcap").write_bytes(whole)
    make(here / "day.mcap")
    for tool in (*TOOLS, "record export day.mcap --to ros2 -o out", "trace list day.mcap"):
        code = run_command(tool.split())
        out, err = capsys.readouterr()
        said = f"{tool}: {code}\n{out}{err}"
        assert code in (1, 2), said
        assert "day.mcap" in err, said
        assert "Traceback" not in err, said
        assert {each.name for each in here.iterdir()} == {"day.mcap", "whole.mcap"}, said


@pytest.mark.parametrize("topic", ["a/text", "source/number"])
def test_a_cut_names_only_what_it_was_asked_for(day, topic, capsys):
    end = "84ms"  # one message of each topic of the damaged chunk is before it, or two
    arguments = ("--topics", topic, "--end", end, "-o", "out.mcap")
    assert run_command(("record", "cut", str(day), *arguments)) == 3
    err = capsys.readouterr().err
    assert f"missing {1 if topic == 'a/text' else 2} message" in err
    assert {"a/text", "source/number"}.difference({topic}).isdisjoint(re.findall(r"\w+/\w+", err))
    assert run_command(("record", "cut", str(day), "--end", "60ms", "-o", "before.mcap")) == 0


def test_a_file_says_what_was_checked(day, capsys):
    assert run_command(("record", "info", str(day), "--format", "json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["checked"], found["missing"]) == ("COMPLETE", False, [])
    assert run_command(("record", "info", str(day), "--format", "json", "--check")) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["checked"]) == ("DAMAGED", True)
    assert [(each["topic"], each["messages"]) for each in found["missing"]] == [
        ("a/text", 3),
        ("source/number", 4),
    ]
    assert run_command(("record", "info", "whole.mcap", "--check")) == 0
    assert "COMPLETE" in capsys.readouterr().out


def test_a_file_without_an_end_lacks_an_unknown_number_of_messages(here, whole, chunks, capsys):
    (here / "day.mcap").write_bytes(whole[: chunks[3].offset + chunks[3].length // 2])
    assert run_command(("record", "cut", "day.mcap", "-o", "out.mcap")) == 3
    assert "missing an unknown number of messages of unknown topics, at" in capsys.readouterr().err
    with RecordingReader(here / "out.mcap") as reader:
        assert reader.status == "INCOMPLETE"
        assert sum(reader.topics().values()) == 3 * PER_CHUNK


def test_a_damaged_chunk_of_a_file_without_a_summary_is_counted_by_its_index(here, whole, chunks):
    path = here / "day.mcap"
    cut = whole[: chunks[3].offset]  # behind the index of the third chunk
    path.write_bytes(flipped(cut, chunks[1].offset + chunks[1].length // 2))
    with RecordingReader(path) as reader:
        missing = verify(reader)
        assert [(each.topic, each.messages) for each in missing] == [
            ("a/text", 4),
            ("source/number", 3),
        ]


@given(st.data())
def test_what_is_read_and_what_is_missing_are_the_whole(whole, tmp_path_factory, data):
    """Of each file with one wrong byte: no message is neither read nor missing."""
    path = tmp_path_factory.mktemp("one") / "day.mcap"
    content = bytearray(whole)
    content[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        with RecordingReader(path) as reader:
            read = Counter(message.topic for message in reader.messages())
            missing = {each.topic: each.messages for each in reader.damage.missing()}
            damaged = bool(reader.problems)
    except RecordingError:
        return
    finally:
        path.unlink()
    if "" in missing or read.total() > 40:
        return
    for topic in ("a/text", "source/number"):
        if missing.get(topic, 0) is not None:
            # The count is that of an index, which may be what is damaged.
            assert read[topic] + missing.get(topic, 0) == 20 or damaged
    assert read.total() == 40 or missing


@given(st.data())
def test_a_file_of_dora_that_is_cut_lacks_something(tmp_path_factory, data):
    content = DREC.read_bytes()
    path = tmp_path_factory.mktemp("drec") / "a.drec"
    size = data.draw(st.integers(len(content) // 2, len(content)))
    path.write_bytes(content[:size])
    try:
        with DrecReader(path) as reader:
            verify(reader)
            whole_records = size in ends(content) or size >= content.index(b"DORAEND") + 8
            assert bool(reader.damage) == (not whole_records)
    finally:
        path.unlink()


def ends(content):
    """Yield where records of a file of dora end."""
    with open_recording(DREC) as reader:
        at = reader._begin
    while content[at : at + 8] != b"DORAEND\0":
        yield at
        at += 4 + int.from_bytes(content[at : at + 4], "little")
    yield at


@given(
    st.lists(
        st.builds(
            Missing,
            st.sampled_from(["a/b", "c/d", ""]),
            st.none() | st.integers(1, 9),
            st.integers(0, 99),
            st.integers(100, 199),
        ),
        max_size=8,
    )
)
def test_a_summary_keeps_counts_and_times(parts):
    for each in summary(parts):
        own = [part for part in parts if part.topic == each.topic]
        known = [part.messages for part in own]
        assert each.messages == (None if None in known else sum(known))
        assert (each.first, each.last) == (min(x.first for x in own), max(x.last for x in own))
    assert {each.topic for each in summary(parts)} == {each.topic for each in parts}


def test_drops_of_recorders_are_added_and_those_of_its_parts_are_not(tmp_path):
    def recording(name, own_id, **dropped):
        lines = numbers(2)
        path = write(tmp_path / name, lines, id=own_id)
        return rewritten(
            path, {f"dropped.{k.replace('_', '/')}": str(n) for k, n in dropped.items()}
        )

    first = recording("1.mcap", "one", source_number=2)
    second = recording("2.mcap", "one", source_number=5, a_text=1)
    other = recording("3.mcap", "two", source_number=10)
    merge([first, second, other], tmp_path / "all.mcap")
    assert dropped_of(tmp_path / "all.mcap") == {"source/number": 15, "a/text": 1}
    merge([second], tmp_path / "cut.mcap", topics=["source/number"])
    assert dropped_of(tmp_path / "cut.mcap") == {"source/number": 5}


def dropped_of(path):
    with RecordingReader(path) as reader:
        return dropped_in(reader.metadata)


def rewritten(path, values):
    """Copy a recording with another end."""
    from dorad.record.edit import kind_of
    from dorad.record.encoding.messages import Encoded
    from dorad.record.mcap.writer import RecordingFile

    target = path.with_name(f"x{path.name}")
    with RecordingReader(path) as reader:
        file = RecordingFile(target, "test")
        file.describe("dora.recording", reader.metadata["dora.recording"])
        for each in reader.messages():
            kind = kind_of(each.channel, each.schema)
            file.add(each.topic, each.sequence, each.time, Encoded(kind, b"", each.data, b""))
        file.describe("dora.end", {"status": "INCOMPLETE", **values})
        file.finish()
        file.close()
    return target
