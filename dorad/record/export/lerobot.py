"""Write recordings as a LeRobot dataset, version 3.0: an episode of each.

data/chunk-000/file-000.parquet             a row for each moment of the first episode
videos/FEATURE/chunk-000/file-000.mp4       the pictures of a camera in the first episode
meta/info.json                              the features, the rate, where the files are
meta/stats.json                             smallest, largest, mean and deviation of features
meta/tasks.parquet                          the texts of the tasks
meta/episodes/chunk-000/file-000.parquet    a row for each episode
"""

from __future__ import annotations

import bisect
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dorad.record.encoding import extras
from dorad.record.export.topictables import LeftOut
from dorad.record.mcap.reader import RecordingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dorad.record.export.video import VideoWriter
    from dorad.record.sources import Recording

MAX_MOMENTS = 10_000_000
"""Rows of an episode."""

MAX_VALUES = 4096
"""Longest array that is a column."""

FILES = 1000
"""Files of a folder."""

FILE = "chunk-000/file-000"
TASK = "recorded"

_Series = tuple[list[int], list[pa.Array]]
"""Times and arrays of the messages of one topic."""


class _Figures:
    """Smallest, largest, mean and deviation of each value, or colour, of a feature."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[np.ndarray[Any, Any]] = []
        self._values = 0
        self._shape: tuple[int, ...] = (-1,)

    def add(self, rows: np.ndarray[Any, Any], count: int, shape: tuple[int, ...] = (-1,)) -> None:
        """Add rows of values, which are `count` items; figures get the shape."""
        values = rows.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # recorded values may be infinite
            part = (values.min(0), values.max(0), values.sum(0), (values**2).sum(0))
            self._parts.append(np.stack(part))
            self._parts = [_joined(self._parts)]
        self._values += len(rows)
        self._shape = shape
        self.count += count

    def join(self, other: _Figures) -> None:
        """Add what another one has."""
        self._parts = [_joined([*self._parts, *other._parts])]
        self._values += other._values
        self._shape = other._shape
        self.count += other.count

    def as_lists(self) -> dict[str, list[Any]]:
        """Return the figures as LeRobot has them."""
        (low, high, total, squares) = self._parts[0]
        with np.errstate(invalid="ignore", over="ignore"):
            mean = total / self._values
            deviation = np.sqrt(np.maximum(squares / self._values - mean**2, 0))
        figures = {"min": low, "max": high, "mean": mean, "std": deviation}
        lists = {name: each.reshape(self._shape).tolist() for name, each in figures.items()}
        return {**lists, "count": [self.count]}


def _joined(parts: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    low, high, total, squares = zip(*parts, strict=True)
    return np.stack([np.min(low, 0), np.max(high, 0), np.sum(total, 0), np.sum(squares, 0)])


class _Episode(NamedTuple):
    """What an episode has written."""

    path: Path
    length: int
    task: str
    features: Mapping[str, Mapping[str, Any]]
    figures: Mapping[str, _Figures]
    left_out: Mapping[str, int]
    """Messages of topics that a dataset cannot hold."""


def to_lerobot(
    recordings: Sequence[Recording],
    folder: Path,
    topics: Sequence[str] | None,
    fps: float,
    tasks: Sequence[str] = (TASK,),
) -> tuple[list[tuple[Path, int]], list[LeftOut]]:
    """Write recordings as the episodes of a dataset; return their tables with their rows.

    Every row is one moment, `fps` of them a second, with the newest message of each topic. Topics
    that are neither pictures nor numbers of one type and a constant length are left out, and
    returned, too. Of `tasks` there is one, or one for each recording.

    Raises:
        RecordingError: no topic can be exported, episodes differ in their topics, pictures need a
            package that is not installed, or the folder cannot be written.
    """
    texts = list(tasks) * len(recordings) if len(tasks) == 1 else list(tasks)
    if len(texts) != len(recordings):
        raise RecordingError(
            f"there are {len(recordings)} recordings and {len(texts)} tasks",
            "give one task for all of them, or one for each",
        )
    episodes: list[_Episode] = []
    try:
        for number, (recording, task) in enumerate(zip(recordings, texts, strict=True)):
            first = sum(episode.length for episode in episodes)
            index = {text: at for at, text in enumerate(dict.fromkeys(texts))}[task]
            episode = _write_episode(recording, folder, topics, fps, (number, first, index, task))
            if episodes and episode.features != episodes[0].features:
                raise RecordingError(
                    f"{recording.path} has other features than {recordings[0].path}:"
                    f" {_difference(episode.features, episodes[0].features)}",
                    "choose those that all have with --topics",
                )
            episodes.append(episode)
        _write_meta(folder / "meta", episodes, fps)
    except ValueError as error:
        raise RecordingError(f"a message cannot be exported: {error}") from error
    except OSError as error:
        raise RecordingError(f"cannot export to {folder}: {error.strerror}") from error
    left_out: Counter[str] = sum((Counter(each.left_out) for each in episodes), Counter())
    reason = "neither pictures nor numbers of one type and a constant length"
    return (
        [(episode.path, episode.length) for episode in episodes],
        [LeftOut(topic, "", count, reason) for topic, count in sorted(left_out.items())],
    )


def _difference(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    names = [name for name in {**expected, **actual} if actual.get(name) != expected.get(name)]
    return ", ".join(sorted(names))


def _write_episode(
    recording: Recording,
    folder: Path,
    topics: Sequence[str] | None,
    fps: float,
    place: tuple[int, int, int, str],
) -> _Episode:
    """Write the table and the videos of an episode; `place` is its number, first row and task."""
    number, first, task_index, task = place
    series: dict[str, _Series] = {}
    cameras: dict[str, list[int]] = {}
    left_out: dict[str, int] = {}
    for topic, messages in recording.topics().items():
        if extras.is_own(topic) or (topics is not None and topic not in topics):
            continue
        if times := _camera_times(recording, topic):
            cameras[topic] = times
        elif (numbers := _series(recording, topic)) is not None:
            series[topic] = numbers
        elif messages:
            left_out[topic] = messages
    if not series and not cameras:
        raise RecordingError(
            f"no topic of {recording.path} has pictures, or numbers of a constant length",
            "choose with --topics",
        )
    moments = _moments([*cameras.values(), *(times for times, _ in series.values())], fps)
    count = len(moments)
    columns = {
        f"observation.{topic.replace('/', '.')}": _sampled(times, arrays, moments)
        for topic, (times, arrays) in series.items()
    }
    columns |= {
        "timestamp": (np.arange(count) / fps).astype(np.float32),
        "frame_index": np.arange(count),
        "episode_index": np.full(count, number),
        "index": np.arange(first, first + count),
        "task_index": np.full(count, task_index),
    }
    features: dict[str, Mapping[str, Any]] = {
        name: {"dtype": values.dtype.name, "shape": [*values.shape[1:]] or [1], "names": None}
        for name, values in columns.items()
    }
    figures = {}
    for name, values in columns.items():
        figures[name] = _Figures()
        figures[name].add(values.reshape(count, -1), count)
    place_text = f"chunk-{number // FILES:03d}/file-{number % FILES:03d}"
    for topic in cameras:
        name = f"observation.images.{topic.replace('/', '.')}"
        path = folder / "videos" / name / f"{place_text}.mp4"
        features[name], figures[name] = _write_video(recording, topic, moments, fps, path)
    path = folder / "data" / f"{place_text}.parquet"
    _write(path, pa.table({name: _column(values) for name, values in columns.items()}))
    return _Episode(path, count, task, features, figures, left_out)


def _camera_times(recording: Recording, topic: str) -> list[int]:
    """Return the times of a topic's messages; none if the first one is not a picture."""
    from dorad.record.export.video import is_picture

    times: list[int] = []
    for message in recording.messages(topics=frozenset((topic,))):
        if not times and not is_picture(message.decode()):
            return []
        times.append(message.time)
    return times


def _write_video(
    recording: Recording, topic: str, moments: range, fps: float, path: Path
) -> tuple[Mapping[str, Any], _Figures]:
    """Write the newest picture of each moment; return the feature and its figures."""
    from dorad.record.export.video import VideoWriter, pixels_of

    figures = _Figures()
    video: VideoWriter | None = None
    path.parent.mkdir(parents=True, exist_ok=True)
    at = 0
    try:
        before: np.ndarray[Any, Any] | None = None
        for message in recording.messages(topics=frozenset((topic,))):
            if before is not None:
                assert video is not None
                while at < len(moments) and moments[at] < message.time:
                    video.add(before)
                    at += 1
            if at == len(moments):
                break
            before = pixels_of(message.decode())
            if video is None:
                video = VideoWriter(path, before.shape, fps)
            elif before.shape != video.shape:
                raise RecordingError(
                    f"the pictures of {topic} have several sizes", "leave it out with --topics"
                )
            figures.add(before[::8, ::8].reshape(-1, 3) / 255, 1, (3, 1, 1))
        assert before is not None
        assert video is not None
        for _ in range(at, len(moments)):
            video.add(before)
    finally:
        if video is not None:
            video.close()
    return video.feature, figures


def _series(recording: Recording, topic: str) -> _Series | None:
    times: list[int] = []
    arrays: list[pa.Array] = []
    for message in recording.messages(topics=frozenset((topic,))):
        array = message.decode().array
        if not _fits(array, arrays[0] if arrays else array):
            return None
        times.append(message.time)
        arrays.append(array)
    return (times, arrays) if arrays else None


def _fits(array: pa.Array, first: pa.Array) -> bool:
    """Return True if an array can be in the same column as the first one."""
    numbers = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    same = array.type == first.type and len(array) == len(first)
    return numbers and same and not array.null_count and 0 < len(array) <= MAX_VALUES


def _moments(times: Sequence[list[int]], fps: float) -> range:
    """Return the times of the rows: from the first moment at which every topic has a message."""
    begin = max(each[0] for each in times)
    end = max(each[-1] for each in times)
    moments = range(begin, end + 1, int(1e9 / fps))
    if len(moments) > MAX_MOMENTS:
        message = (
            f"{(end - begin) / 1e9:.0f} s at {fps:g} a second are more than {MAX_MOMENTS} rows"
        )
        raise RecordingError(message, "choose a smaller --fps, or cut the recording")
    return moments


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


def _write_meta(meta: Path, episodes: Sequence[_Episode], fps: float) -> None:
    meta.mkdir(parents=True, exist_ok=True)
    features = episodes[0].features
    tasks = list(dict.fromkeys(episode.task for episode in episodes))
    cameras = [name for name, feature in features.items() if feature["dtype"] == "video"]
    places = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    info = {
        "codebase_version": "v3.0",
        "robot_type": None,
        "fps": int(fps) if fps.is_integer() else fps,
        "total_episodes": len(episodes),
        "total_frames": sum(episode.length for episode in episodes),
        "total_tasks": len(tasks),
        "chunks_size": FILES,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 500,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": f"data/{places}.parquet",
        "video_path": f"videos/{{video_key}}/{places}.mp4" if cameras else None,
        "features": features,
    }
    figures = {name: _Figures() for name in features}
    for episode in episodes:
        for name, own in episode.figures.items():
            figures[name].join(own)
    stats = {name: each.as_lists() for name, each in figures.items()}
    (meta / "info.json").write_text(json.dumps(info, indent=4))
    (meta / "stats.json").write_text(json.dumps(stats, indent=4))
    _write(meta / "tasks.parquet", _tasks(tasks))
    rows = [_episode_row(number, each, cameras, fps) for number, each in enumerate(episodes)]
    first = 0
    for row, episode in zip(rows, episodes, strict=True):
        row |= {"dataset_from_index": first, "dataset_to_index": first + episode.length}
        first += episode.length
    _write(meta / "episodes" / f"{FILE}.parquet", pa.Table.from_pylist(rows))


def _episode_row(
    number: int, episode: _Episode, cameras: Sequence[str], fps: float
) -> dict[str, Any]:
    place = {"chunk_index": number // FILES, "file_index": number % FILES}
    row: dict[str, Any] = {
        "episode_index": number,
        "tasks": [episode.task],
        "length": episode.length,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    for kind in ("data", *(f"videos/{name}" for name in cameras)):
        row |= {f"{kind}/{key}": value for key, value in place.items()}
    for name in cameras:
        row[f"videos/{name}/from_timestamp"] = 0.0
        row[f"videos/{name}/to_timestamp"] = episode.length / fps
    for name, own in episode.figures.items():
        row |= {f"stats/{name}/{key}": value for key, value in own.as_lists().items()}
    return row


def _tasks(tasks: Sequence[str]) -> pa.Table:
    """Return the table of tasks, whose index is the text of the task, as pandas stores it."""
    table = pa.table({"task_index": range(len(tasks)), "task": tasks})
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
