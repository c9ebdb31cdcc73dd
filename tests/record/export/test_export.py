"""Exports: bounded memory, nothing half-made, and a word on what is left out."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.cli.main import run_command
from dorad.record.export import rerun, tables, topictables
from dorad.record.export.tables import column_type, joined_texts
from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.writer import RecordingFile
from tests.harness.waiting import DEADLINE_S, wait_until
from tests.record.files import START, encoded, numbers, write

MIB = 1 << 20
DORA = (sys.executable, "-m", "dorad.cli")
EXPORTERS = ("pyarrow.parquet", "pyarrow.csv", "rerun")

MEASURED = """
import sys
from dorad.cli.main import run_command

code = run_command(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(code, int(peak.split()[1]) >> 10)
"""


def measured(*arguments: object) -> tuple[int, int]:
    """Run a command; return its exit code and the MiB of memory that it took at most."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    code, peak = done.stdout.splitlines()[-1].split()
    return int(code), int(peak)


def union():
    return pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """200 MiB of pictures in a file, with numbers between them."""
    path = tmp_path_factory.mktemp("pictures") / "a.mcap"
    file = RecordingFile(path, "test")
    picture = encoded(pa.array(np.arange(10 * MIB) % 251, pa.uint8()), {"n": 1})
    for n in range(20):
        file.add("cam/image", n, START + 2 * n, picture)
        file.add("arm/pose", n, START + 2 * n + 1, encoded(pa.array([n / 3, math.inf])))
        file.flush()
    file.describe("dora.end", {"status": "COMPLETE", "reason": "test"})
    file.finish()
    file.close()
    return path


@pytest.mark.long
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_the_memory_of_an_export_does_not_grow_with_the_file(pictures, tmp_path, kind):
    code, peak = measured("record", "export", pictures, "--to", kind, "-o", tmp_path / "out")
    assert code == 0
    assert peak < 200
    (path,) = (tmp_path / "out").glob("cam.image.*")
    if kind == "parquet":
        assert pq.ParquetFile(path).metadata.num_rows == 20
        (first,) = (
            next(pq.ParquetFile(path).iter_batches(1, columns=["data"])).column(0).to_pylist()
        )
        assert first == (np.arange(10 * MIB) % 251).astype(np.uint8).tobytes()


@pytest.mark.long
def test_a_large_message_becomes_text_a_part_at_a_time(tmp_path):
    """As one text it would be five times as large, and as objects of Python eight times."""
    values = np.arange(20 * MIB, dtype=np.int64).astype(np.uint8)
    path = write(tmp_path / "a.mcap", [("cam/image", 0, pa.array(values), {})])
    options = ("--to", "csv", "--large-cells", "-o", tmp_path / "out")
    code, peak = measured("record", "export", path, *options)
    assert code == 0
    assert peak < 200
    text = (tmp_path / "out" / "cam.image.csv").read_text().splitlines()[1]
    assert json.loads(text[text.index('"[') + 1 : -1])[-3:] == [253, 254, 255]


@pytest.mark.parametrize("by_value", [False, True])
@given(
    st.one_of(
        st.lists(st.floats()).map(pa.array),
        st.lists(st.floats(width=32)).map(lambda each: pa.array(each, pa.float32())),
        st.lists(st.integers(-(2**63), 2**63 - 1)).map(lambda each: pa.array(each, pa.int64())),
        st.binary().map(lambda each: pa.array(list(each), pa.uint8())),
        st.lists(st.one_of(st.none(), st.text())).map(lambda each: pa.array(each, pa.string())),
        st.lists(st.lists(st.booleans())).map(lambda each: pa.array(each, pa.list_(pa.bool_()))),
    )
)
def test_a_csv_has_exactly_the_values_of_the_recording(tmp_path_factory, by_value, array):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    table = tables.CsvTable(path, by_value=by_value, large_cells=False)
    table.add(tables.Row(START, 7, '{"a": "b,\\""}'), array)
    table.close()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert table.rows == len(rows) == (len(array) if by_value else 1)
    for row in rows:
        assert row["time"] == "2023-11-14 22:13:20.000000000Z"
        assert (row["sequence"], json.loads(row["metadata"])) == ("7", {"a": 'b,"'})
    texts = [row["data"] for row in rows]
    if by_value and array.type == pa.string():
        assert texts == ["null" if value is None else value for value in array.to_pylist()]
        return
    values = [json.loads(text) for text in texts]
    assert repr(values if by_value else values[0]) == repr(array.to_pylist())


@given(st.data())
def test_where_a_large_array_is_split_makes_no_difference(data):
    array = data.draw(
        st.one_of(
            st.lists(st.integers(0, 255)).map(lambda each: pa.array(each, pa.uint8())),
            st.lists(st.text(max_size=9)).map(lambda each: pa.array(each, pa.string())),
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_SLICE", data.draw(st.integers(1, 9)))
        patch.setattr(tables, "_TEXT_BYTES", data.draw(st.integers(64, 512)))
        assert json.loads(f"[{', '.join(joined_texts(array))}]") == array.to_pylist()


LONG = tables.MAX_CELL - len('[""]')
NESTED = pa.array([[[0] * 10_000] * 9], pa.list_(pa.list_(pa.int8())))


@pytest.mark.parametrize(
    ("array", "options", "held"),
    [
        (pa.array(["a" * LONG]), (), True),
        (pa.array(["a" * (LONG + 1)]), (), False),
        (pa.array(["a" * tables.MAX_CELL]), ("--rows",), True),
        (pa.array(["a", "a" * (tables.MAX_CELL + 1)]), ("--rows",), False),
        (pa.array(np.zeros(9 * MIB, np.uint8)), (), False),
        (pa.array(np.zeros(50_000, np.uint8)), ("--rows",), True),
        (NESTED, (), False),
        (NESTED, ("--rows",), False),
        (pa.array([bytes(9 * MIB)]), (), False),
    ],
    ids=lambda each: f"{each.type}" if isinstance(each, pa.Array) else " ".join(map(str, [each])),
)
def test_a_csv_has_no_cell_that_the_reader_of_python_refuses(
    tmp_path, capsys, array, options, held
):
    path = write(tmp_path / "a.mcap", [*numbers(2), ("a/b", 5, array, {}), ("a/b", 6, array, {})])
    command = ("record", "export", str(path), "--to", "csv", *options, "-o")
    assert run_command((*command, str(tmp_path / "out"))) == (0 if held else 3)
    err = capsys.readouterr().err
    named = f"csv cannot hold 2 messages of a/b ({array.type}): text of more than 128 KiB in a cell"
    assert (f"{named}; --large-cells" in err) != held
    names = {"source.number.csv", "a.b.csv"} if held else {"source.number.csv"}
    assert {each.name for each in (tmp_path / "out").iterdir()} == names
    for name in names:
        with (tmp_path / "out" / name).open(newline="") as file:
            assert len(list(csv.reader(file))) > 2
    # All the same.
    assert run_command((*command, str(tmp_path / "all"), "--large-cells")) == 0
    assert (tmp_path / "all" / "a.b.csv").stat().st_size > 50_000


def test_what_a_format_cannot_hold_is_left_out_with_a_word(tmp_path, capsys):
    lines = [*numbers(3), ("a/odd", 5, union(), {}), ("a/odd", 6, union(), {})]
    path = write(tmp_path / "a.mcap", lines)
    out = tmp_path / "out"
    assert run_command(("record", "export", str(path), "--to", "parquet", "-o", str(out))) == 3
    assert [each.name for each in out.iterdir()] == ["source.number.parquet"]
    assert "parquet cannot hold 2 messages of a/odd (sparse_union" in capsys.readouterr().err
    # If nothing else is there, nothing is written.
    only = ("record", "export", str(path), "--to", "parquet", "--topics", "a/odd", "-o", f"{out}2")
    assert run_command(only) == 1
    assert "--to" in capsys.readouterr().err
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mcap", "out"]


def test_a_message_that_is_too_large_for_a_table_does_not_cost_the_others(tmp_path, monkeypatch):
    arrays = [pa.array([1] * count, pa.int8()) for count in (3, 1000, 4)]
    path = write(tmp_path / "a.mcap", [("a/b", n, each, {}) for n, each in enumerate(arrays)])
    monkeypatch.setattr(tables, "MAX_COST", 500)
    with RecordingReader(path) as reader:
        done = topictables.to_tables(reader, tmp_path / "out", "parquet", None)
    assert [rows for _, rows in done.files] == [2]
    assert pq.read_table(done.files[0][0])["data"].to_pylist() == [[1] * 3, [1] * 4]
    ((topic, kind, count, _),) = done.left_out
    assert (topic, kind, count) == ("a/b", "int8", 1)


def test_a_table_that_fails_in_the_middle_leaves_out_all_its_messages(tmp_path, monkeypatch):
    """Arrow files hold one dictionary for each column."""
    lines = [("a/b", n, pa.array([f"x{n}"]).dictionary_encode(), {}) for n in range(5)]
    path = write(tmp_path / "a.mcap", [*lines, *numbers(2)])
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    with RecordingReader(path) as reader:
        done = topictables.to_tables(reader, tmp_path / "out", "arrow", None)
    assert [each.name for each, _ in done.files] == ["source.number.arrow"]
    assert [(each.topic, each.messages) for each in done.left_out] == [("a/b", 5)]
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["source.number.arrow"]


def test_topics_beyond_those_of_one_pass_are_exported_too(tmp_path, monkeypatch):
    monkeypatch.setattr(topictables, "MAX_TOPICS", 2)
    monkeypatch.setattr(topictables, "MAX_PENDING", 10)
    path = write(tmp_path / "a.mcap", [(f"a/{n % 5}", n, pa.array([n]), {}) for n in range(20)])
    done = []
    with RecordingReader(path) as reader:
        found = topictables.to_tables(reader, tmp_path / "out", "arrow", None, progress=done.append)
    assert [rows for _, rows in found.files] == [4] * 5
    assert sum(done) == 20


def test_two_topics_of_large_messages_are_not_written_at_once(tmp_path, monkeypatch):
    """Parquet keeps the memory of the largest message until its file is closed."""
    lines = [(f"a/{n % 3}", n, pa.array([n] * (1 + n)), {}) for n in range(30)]
    path = write(tmp_path / "a.mcap", lines)
    monkeypatch.setattr(topictables, "LARGE", 15 * 31)
    done = []
    with RecordingReader(path) as reader:
        found = topictables.to_tables(
            reader, tmp_path / "out", "parquet", None, progress=done.append
        )
    assert sum(done) == 30
    assert any(each < 0 for each in done)
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == sorted(
        each.name for each, _ in found.files
    )
    for topic in range(3):
        (file,) = (tmp_path / "out").glob(f"a.{topic}*")
        assert pq.read_table(file)["sequence"].to_pylist() == list(range(10))


def test_bytes_with_nulls_are_no_binary():
    assert column_type("parquet", pa.array([1], pa.uint8()), by_value=False) == pa.binary()
    for kind, array in (
        ("parquet", pa.array([1, None], pa.uint8())),
        ("arrow", pa.array([1], pa.uint8())),
    ):
        assert column_type(kind, array, by_value=False) == pa.list_(pa.uint8())


EXCLUDED = {
    ("--exclude", "source"): {"a/x", "a/y"},
    ("--exclude", "source/number,a/x"): {"a/y"},
    ("--topics", "a", "--exclude", "a/x"): {"a/y"},
    ("--topics", "a"): {"a/x", "a/y"},
}


@pytest.mark.parametrize(("options", "expected"), EXCLUDED.items(), ids=map(" ".join, EXCLUDED))
def test_topics_are_left_out_of_cuts_and_exports(tmp_path, options, expected):
    lines = [*numbers(3), ("a/x", 1, pa.array([1]), {}), ("a/y", 2, pa.array([2]), {})]
    path = write(tmp_path / "a.mcap", lines)
    cut, out = tmp_path / "cut.mcap", tmp_path / "out"
    assert run_command(("record", "cut", str(path), *options, "-o", str(cut))) == 0
    with RecordingReader(cut) as reader:
        assert set(reader.topics()) == expected
    command = ("record", "export", str(path), "--to", "csv", *options, "-o", str(out))
    assert run_command(command) == 0
    assert {each.stem.replace(".", "/") for each in out.iterdir()} == expected


def test_an_unknown_topic_or_no_topic_is_refused(tmp_path, capsys):
    path = str(write(tmp_path / "a.mcap", numbers(3)))
    for name, word in (("source/nummer", "source/number"), ("source", "leaves no topic")):
        cut = ("record", "cut", path, "--exclude", name, "-o", str(tmp_path / "b.mcap"))
        assert run_command(cut) == 1
        assert word in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["a.mcap"]


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A small file whose export to CSV takes many seconds."""
    bits = pa.array(np.zeros(1 << 27, np.bool_))
    return write(tmp_path_factory.mktemp("slow") / "a.mcap", [("a/b", 0, bits, {})])


def begun(source, folder):
    """Start an export to `out`; return it once it has written something."""
    options = ("--to", "csv", "--large-cells", "-o", folder / "out")
    process = subprocess.Popen(
        [*DORA, "record", "export", source, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def written():
        return [each for each in folder.glob(".out.unfinished-*/out/*") if each.stat().st_size]

    wait_until(lambda: process.poll() is not None or written())
    assert process.poll() is None
    return process


def test_an_export_that_is_interrupted_leaves_nothing(slow, tmp_path):
    process = begun(slow, tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) != 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_leaves_says_so_and_goes_with_the_next(slow, tmp_path):
    process = begun(slow, tmp_path)
    process.kill()
    process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.unfinished-")
    small = write(tmp_path / "small.mcap", numbers(3))
    command = ("record", "export", str(small), "--to", "csv", "-o", str(tmp_path / "out"))
    assert run_command(command) == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "small.mcap"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("command", ["export", "cut"])
def test_a_disk_that_gets_full_leaves_nothing_half_made(pictures, tmp_path, command, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False)
    if done.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        options = ("--to", "parquet") if command == "export" else ()
        target = str(disk / "out")
        assert run_command(("record", command, str(pictures), *options, "-o", target)) == 1
        err = capsys.readouterr().err
        assert f"cannot write {target}: No space left on device" in err
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "a.mcap", numbers(3))
    out = tmp_path / "out"
    monkeypatch.setattr(topictables, "to_tables", lambda *_, **__: out.write_text("mine"))
    assert run_command(("record", "export", str(path), "--to", "csv", "-o", str(out))) == 1
    assert "File exists" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mcap", "out"]


RERUN = """#!{python}
import sys
from pathlib import Path
from dorad.record.mcap.reader import RecordingReader

source, target = sys.argv[3], sys.argv[5]
with RecordingReader(Path(source)) as reader:
    lines = [f"{{sys.argv[9]}} {{each.topic}} {{each.sequence}}" for each in reader.messages()]
Path(target).write_text("".join(line + chr(10) for line in lines))
"""


@pytest.mark.long
def test_rerun_gets_a_recording_in_parts_which_are_one_file(tmp_path, monkeypatch, capsys):
    """Its converter keeps several times a whole file in memory."""
    program = tmp_path / "bin" / "rerun"
    program.parent.mkdir()
    program.write_text(RERUN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setattr(rerun, "PART_BYTES", 1000)
    monkeypatch.setattr(rerun, "MAX_CONVERTED", 4000)
    large = ("a/big", 1, pa.array([0] * 1000), {})
    path = write(tmp_path / "a.mcap", [*numbers(100), large, ("a/x", 2, pa.array([1]), {})])
    out = tmp_path / "a.rrd"
    command = ("record", "export", str(path), "--to", "rrd", "--exclude", "a/x", "-o", str(out))
    assert run_command(command) == 3
    lines = [line.split() for line in out.read_text().splitlines()]
    assert [(topic, int(n)) for _, topic, n in lines] == [("source/number", n) for n in range(100)]
    assert len({identity for identity, *_ in lines}) == 1
    assert "rrd cannot hold 1 message of a/big" in capsys.readouterr().err
    assert {each.name for each in tmp_path.iterdir()} == {"a.mcap", "a.rrd", "bin"}


def test_the_tools_for_recordings_import_no_exporter_before_it_is_used():
    """Beside pyarrow: it is slow to start, or not installed."""
    code = (
        "import sys, dorad.cli.record_edit, dorad.record.edit, dorad.record.recorder.recorder\n"
        f"print([name for name in {EXPORTERS} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_program_of_rerun_is_named_if_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(Path(tmp_path, "python")))
    path = write(tmp_path / "a.mcap", numbers(3))
    assert run_command(("record", "export", str(path), "--to", "rrd", "-o", f"{path}.rrd")) == 1
    assert "pip install rerun-sdk" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["a.mcap"]
