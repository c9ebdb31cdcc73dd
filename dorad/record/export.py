"""Write recordings for other tools: tables of each topic, and rerun's files."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dorad.atomicfile import temporary_folder
from dorad.control.arrayvalues import python_size, to_python
from dorad.node import metadata as metadata_codec
from dorad.record import extras
from dorad.record.convert import as_mcap
from dorad.record.reader import RecordingError, RecordingReader
from dorad.record.viewing import needs_copy, write_copy

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dorad.record.sources import Message, Recording

BATCH_ROWS = 1000
BATCH_BYTES = 8 << 20
"""Values that are written at once. Parquet's writer takes thirty times as much for bytes."""
MAX_SIZE = 1 << 30
"""Bytes that a message may take as Python objects if that is over 64 times its own bytes."""

_SUFFIXES = {"parquet": ".parquet", "arrow": ".arrow", "csv": ".csv"}


def to_tables(
    recording: Recording,
    folder: Path,
    kind: str,
    topics: Sequence[str] | None,
    *,
    by_value: bool = False,
) -> list[tuple[Path, int]]:
    """Write a table of each topic into a folder; return the files with their rows.

    A topic whose type changes has a file for each type. With `by_value` a row is one value.

    Raises:
        RecordingError: a file cannot be written, or there is nothing to write.
    """
    wanted = [
        topic
        for topic in recording.topics()
        if not extras.is_own(topic) and (topics is None or topic in topics)
    ]
    if not wanted:
        raise RecordingError("there is nothing to export: the recording has no messages")
    written: list[tuple[Path, int]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for topic in wanted:
            taken = {path for path, _ in written}
            written += _export_topic(recording, folder, kind, topic, taken, by_value=by_value)
    except (OSError, OverflowError, pa.ArrowException) as error:
        raise RecordingError(f"cannot export to {folder}: {error}") from error
    return written


def _export_topic(
    recording: Recording,
    folder: Path,
    kind: str,
    topic: str,
    taken: Collection[Path],
    *,
    by_value: bool,
) -> list[tuple[Path, int]]:
    writers: dict[pa.DataType, _TableWriter] = {}
    paths: list[Path] = []
    try:
        with ExitStack() as stack:
            for message in recording.messages(topics=frozenset((topic,))):
                found = message.decode()
                writer = writers.get(found.array.type)
                if writer is None:
                    path = _free_path(folder, topic, _SUFFIXES[kind], {*taken, *paths})
                    paths.append(path)
                    writer = writers[found.array.type] = _TableWriter(
                        path, kind, found.array.type, by_value=by_value
                    )
                    stack.callback(writer.close)
                writer.add(message, found.array, found.metadata)
    except (ValueError, pa.ArrowException) as error:
        for path in paths:
            path.unlink(missing_ok=True)
        raise RecordingError(
            f"{topic} cannot be exported to {kind}: {error}",
            "leave it out with --topics, or choose another format with --to",
        ) from error
    return [(writer.path, writer.rows) for writer in writers.values()]


def _free_path(folder: Path, topic: str, suffix: str, taken: Collection[Path]) -> Path:
    """Return a path for a table that no other one has: `a/b` and `a.b` have one name."""
    name = topic.replace("/", ".").replace("\0", "_")
    numbers = itertools.count(2)
    path = folder / f"{name}{suffix}"
    while path in taken:
        path = folder / f"{name}_{next(numbers)}{suffix}"
    return path


class _TableWriter:
    """Writes the rows of one topic and type, some at a time."""

    def __init__(self, path: Path, kind: str, values: pa.DataType, *, by_value: bool) -> None:
        self.path = path
        self.rows = 0
        self._kind = kind
        self._by_value = by_value
        column = values if by_value else pa.list_(values)
        self._schema = pa.schema(
            [
                ("time", pa.timestamp("ns", "UTC")),
                ("sequence", pa.int64()),
                ("metadata", pa.string()),
                ("data", column if kind != "csv" else pa.string()),
            ]
        )
        self._pending: list[tuple[int, int, str, pa.Array]] = []
        self._bytes = 0
        self._writer = self._open()

    def add(self, message: Message, array: pa.Array, metadata: dict[str, Any]) -> None:
        """Add a message. Raises ValueError if it has far more values than bytes."""
        size = python_size(array)
        if size > max(MAX_SIZE, 64 * array.nbytes):
            raise ValueError(f"{len(array)} values of {array.type} in {array.nbytes} bytes")
        text = metadata_codec.encode(metadata).decode() if metadata else "{}"
        sequence = getattr(message, "sequence", 0)
        self._pending.append((message.time, sequence, text, array))
        self._bytes += size if self._kind == "csv" else array.nbytes
        if len(self._pending) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the rest, and close the file."""
        self._flush()
        self._writer.close()

    def _open(self) -> Any:
        if self._kind == "parquet":
            import pyarrow.parquet as pq

            return pq.ParquetWriter(self.path, self._schema)
        if self._kind == "arrow":
            return pa.ipc.new_file(str(self.path), self._schema)
        import pyarrow.csv

        return pyarrow.csv.CSVWriter(str(self.path), self._schema)

    def _flush(self) -> None:
        pending, self._pending, self._bytes = self._pending, [], 0
        if not pending:
            return
        lengths = [len(array) for *_, array in pending]
        values = pa.concat_arrays([array for *_, array in pending])
        if self._by_value:
            repeated = [
                each for each, count in zip(pending, lengths, strict=True) for _ in range(count)
            ]
            columns = [[each[n] for each in repeated] for n in range(3)]
            data = values
        else:
            columns = [[each[n] for each in pending] for n in range(3)]
            offsets = [0]
            for length in lengths:
                offsets.append(offsets[-1] + length)
            data = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
        if self._kind == "csv":
            data = pa.array([_as_text(value) for value in to_python(data)], pa.string())
        arrays = [
            pa.array(columns[0], pa.timestamp("ns", "UTC")),
            pa.array(columns[1], pa.int64()),
            pa.array(columns[2], pa.string()),
            data,
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self.rows += len(columns[0])


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def to_rerun(source: Path, target: Path) -> None:
    """Convert a recording to a file of rerun, with rerun's own converter, which knows no Arrow.

    Raises:
        RecordingError: rerun is not installed, or refuses the file.
    """
    beside = Path(sys.executable).with_name("rerun")
    program = str(beside) if beside.exists() else shutil.which("rerun")
    if program is None:
        raise RecordingError(
            "rerun is not installed", "pip install rerun-sdk; rerun also opens MCAP files directly"
        )
    try:
        with ExitStack() as stack:
            source = stack.enter_context(as_mcap(source, target))
            reader = stack.enter_context(RecordingReader(source))
            if needs_copy(reader):
                folder = stack.enter_context(temporary_folder(target.absolute().parent, ".rrd-"))
                # Its name is that of the recording in the viewer.
                source = folder / source.name
                write_copy(reader, source)
            _convert(program, source, target)
    except (OSError, ValueError) as error:
        raise RecordingError(f"cannot export to {target}: {error}") from error


def _convert(program: str, source: Path, target: Path) -> None:
    done = subprocess.run(
        [program, "mcap", "convert", str(source), "-o", str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RecordingError(f"rerun cannot convert {source}: {' '.join(last)}")
