"""Recordings of dora 1.x: the sample was made with `dora record --proxy` of dora 1.1.0."""

import shutil
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.cli.main import run_command
from dorad.record.drec import DrecReader
from dorad.record.edit import merge
from dorad.record.mcap.reader import RecordingError, RecordingReader
from dorad.record.sources import open_recording
from tests.record.files import DREC


def test_values_and_metadata_are_those_that_were_sent():
    with DrecReader(DREC) as reader:
        assert reader.topics() == {"src/num": 3, "src/st": 3}
        found = [(each.topic, each.decode()) for each in reader.messages()]
    first = dict(reversed(found))
    number = first["src/num"].array[0].as_py()
    assert first["src/num"].array.to_pylist() == [number, number + 1]
    assert first["src/num"].metadata == {
        "n": number,
        "f": 1.5,
        "s": "x",
        "b": True,
        "li": [1, 2],
        "lf": [1.5],
        "ls": ["a", "b"],
        "t": datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC),
    }
    assert first["src/st"].array.to_pylist() == [{"a": number, "b": ["q", None]}]


def test_the_dataflow_is_in_the_file():
    with DrecReader(DREC) as reader:
        assert b"src.py" in reader.attachment("dataflow.yml")


def test_a_file_that_was_cut_reads_up_to_its_last_record(tmp_path):
    data = DREC.read_bytes()
    path = tmp_path / "cut.drec"
    counts = []
    for size in [*range(400, len(data), 97), len(data) - 24]:
        path.write_bytes(data[:size])
        with DrecReader(path) as reader:
            counts.append(len([each.decode() for each in reader.messages()]))
    assert counts == sorted(counts)
    assert counts[-1] == 6


def test_damaged_payloads_raise_value_error(tmp_path):
    data = DREC.read_bytes()
    path = tmp_path / "bad.drec"
    decoded = refused = 0
    for at in range(420, len(data) - 24, 41):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        with DrecReader(path) as reader:
            for each in reader.messages():
                try:
                    each.decode()
                    decoded += 1
                except ValueError:
                    refused += 1
    assert decoded and refused


def test_other_versions_are_refused(tmp_path):
    path = tmp_path / "new.drec"
    data = bytearray(DREC.read_bytes())
    data[8] = 3
    path.write_bytes(data)
    with pytest.raises(RecordingError, match="version 3"):
        open_recording(path)


def test_the_first_bytes_tell_the_kind(tmp_path):
    path = tmp_path / "sample.mcap"
    path.write_bytes(DREC.read_bytes())
    with open_recording(path) as reader:
        assert isinstance(reader, DrecReader)
    path.write_bytes(b"hello")
    with pytest.raises(RecordingError, match="not a recording"):
        open_recording(path)


def test_tools_for_recordings_take_it_too(tmp_path, capsys):
    copy = tmp_path / "both.mcap"
    assert merge([DREC], copy) == (6, [])
    with DrecReader(DREC) as old, RecordingReader(copy) as new:
        assert new.status == old.status == "COMPLETE"
        assert new.topics() == old.topics()
        for topic in old.topics():
            assert new.types_of(topic) == old.types_of(topic)
        assert new.attachment("dataflow.yml") == old.attachment("dataflow.yml")
        pairs = zip(old.messages(), new.messages(), strict=True)
        for before, after in pairs:
            assert (before.time, before.sequence) == (after.time, after.sequence)
            assert before.decode() == after.decode()
    part = tmp_path / "part.mcap"
    with DrecReader(DREC) as old:
        middle = [each.time for each in old.messages()][3]
    assert merge([DREC], part, end=middle, topics={"src/num"}).messages in (1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.mcap", "part.mcap"]
    assert run_command(("record", "recover", str(shutil.copy(DREC, tmp_path)))) == 1
    assert "is a recording of dora 1.x" in capsys.readouterr().err


def test_a_part_of_it_is_described_and_converted_as_unfinished(tmp_path):
    path = tmp_path / "part.drec"
    path.write_bytes(DREC.read_bytes()[:-200])
    with open_recording(path) as found:
        assert found.status == "UNFINISHED"
    merge([path], tmp_path / "part.mcap")
    with RecordingReader(tmp_path / "part.mcap") as found:
        assert found.status == "INCOMPLETE"
        assert sum(found.topics().values()) > 0


@given(st.integers(0, DREC.stat().st_size - 1), st.integers(0, 7))
def test_no_flipped_bit_ends_a_tool_without_words(tmp_path_factory, place, bit):
    data = bytearray(DREC.read_bytes())
    data[place] ^= 1 << bit
    folder = tmp_path_factory.mktemp("drec")
    path = folder / "bad.drec"
    path.write_bytes(data)
    with suppress(RecordingError):
        merge([path], folder / "copy.mcap")
    with suppress(RecordingError), open_recording(path) as found:
        for topic in found.topics():
            found.types_of(topic)
        assert found.status in ("COMPLETE", "UNFINISHED")
