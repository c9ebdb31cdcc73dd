"""Write recordings for other tools: tables of each topic, rerun's files, the layout of LeRobot."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dorad.node import metadata as metadata_codec
from dorad.record import extras
from dorad.record.reader import RecordingError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from dorad.record.sources import Message, Recording

BATCH_ROWS = 1000
BATCH_BYTES = 64 << 20

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
        for message in recording.messages(topics=frozenset((topic,))):
            found = message.decode()
            writer = writers.get(found.array.type)
            if writer is None:
                path = _free_path(folder, topic, _SUFFIXES[kind], {*taken, *paths})
                paths.append(path)
                writer = writers[found.array.type] = _TableWriter(
                    path, kind, found.array.type, by_value=by_value
                )
            writer.add(message, found.array, found.metadata)
    except ValueError as error:
        raise RecordingError(f"a message of {topic} cannot be exported: {error}") from error
    finally:
        for writer in writers.values():
            writer.close()
    return [(writer.path, writer.rows) for writer in writers.values()]


def _free_path(folder: Path, topic: str, suffix: str, taken: Collection[Path]) -> Path:
    """Return a path for a table that no other one has: `a/b` and `a.b` have one name."""
    name = topic.replace("/", ".")
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
        """Add a message."""
        text = metadata_codec.encode(metadata).decode() if metadata else "{}"
        sequence = getattr(message, "sequence", 0)
        self._pending.append((message.time, sequence, text, array))
        self._bytes += array.nbytes
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
            data = pa.array([_as_text(value) for value in data.to_pylist()], pa.string())
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
    """Convert a recording to a file of rerun, with rerun's own converter.

    Raises:
        RecordingError: rerun is not installed, or refuses the file.
    """
    beside = Path(sys.executable).with_name("rerun")
    program = str(beside) if beside.exists() else shutil.which("rerun")
    if program is None:
        raise RecordingError(
            "rerun is not installed", "pip install rerun-sdk; rerun also opens MCAP files directly"
        )
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


def to_lerobot(
    recording: Recording, folder: Path, topics: Sequence[str] | None, fps: float
) -> list[tuple[Path, int]]:
    """Write topics of numbers in the layout of a LeRobot dataset of one episode.

    Every row is one moment, `fps` of them a second, with the newest message of each topic. Topics
    that are not numbers of a constant length are left out.

    Raises:
        RecordingError: no topic can be exported, or the folder cannot be written.
    """
    try:
        columns = dict(_series(recording, topics))
    except ValueError as error:
        raise RecordingError(f"a message cannot be exported: {error}") from error
    if not columns:
        raise RecordingError("no topic has numbers of a constant length", "choose with --topics")
    begin = max(times[0] for times, _ in columns.values())
    end = max(times[-1] for times, _ in columns.values())
    step = int(1e9 / fps)
    if (end - begin) // step > MAX_MOMENTS:
        message = (
            f"{(end - begin) / 1e9:.0f} s at {fps:g} a second are more than {MAX_MOMENTS} rows"
        )
        raise RecordingError(message, "choose a smaller --fps, or cut the recording")
    moments = list(range(begin, end + 1, step))
    table = {
        "timestamp": pa.array([(at - begin) / 1e9 for at in moments], pa.float32()),
        "frame_index": pa.array(range(len(moments)), pa.int64()),
        "episode_index": pa.array([0] * len(moments), pa.int64()),
        "index": pa.array(range(len(moments)), pa.int64()),
        "task_index": pa.array([0] * len(moments), pa.int64()),
    }
    features = {}
    for topic, (times, arrays) in columns.items():
        name = f"observation.{topic.replace('/', '.')}"
        table[name] = _sampled(times, arrays, moments)
        features[name] = {"dtype": str(arrays[0].type), "shape": [len(arrays[0])], "names": None}
    return _write_lerobot(folder, pa.table(table), features, fps)


_Series = tuple[list[int], list[pa.Array]]


def _series(recording: Recording, topics: Sequence[str] | None) -> Iterator[tuple[str, _Series]]:
    for topic in recording.topics():
        if extras.is_own(topic) or (topics is not None and topic not in topics):
            continue
        times: list[int] = []
        arrays: list[pa.Array] = []
        for message in recording.messages(topics=frozenset((topic,))):
            array = message.decode().array
            fits = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
            if not fits or array.null_count or (arrays and len(array) != len(arrays[0])):
                arrays.clear()
                break
            if len(array) > MAX_VALUES:
                arrays.clear()
                break
            times.append(message.time)
            arrays.append(array)
        if arrays:
            yield topic, (times, arrays)


MAX_MOMENTS = 10_000_000
"""Rows of a LeRobot dataset."""

MAX_VALUES = 4096
"""Longest array that is a column of a LeRobot dataset; pictures belong into its videos."""


def _sampled(times: list[int], arrays: list[pa.Array], moments: list[int]) -> pa.Array:
    import bisect

    chosen = [arrays[max(0, bisect.bisect_right(times, at) - 1)] for at in moments]
    values = pa.concat_arrays(chosen)
    return pa.FixedSizeListArray.from_arrays(values, len(arrays[0]))


def _write_lerobot(
    folder: Path, table: pa.Table, features: dict[str, Any], fps: float
) -> list[tuple[Path, int]]:
    import pyarrow.parquet as pq

    path = folder / "data" / "chunk-000" / "episode_000000.parquet"
    meta = folder / "meta"
    info = {
        "codebase_version": "v2.1",
        "fps": fps,
        "total_episodes": 1,
        "total_frames": table.num_rows,
        "total_tasks": 1,
        "total_chunks": 1,
        "chunks_size": 1000,
        "splits": {"train": "0:1"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "features": {
            **{
                name: {"dtype": str(table.schema.field(name).type), "shape": [1], "names": None}
                for name in table.column_names
                if name not in features
            },
            **features,
        },
    }
    try:
        for each in (path.parent, meta):
            each.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        (meta / "info.json").write_text(json.dumps(info, indent=2))
        (meta / "tasks.jsonl").write_text('{"task_index": 0, "task": "recorded"}\n')
        episode = {"episode_index": 0, "tasks": ["recorded"], "length": table.num_rows}
        (meta / "episodes.jsonl").write_text(json.dumps(episode) + "\n")
    except OSError as error:
        raise RecordingError(f"cannot export to {folder}: {error.strerror}") from error
    return [(path, table.num_rows)]
