"""Write a recording as a LeRobot dataset, version 3.0, of one episode.

data/chunk-000/file-000.parquet             a row for each moment
meta/info.json                              the features, the rate, where the files are
meta/stats.json                             smallest, largest, mean and deviation of features
meta/tasks.parquet                          the one task
meta/episodes/chunk-000/file-000.parquet    the one episode
"""

from __future__ import annotations

import bisect
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dorad.record import extras
from dorad.record.reader import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dorad.record.sources import Recording

MAX_MOMENTS = 10_000_000
"""Rows of a dataset."""

MAX_VALUES = 4096
"""Longest array that is a column; pictures belong into the videos of a dataset."""

FILE = "chunk-000/file-000"
TASK = "recorded"

_Series = tuple[list[int], list[pa.Array]]
"""Times and arrays of the messages of one topic."""


def to_lerobot(
    recording: Recording, folder: Path, topics: Sequence[str] | None, fps: float
) -> list[tuple[Path, int]]:
    """Write topics of numbers as a dataset of one episode; return its file with its rows.

    Every row is one moment, `fps` of them a second, with the newest message of each topic. Topics
    that are not numbers of one type and a constant length are left out.

    Raises:
        RecordingError: no topic can be exported, or the folder cannot be written.
    """
    try:
        series = dict(_series(recording, topics))
    except ValueError as error:
        raise RecordingError(f"a message cannot be exported: {error}") from error
    if not series:
        raise RecordingError("no topic has numbers of a constant length", "choose with --topics")
    moments = _moments(series, fps)
    count = len(moments)
    columns = {
        f"observation.{topic.replace('/', '.')}": _sampled(times, arrays, moments)
        for topic, (times, arrays) in series.items()
    }
    columns |= {
        "timestamp": np.array([(at - moments[0]) / 1e9 for at in moments], np.float32),
        "frame_index": np.arange(count),
        "episode_index": np.zeros(count, np.int64),
        "index": np.arange(count),
        "task_index": np.zeros(count, np.int64),
    }
    path = folder / "data" / f"{FILE}.parquet"
    try:
        _write(path, pa.table({name: _column(values) for name, values in columns.items()}))
        _write_meta(folder / "meta", columns, fps)
    except OSError as error:
        raise RecordingError(f"cannot export to {folder}: {error.strerror}") from error
    return [(path, count)]


def _series(recording: Recording, topics: Sequence[str] | None) -> Iterator[tuple[str, _Series]]:
    for topic in recording.topics():
        if extras.is_own(topic) or (topics is not None and topic not in topics):
            continue
        times: list[int] = []
        arrays: list[pa.Array] = []
        for message in recording.messages(topics=frozenset((topic,))):
            array = message.decode().array
            if not _fits(array, arrays[0] if arrays else array):
                arrays.clear()
                break
            times.append(message.time)
            arrays.append(array)
        if arrays:
            yield topic, (times, arrays)


def _fits(array: pa.Array, first: pa.Array) -> bool:
    """Return True if an array can be in the same column as the first one."""
    numbers = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    same = array.type == first.type and len(array) == len(first)
    return numbers and same and not array.null_count and 0 < len(array) <= MAX_VALUES


def _moments(series: Mapping[str, _Series], fps: float) -> range:
    """Return the times of the rows: from the first moment at which every topic has a message."""
    begin = max(times[0] for times, _ in series.values())
    end = max(times[-1] for times, _ in series.values())
    found = range(begin, end + 1, int(1e9 / fps))
    if len(found) > MAX_MOMENTS:
        message = (
            f"{(end - begin) / 1e9:.0f} s at {fps:g} a second are more than {MAX_MOMENTS} rows"
        )
        raise RecordingError(message, "choose a smaller --fps, or cut the recording")
    return found


def _sampled(times: list[int], arrays: list[pa.Array], moments: range) -> np.ndarray[Any, Any]:
    """Return a row of values for each moment."""
    chosen = [arrays[max(0, bisect.bisect_right(times, at) - 1)] for at in moments]
    values: np.ndarray[Any, Any] = pa.concat_arrays(chosen).to_numpy()
    return values if len(arrays[0]) == 1 else values.reshape(len(moments), -1)


def _column(values: np.ndarray[Any, Any]) -> pa.Array:
    """Return a column: of numbers, or of lists of the same length."""
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def _write_meta(meta: Path, columns: Mapping[str, np.ndarray[Any, Any]], fps: float) -> None:
    count = len(columns["index"])
    meta.mkdir(parents=True, exist_ok=True)
    info = {
        "codebase_version": "v3.0",
        "robot_type": None,
        "fps": int(fps) if fps.is_integer() else fps,
        "total_episodes": 1,
        "total_frames": count,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "splits": {"train": "0:1"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": {
            name: {"dtype": values.dtype.name, "shape": [*values.shape[1:]] or [1], "names": None}
            for name, values in columns.items()
        },
    }
    stats = {name: _statistics(values) for name, values in columns.items()}
    (meta / "info.json").write_text(json.dumps(info, indent=4))
    (meta / "stats.json").write_text(json.dumps(stats, indent=4))
    _write(meta / "tasks.parquet", _tasks())
    episode = {
        "episode_index": [0],
        "tasks": [[TASK]],
        "length": [count],
        "dataset_from_index": [0],
        "dataset_to_index": [count],
        **{f"{kind}/{what}_index": [0] for kind in ("data", "meta/episodes") for what in _PLACES},
        **{
            f"stats/{name}/{key}": [value]
            for name, own in stats.items()
            for key, value in own.items()
        },
    }
    _write(meta / "episodes" / f"{FILE}.parquet", pa.table(episode))


_PLACES = ("chunk", "file")


def _statistics(values: np.ndarray[Any, Any]) -> dict[str, list[Any]]:
    """Return figures of each value of a feature, as lists."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # recorded values may be infinite
        found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    return {**{key: each.tolist() for key, each in found.items()}, "count": [len(rows)]}


def _tasks() -> pa.Table:
    """Return the table of tasks, whose index is the text of the task, as pandas stores it."""
    table = pa.table({"task_index": [0], "task": [TASK]})
    columns = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy,
            "metadata": None,
        }
        for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
    return table.replace_schema_metadata({"pandas": json.dumps(about)})
