"""Cuts, merged files and exports have exactly the messages that the reader gives."""

from __future__ import annotations

import csv
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dorad.control.arrayvalues import to_python
from dorad.record.edit import merge
from dorad.record.export.topictables import to_tables
from dorad.record.mcap.reader import RecordingReader, merged
from tests.record.files import START, Line, write

TOPICS = ("a/b", "a.b/c", "c/d")
LONGEST_MS = 30

FEW = 20
"""Examples of tests whose time is that of writing files."""

NUMBERS = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.none() | st.text(max_size=5)
ARRAYS = st.one_of(
    st.lists(NUMBERS, max_size=4).map(lambda values: pa.array(values, pa.int64())),
    st.lists(NUMBERS | st.none(), max_size=4).map(lambda values: pa.array(values, pa.int32())),
    st.lists(TEXTS, max_size=3).map(lambda values: pa.array(values, pa.string())),
    st.binary(max_size=9).map(lambda data: pa.array(data, pa.uint8())),
    st.lists(st.fixed_dictionaries({"x": NUMBERS, "t": TEXTS}), min_size=1, max_size=3).map(
        lambda rows: pa.array(rows, pa.struct([("x", pa.int32()), ("t", pa.string())]))
    ),
)
LINES = st.lists(
    st.tuples(
        st.sampled_from(TOPICS),
        st.integers(0, LONGEST_MS),
        ARRAYS,
        st.dictionaries(st.sampled_from(("n", "text")), st.integers(0, 9), max_size=1),
    ),
    min_size=1,
    max_size=20,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a new folder for each example."""
    return lambda: tmp_path_factory.mktemp("same")


def content(messages) -> list[tuple[int, str, int, bytes]]:
    return [(m.time, m.topic, m.sequence, bytes(m.data)) for m in messages]


def rows_of(path, lines: list[Line]) -> list[tuple[int, str, int, Any, dict[str, Any]]]:
    """Return what the reader gives, which is what was written, in the order of time."""
    with RecordingReader(path) as reader:
        read = [
            (m.time, m.topic, m.sequence, found.array, found.metadata)
            for m in reader.messages()
            for found in [m.decode()]
        ]
    expected = sorted(lines, key=lambda line: line[1])
    assert [(time, topic, meta) for time, topic, _, _, meta in read] == [
        (START + ms * 10**6, topic, meta) for topic, ms, _, meta in expected
    ]
    for (_, _, _, array, _), (_, _, written, _) in zip(read, expected, strict=True):
        assert array.type == written.type
        assert array.equals(written)
    return read


@given(
    LINES,
    st.integers(1, 9),
    st.sets(st.sampled_from(TOPICS), min_size=1),
    st.tuples(st.integers(0, LONGEST_MS), st.integers(1, LONGEST_MS + 1)),
)
@settings(max_examples=FEW)
def test_a_cut_has_the_messages_that_the_reader_gives_for_its_range(
    folders, lines, per_chunk, topics, times
):
    folder = folders()
    source = write(folder / "a.mcap", lines, per_chunk=per_chunk)
    rows_of(source, lines)
    start, end = (START + ms * 10**6 for ms in times)
    with RecordingReader(source) as reader:
        whole = content(reader.messages())
        expected = content(reader.messages(start=start, end=end, topics=topics))
    assert expected == [each for each in whole if each[1] in topics and start <= each[0] < end]
    done, missing = merge([source], folder / "b.mcap", start=start, end=end, topics=list(topics))
    assert (done, missing) == (len(expected), [])
    with RecordingReader(folder / "b.mcap") as reader:
        assert content(reader.messages()) == expected
        assert reader.status == "COMPLETE"


@given(st.lists(LINES, min_size=1, max_size=3), st.integers(1, 9))
@settings(max_examples=FEW)
def test_a_merged_file_has_the_messages_that_the_readers_of_its_parts_give(
    folders, parts, per_chunk
):
    folder = folders()
    paths = [
        write(folder / f"{number}.mcap", lines, per_chunk=per_chunk)
        for number, lines in enumerate(parts)
    ]
    readers = [RecordingReader(path) for path in paths]
    expected = content(merged(readers))
    for reader in readers:
        reader.close()
    assert merge(paths, folder / "all.mcap") == (len(expected), [])
    with RecordingReader(folder / "all.mcap") as reader:
        assert content(reader.messages()) == expected


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv"])
@given(lines=LINES, per_chunk=st.integers(1, 9))
@settings(max_examples=FEW)
def test_an_export_has_the_messages_that_the_reader_gives(folders, kind, lines, per_chunk):
    folder = folders()
    source = write(folder / "a.mcap", lines, per_chunk=per_chunk)
    expected = rows_of(source, lines)
    with RecordingReader(source) as reader:
        done = to_tables(reader, folder / "out", kind, None)
    assert (done.left_out, done.missing) == ([], [])
    rows = {path.name: read_table(kind, path) for path, _ in done.files}
    assert {path.name: count for path, count in done.files} == {
        name: len(each) for name, each in rows.items()
    }
    written = [
        (time, number, meta, as_row(kind, array)) for time, _, number, array, meta in expected
    ]
    assert sorted(map(repr, written)) == sorted(repr(row) for of in rows.values() for row in of)
    for of in rows.values():
        times = [row[0] for row in of]
        assert times == sorted(times)


def as_row(kind, array):
    """Return the column `data` of a message."""
    if kind == "csv":
        return json.loads(json.dumps(to_python(array), default=str))
    if kind == "parquet" and array.type == pa.uint8():
        return bytes(array.buffers()[1] or b"")[: len(array)] if len(array) else b""
    return array.to_pylist()


def read_table(kind, path):
    """Return time, number, metadata and values of each row."""
    if kind == "csv":
        with path.open(newline="") as file:
            return [
                (
                    pa.scalar(row["time"][:-1].replace(" ", "T"))
                    .cast(pa.timestamp("ns"))
                    .cast(pa.int64())
                    .as_py(),
                    int(row["sequence"]),
                    json.loads(row["metadata"]),
                    json.loads(row["data"]),
                )
                for row in csv.DictReader(file)
            ]
    table = pq.read_table(path) if kind == "parquet" else pa.ipc.open_file(str(path)).read_all()
    return list(
        zip(
            table["time"].cast(pa.int64()).to_pylist(),
            table["sequence"].to_pylist(),
            map(json.loads, table["metadata"].to_pylist()),
            table["data"].to_pylist(),
            strict=True,
        )
    )
