"""Pictures in messages, whatever they are encoded as, are a few pixels of RGB, or a reason."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dorad.control.pictures import (
    DecoderMissingError,
    Picture,
    PictureError,
    resized,
    small_picture,
)
from dorad.daemon.subscription.reducing import MAX_BYTES, MAX_ELEMENTS, Reducer

RED, BLUE = (250, 10, 20), (20, 10, 250)
SIZE = (64, 48)


def halves(width: int = 640, height: int = 480) -> np.ndarray[Any, Any]:
    """Return a picture that is red at the left and blue at the right."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED, BLUE
    return pixels


def file(kind: str, pixels: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def raw(data: np.ndarray[Any, Any] | bytes) -> pa.Array:
    numbers = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data.reshape(-1)
    return pa.array(numbers)


def ends(shown: Picture | None) -> tuple[list[int], list[int]]:
    """Return the first and the last pixel."""
    assert shown is not None
    assert len(shown.pixels) == shown.width * shown.height * 3
    return list(shown.pixels[:3]), list(shown.pixels[-3:])


def near(one: list[int], other: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= 12 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("encoding", "made"),
    [
        ("rgb8", lambda p: p),
        ("bgr8", lambda p: p[:, :, ::-1]),
        ("RGBA8", lambda p: np.dstack([p, p[:, :, :1]])),
        ("bgra8", lambda p: np.dstack([p[:, :, ::-1], p[:, :, :1]])),
        ("8UC3", lambda p: p[:, :, ::-1]),
    ],
)
def test_plain_pixels_in_any_order_of_colours(encoding: str, made: Any) -> None:
    about = {"width": 640, "height": 480, "encoding": encoding}
    shown = small_picture(raw(np.ascontiguousarray(made(halves()))), about, SIZE)
    assert ends(shown) == (list(RED), list(BLUE))
    assert shown is not None
    assert (shown.width, shown.height, shown.was) == (64, 48, f"640x480 {encoding}")


@pytest.mark.parametrize("encoding", ["jpeg", "jpg", "png", "webp"])
def test_files_are_decoded_and_made_small(encoding: str) -> None:
    data = file({"jpg": "jpeg"}.get(encoding, encoding), halves())
    shown = small_picture(raw(data), {"encoding": encoding}, SIZE)
    left, right = ends(shown)
    assert near(left, RED) and near(right, BLUE)
    assert shown is not None
    assert (shown.width, shown.height, shown.was) == (64, 48, f"640x480 {encoding}")


def test_pictures_of_ros_are_structs_whose_rows_may_have_bytes_between_them() -> None:
    rows = np.zeros((480, 2000), np.uint8)
    rows[:, : 640 * 3] = halves().reshape(480, -1)
    image = {
        "height": 480, "width": 640, "encoding": "rgb8", "is_bigendian": 0, "step": 2000,
        "data": rows.reshape(-1),
    }  # fmt: skip
    assert ends(small_picture(pa.array([image]), {}, SIZE)) == (list(RED), list(BLUE))
    packed = {"format": "rgb8; jpeg compressed bgr8", "data": file("jpeg", halves())}
    left, right = ends(small_picture(pa.array([packed]), {}, SIZE))
    assert near(left, RED) and near(right, BLUE)


@pytest.mark.parametrize("order", ["<", ">"])
def test_depth_is_grey_names_its_range_and_what_is_not_known_is_black(order: str) -> None:
    depth = np.full((48, 64), 3000, np.uint16)
    depth[:, :32], depth[0, 0] = 500, 0
    about = {
        "width": 64, "height": 48, "encoding": "16UC1", "step": 128, "is_bigendian": order == ">",
        "data": depth.astype(f"{order}u2").tobytes(),
    }  # fmt: skip
    shown = small_picture(pa.array([about]), {}, SIZE)
    assert shown is not None and shown.was == "64x48 16UC1, 500 to 3000"
    assert ends(shown) == ([0, 0, 0], [255, 255, 255])
    metres = (depth / 1000).astype(np.float32).reshape(-1)
    metres[1] = np.nan
    about = {"width": 64, "height": 48, "encoding": "32FC1"}
    assert ends(small_picture(pa.array(metres), about, SIZE)) == ends(shown)
    png = raw(file("png", depth))
    shown = small_picture(png, {"encoding": "png"}, SIZE)
    assert shown is not None and shown.was == "64x48 png, 500 to 3000"


def test_a_smaller_picture_is_the_mean_of_what_it_stands_for() -> None:
    board = (np.indices((90, 90)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None]
    assert set(np.unique(resized(board, (30, 30)))) <= {113, 142}
    assert resized(board, (200, 200)) is board, "never enlarged"


def test_a_picture_that_would_be_huge_once_it_is_decoded_is_refused() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    def bomb(width: int, height: int) -> pa.Array:
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        rows = zlib.compress(b"\0" * 100_000)
        signature = b"\x89PNG\r\n\x1a\n"
        return raw(signature + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))

    for width, height in ((4000, 4000), (10_000, 9000), (60_000, 60_000)):
        with pytest.raises(PictureError, match=r"too large|too many pixels"):
            small_picture(bomb(width, height), {"encoding": "png"}, SIZE)


JPEG, PNG = file("jpeg", halves(64, 48)), file("png", halves(64, 48))


@given(st.sampled_from([JPEG, PNG, b""]), st.integers(0, 2000), st.binary(max_size=60))
def test_a_damaged_file_is_a_picture_or_a_reason(data: bytes, at: int, noise: bytes) -> None:
    broken = data[:at] + noise + data[at + len(noise) :]
    for encoding in ("jpeg", "png", "webp"):
        try:
            small_picture(raw(broken), {"encoding": encoding}, SIZE)
        except PictureError as error:
            assert str(error)


@pytest.mark.parametrize(
    "about",
    [
        {"width": 1000, "height": 1000, "encoding": "rgb8"},
        {"width": -1, "height": 10, "encoding": "rgb8"},
        {"width": True, "height": 30, "encoding": "mono8"},
        {"width": "10", "height": 1, "encoding": "rgb8"},
        {"width": 10, "height": 1, "encoding": 5},
        {"width": 10, "height": 1, "encoding": "h264"},
        {},
    ],
)
def test_metadata_that_do_not_fit_the_data_make_no_picture(about: dict[str, Any]) -> None:
    assert small_picture(pa.array(np.zeros(30, np.uint8)), about, SIZE) is None


def test_a_robot_without_pillow_sends_a_file_as_it_is_unless_it_is_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DecoderMissingError, match="needs Pillow"):
        small_picture(raw(JPEG), {"encoding": "jpeg"}, SIZE)
    reducer = Reducer(size=SIZE)
    array, metadata = reducer.reduce(raw(JPEG), {"encoding": "jpeg"})
    assert array is not None and array.to_numpy().tobytes() == JPEG
    array, metadata = reducer.reduce(raw(JPEG + bytes(MAX_BYTES)), {"encoding": "jpeg"})
    assert array is not None and len(array) == 0
    assert "needs Pillow" in metadata["preview"]


def test_a_robot_sends_the_pixels_of_a_file_or_the_reason_why_it_has_none() -> None:
    reducer = Reducer(size=SIZE)
    array, metadata = reducer.reduce(raw(file("jpeg", halves())), {"encoding": "jpeg", "a": 1})
    assert array is not None and array.nbytes == 64 * 48 * 3
    assert metadata == {
        "a": 1, "width": 64, "height": 48, "encoding": "rgb8", "preview": "640x480 jpeg"
    }  # fmt: skip
    array, metadata = reducer.reduce(raw(JPEG[:100]), {"encoding": "jpeg"})
    assert array is not None and len(array) == 0 and "a damaged JPEG" in metadata["preview"]


def test_long_lists_of_a_struct_are_cut_and_named_where_it_would_be_too_large() -> None:
    cloud = {"frame": "lidar", "points": np.zeros(100_000), "few": [1, 2]}
    array, metadata = Reducer(size=SIZE).reduce(pa.array([cloud]), {})
    assert array is not None
    array.validate(full=True)
    (value,) = array.to_pylist()
    assert len(value["points"]) == MAX_ELEMENTS and (value["frame"], value["few"]) == (
        "lidar",
        [1, 2],
    )
    assert metadata["preview"] == f"{MAX_ELEMENTS} elements of points[100000]"
