"""Cut, merge and export: messages stay as they are."""

import csv
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dorad.record.edit import merge
from dorad.record.export.lerobot import to_lerobot
from dorad.record.export.topictables import to_tables
from dorad.record.mcap.reader import RecordingError, RecordingReader
from tests.record.files import START, numbers, write


def content(path):
    with RecordingReader(path) as reader:
        return [(m.time, m.topic, m.sequence, bytes(m.data)) for m in reader.messages()]


@pytest.fixture
def source(tmp_path):
    texts = [("a/text", n * 10 + 5, pa.array([f"t{n}"]), {"k": n}) for n in range(20)]
    return write(tmp_path / "a.mcap", sorted([*numbers(20), *texts], key=lambda line: line[1]))


def test_a_cut_has_exactly_the_messages_of_its_range(source, tmp_path):
    target = tmp_path / "cut.mcap"
    start, end = START + 50_000_000, START + 120_000_000
    count = merge([source], target, start=start, end=end)
    expected = [each for each in content(source) if start <= each[0] < end]
    assert content(target) == expected
    assert count == (len(expected), [])
    with RecordingReader(target) as reader:
        assert reader.attachment("dataflow.yml")
        assert reader.status == "COMPLETE"


def test_parts_merge_into_the_whole(source, tmp_path):
    parts = []
    for number, edge in enumerate((0, 70, 130)):
        parts.append(tmp_path / f"{number}.mcap")
        after = (70, 130, 1000)[number]
        merge([source], parts[-1], start=START + edge * 10**6, end=START + after * 10**6)
    merge(parts, tmp_path / "whole.mcap")
    assert content(tmp_path / "whole.mcap") == content(source)


def test_an_unfinished_file_merges_as_incomplete(source, tmp_path):
    half = tmp_path / "half.mcap"
    half.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    count, missing = merge([half], tmp_path / "b.mcap")
    assert missing
    assert content(tmp_path / "b.mcap") == content(source)[:count]
    with RecordingReader(tmp_path / "b.mcap") as reader:
        assert reader.status == "INCOMPLETE"


def test_targets_and_sources_that_do_not_fit_are_refused(source, tmp_path):
    with pytest.raises(RecordingError, match="exists already"):
        merge([source], source)
    with pytest.raises(RecordingError, match="nothing to write"):
        merge([], tmp_path / "b.mcap")
    with pytest.raises(RecordingError, match="cannot write"):
        merge([source], tmp_path / "no" / "b.mcap")


def test_parquet_has_a_row_for_each_message(source, tmp_path):
    with RecordingReader(source) as reader:
        written = dict(to_tables(reader, tmp_path / "out", "parquet", None).files)
    table = pq.read_table(tmp_path / "out" / "source.number.parquet")
    assert table["data"].to_pylist() == [[n] for n in range(20)]
    assert table["time"].cast(pa.int64()).to_pylist() == [START + n * 10**7 for n in range(20)]
    assert [json.loads(text) for text in table["metadata"].to_pylist()] == [
        {"n": n} for n in range(20)
    ]
    assert written[tmp_path / "out" / "a.text.parquet"] == 20


@pytest.mark.parametrize("kind", ["arrow", "csv"])
def test_other_tables_have_the_same_rows(source, tmp_path, kind):
    with RecordingReader(source) as reader:
        to_tables(reader, tmp_path, kind, ["source/number"], by_value=True)
    path = tmp_path / f"source.number.{kind}"
    if kind == "csv":
        with path.open(newline="") as file:
            values = [int(row["data"]) for row in csv.DictReader(file)]
    else:
        values = pa.ipc.open_file(str(path)).read_all()["data"].to_pylist()
    assert values == list(range(20))


def test_a_small_message_does_not_keep_its_chunk_in_memory(tmp_path):
    """An export keeps a thousand of them, and their chunks may be full of pictures."""
    lines = [("a/image", 0, pa.array(bytes(1 << 20), pa.uint8()), {}), *numbers(3)]
    source = write(tmp_path / "a.mcap", lines)
    with RecordingReader(source) as reader:
        sizes = [memoryview(each.data.obj).nbytes for each in reader.messages()]
    assert sorted(size > 1 << 20 for size in sizes) == [False] * 3 + [True]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([5], pa.duration("ns")),
        pa.array([{"t": 5}], pa.struct([("t", pa.time64("ns"))])),
        pa.array([10**17], pa.timestamp("s")),
        pa.array([[2**31 - 1]], pa.list_(pa.date32())),
    ],
    ids=lambda array: str(array.type),
)
def test_times_that_python_cannot_hold_are_numbers_in_a_csv(tmp_path, array):
    source = write(tmp_path / "a.mcap", [("a/b", 0, array, {})])
    with RecordingReader(source) as reader:
        ((path, rows),) = to_tables(reader, tmp_path, "csv", None).files
    assert rows == 1
    assert array.cast(WITHOUT_TIMES[array.type]).to_pylist() == [
        json.loads(row["data"])[0] for row in csv.DictReader(path.open(newline=""))
    ]


WITHOUT_TIMES = {
    pa.duration("ns"): pa.int64(),
    pa.struct([("t", pa.time64("ns"))]): pa.struct([("t", pa.int64())]),
    pa.timestamp("s"): pa.int64(),
    pa.list_(pa.date32()): pa.list_(pa.int32()),
}


def test_a_lerobot_dataset_takes_any_number(tmp_path):
    lines = [
        ("a/big", 0, pa.array([2**64 - 1], pa.uint64()), {}),
        ("a/nan", 0, pa.array([math.inf, math.nan]), {}),
    ]
    source = write(tmp_path / "a.mcap", lines)
    with RecordingReader(source) as reader:
        ((_, rows),), _ = to_lerobot([reader], tmp_path / "set", None, 20.0)
    assert rows == 1


def test_a_topic_that_changes_its_type_has_two_files(tmp_path):
    lines = [("a/b", 0, pa.array([1]), {}), ("a/b", 1, pa.array(["x"]), {})]
    source = write(tmp_path / "a.mcap", lines)
    with RecordingReader(source) as reader:
        files = [path.name for path, _ in to_tables(reader, tmp_path, "parquet", None).files]
    assert files == ["a.b.parquet", "a.b_2.parquet"]


def test_a_lerobot_dataset_has_one_row_for_each_moment(tmp_path):
    lines = [("arm/pose", n * 10, pa.array([n, n + 0.5], pa.float32()), {}) for n in range(101)]
    lines += [("arm/state", n * 10, pa.array([n]), {}) for n in range(101)]
    lines.append(("arm/name", 1001, pa.array(["x"]), {}))
    # Its type changes, so it can be no column.
    lines += [("arm/odd", 0, pa.array([1]), {}), ("arm/odd", 1, pa.array([1.5]), {})]
    source = write(tmp_path / "a.mcap", lines)
    with RecordingReader(source) as reader:
        ((path, rows),), _ = to_lerobot([reader], tmp_path / "set", None, 20.0)
    assert rows == 21
    table = pq.read_table(path)
    assert table["observation.arm.pose"].to_pylist()[2] == [10.0, 10.5]
    assert table["observation.arm.state"].to_pylist()[2] == 10
    meta = tmp_path / "set" / "meta"
    info = json.loads((meta / "info.json").read_text())
    features = {name: (each["dtype"], each["shape"]) for name, each in info["features"].items()}
    numbers = ("frame_index", "episode_index", "index", "task_index", "observation.arm.state")
    assert features == {
        "observation.arm.pose": ("float32", [2]),
        "timestamp": ("float32", [1]),
        **dict.fromkeys(numbers, ("int64", [1])),
    }
    assert (info["codebase_version"], info["total_frames"], info["fps"]) == ("v3.0", 21, 20)
    stats = json.loads((meta / "stats.json").read_text())
    assert stats["observation.arm.pose"]["max"] == [100.0, 100.5]
    (episode,) = pq.read_table(meta / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert (episode["length"], episode["dataset_to_index"], episode["tasks"]) == (
        21,
        21,
        ["recorded"],
    )
