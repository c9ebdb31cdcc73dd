"""Datasets with cameras, several episodes and tasks, read by what LeRobot publishes of them."""

import json
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dorad.cli.main import run_command
from dorad.record.export.lerobot import to_lerobot
from dorad.record.mcap.reader import RecordingError
from dorad.record.sources import open_recording
from tests.record.files import numbers, write

needs_av = pytest.mark.skipif(find_spec("av") is None, reason="PyAV is not installed")
WIDTH, HEIGHT = 64, 48


def picture(shade: int) -> tuple[pa.Array, dict[str, Any]]:
    pixels = np.full((HEIGHT, WIDTH, 3), shade, np.uint8)
    pixels[:, :, 2] = 0
    metadata = {"width": WIDTH, "height": HEIGHT, "encoding": "rgb8"}
    return pa.array(pixels.reshape(-1)), metadata


def drive(path: Path, *, shades: tuple[int, ...] = (50, 100, 150, 200), joints: int = 2) -> Path:
    """Write a recording of a camera and of joints, ten messages a second for each shade."""
    lines = []
    for number, shade in enumerate(shades):
        for part in range(10):
            at = number * 1000 + part * 100
            lines.append(("cam/image", at, *picture(shade)))
            lines.append(("arm/joints", at, pa.array([float(number)] * joints), {}))
    return write(path, lines)


def export(folder: Path, *paths: Path, **options: Any) -> list[tuple[Path, int]]:
    recordings = [open_recording(path) for path in paths]
    try:
        written, left_out = to_lerobot(recordings, folder, None, 10.0, **options)
    finally:
        for each in recordings:
            each.__exit__(None, None, None)
    assert not left_out
    return written


def frames(path):
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@needs_av
def test_a_camera_is_a_video_with_a_picture_for_each_row(tmp_path):
    ((table, rows),) = export(tmp_path / "set", drive(tmp_path / "a.mcap"))
    info = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())
    name = "observation.images.cam.image"
    feature = info["features"][name]
    assert (feature["dtype"], feature["shape"]) == ("video", [HEIGHT, WIDTH, 3])
    assert feature["info"]["video.codec"] == "h264"
    path = info["video_path"].format(video_key=name, chunk_index=0, file_index=0)
    shown = frames(tmp_path / "set" / path)
    assert len(shown) == rows == 40
    joints = pq.read_table(table)["observation.arm.joints"].to_pylist()
    for frame, (joint, _) in zip(shown, joints, strict=True):
        assert abs(int(frame[HEIGHT // 2, WIDTH // 2, 0]) - (50 + 50 * joint)) < 6
        assert frame[HEIGHT // 2, WIDTH // 2, 2] < 12
    stats = json.loads((tmp_path / "set" / "meta" / "stats.json").read_text())[name]
    (red,), (green,), (blue,) = (part[0] for part in stats["mean"])  # shape 3, 1, 1
    assert red == green == pytest.approx(125 / 255)
    assert blue == 0
    assert stats["count"] == [40]


@needs_av
def test_episodes_have_their_tasks_their_files_and_their_place_in_the_whole(tmp_path):
    paths = [drive(tmp_path / "a.mcap"), drive(tmp_path / "b.mcap", shades=(10, 250))]
    written = export(tmp_path / "set", *paths, tasks=("fold", "open"))
    assert [rows for _, rows in written] == [40, 20]
    meta = tmp_path / "set" / "meta"
    info = json.loads((meta / "info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 60, 2)
    assert info["splits"] == {"train": "0:2"}
    first, second = pq.read_table(meta / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert (first["tasks"], second["tasks"]) == (["fold"], ["open"])
    assert (second["dataset_from_index"], second["dataset_to_index"]) == (40, 60)
    name = "observation.images.cam.image"
    place = {key: second[f"videos/{name}/{key}_index"] for key in ("chunk", "file")}
    path = info["video_path"].format(
        video_key=name, chunk_index=place["chunk"], file_index=place["file"]
    )
    assert len(frames(tmp_path / "set" / path)) == 20
    assert second[f"videos/{name}/to_timestamp"] == 2.0
    data = info["data_path"].format(
        chunk_index=second["data/chunk_index"], file_index=second["data/file_index"]
    )
    rows = pq.read_table(tmp_path / "set" / data).to_pylist()
    assert [row["index"] for row in rows] == list(range(40, 60))
    assert {(row["episode_index"], row["task_index"]) for row in rows} == {(1, 1)}
    tasks = pq.read_table(meta / "tasks.parquet").to_pylist()
    assert tasks == [{"task_index": 0, "task": "fold"}, {"task_index": 1, "task": "open"}]
    stats = json.loads((meta / "stats.json").read_text())["observation.arm.joints"]
    assert (stats["count"], stats["max"], stats["mean"]) == ([60], [3.0, 3.0], [70 / 60] * 2)


@needs_av
def test_a_camera_of_jpeg_pictures_is_a_video(tmp_path):
    import av

    pixels = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
    encoder.time_base = Fraction(1, 10)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuvj420p")
    jpeg = bytes(encoder.encode(frame)[0])
    data = pa.array(np.frombuffer(jpeg, np.uint8))
    lines = [("cam/image", n * 100, data, {"encoding": "jpeg"}) for n in range(5)]
    export(tmp_path / "set", write(tmp_path / "a.mcap", lines))
    (path,) = (tmp_path / "set" / "videos").rglob("*.mp4")
    shown = frames(path)
    assert len(shown) == 5
    assert abs(int(shown[2][5, 5, 1]) - 100) < 6


@needs_av
def test_pictures_of_odd_sizes_get_one_more_line(tmp_path):
    pixels = pa.array(np.full(5 * 3, 90, np.uint8))
    metadata = {"width": 5, "height": 3, "encoding": "mono8"}
    lines = [("cam/image", n * 100, pixels, metadata) for n in range(3)]
    export(tmp_path / "set", write(tmp_path / "a.mcap", lines))
    (path,) = (tmp_path / "set" / "videos").rglob("*.mp4")
    assert frames(path)[0].shape == (4, 6, 3)


@needs_av
@pytest.mark.parametrize("damaged", [b"no jpeg", b""])
def test_a_damaged_picture_is_named(tmp_path, damaged):
    data = pa.array(np.frombuffer(damaged, np.uint8))
    lines = [("cam/image", 0, data, {"encoding": "jpeg"})]
    with pytest.raises(RecordingError, match="a jpeg picture cannot be decoded"):
        export(tmp_path / "set", write(tmp_path / "a.mcap", lines))


@needs_av
def test_pictures_of_several_sizes_are_refused(tmp_path):
    lines = [("cam/image", 0, *picture(5))]
    small = {"width": 2, "height": 2, "encoding": "mono8"}
    lines += [("cam/image", 100, pa.array(np.zeros(4, np.uint8)), small)]
    with pytest.raises(RecordingError, match="the pictures of cam/image have several sizes"):
        export(tmp_path / "set", write(tmp_path / "a.mcap", lines))


def joints_only(path, joints):
    return write(path, [("arm/joints", 0, pa.array([1.0] * joints), {})])


def test_episodes_with_other_features_are_refused(tmp_path):
    paths = [joints_only(tmp_path / f"{n}.mcap", n) for n in (2, 3)]
    with pytest.raises(RecordingError, match=r"3\.mcap has other features.*observation.arm.joints"):
        export(tmp_path / "set", *paths)


def test_tasks_are_one_or_as_many_as_episodes(tmp_path):
    paths = [joints_only(tmp_path / f"{n}.mcap", 2) for n in range(3)]
    with pytest.raises(RecordingError, match="3 recordings and 2 tasks"):
        export(tmp_path / "set", *paths, tasks=("a", "b"))
    export(tmp_path / "other", *paths, tasks=("same",))
    tasks = pq.read_table(tmp_path / "other" / "meta" / "tasks.parquet")["task"].to_pylist()
    assert tasks == ["same"]


def test_without_pyav_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    lines = [("cam/image", 0, *picture(5))]
    with pytest.raises(RecordingError, match=r"pip install 'dorad\[lerobot\]'"):
        export(tmp_path / "set", write(tmp_path / "a.mcap", lines))


def test_topics_that_a_dataset_cannot_hold_are_named(tmp_path, capsys):
    lines = [*numbers(9), ("a/text", 50, pa.array(["x"]), {})]
    lines += [("arm/joints", n, pa.array([1.0] * (n or 7)), {}) for n in range(4)]
    paths = [str(write(tmp_path / f"{name}.mcap", lines)) for name in "ab"]
    command = ("record", "export", *paths, "--to", "lerobot", "-o")
    assert run_command((*command, str(tmp_path / "out"))) == 3
    err = capsys.readouterr().err
    for what in ("2 messages of a/text", "8 messages of arm/joints"):
        assert f"lerobot cannot hold {what}: neither pictures nor numbers" in err
    assert pq.read_table(tmp_path / "out" / "data").num_rows > 0
    chosen = (*command, str(tmp_path / "chosen"), "--topics", "source")
    assert run_command(chosen) == 0
    assert not capsys.readouterr().err
