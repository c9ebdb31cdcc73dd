"""Camera, splitter and Parquet recorder: image metadata, and timestamps that are datetimes."""

import json
from typing import Any

import pyarrow.parquet
import pytest

from tests.harness.process import Outcome

from .conftest import Case
from .tap import Tap

SECONDS = 10
RAW = {"encoding": "rgb8", "width": 64, "height": 48, "timestamp": "AUTO"}


@pytest.fixture(scope="module")
def outcome(run_case: Case) -> Outcome:
    return run_case("images", "images.yml", stop_after=SECONDS)


@pytest.fixture(scope="module")
def tap(outcome: Outcome) -> Tap:
    return Tap(outcome.folder)


@pytest.fixture(scope="module")
def positions(outcome: Outcome) -> list[dict[str, Any]]:
    file = outcome.folder / "logs" / "position.parquet"
    assert file.exists(), f"the recorder wrote no position.parquet:\n{outcome.output}"
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
    return rows


def test_it_ends_with_0(outcome: Outcome) -> None:
    outcome.expect(0)


def test_the_recorder_reports_ready_once(tap: Tap) -> None:
    assert tap.values("status") == [["READY"]]


@pytest.mark.parametrize("image", ["raw", "left", "right"])
def test_at_least_25_images_arrive(tap: Tap, image: str) -> None:
    count = len(tap.inputs(image))
    assert count >= 25, f"{count} of {image} in {SECONDS} s at 10 Hz"


def test_raw_images_are_9216_bytes(tap: Tap) -> None:
    shapes = {(event["arrow"], event["len"]) for event in tap.inputs("raw")}
    assert shapes == {("uint8", 9216)}


def test_raw_images_carry_the_cameras_metadata(tap: Tap) -> None:
    for event in tap.inputs("raw"):
        assert event["meta"] == RAW


@pytest.mark.parametrize(("image", "size"), [("left", 16), ("right", 48)])
def test_split_images_are_jpeg_of_the_boxs_size(tap: Tap, image: str, size: int) -> None:
    for event in tap.inputs(image):
        assert event["arrow"] == "uint8"
        assert event["head"][:3] == [255, 216, 255], "not the first bytes of a JPEG"
        found = {key: event["meta"].get(key) for key in ("encoding", "width", "height")}
        assert found == {"encoding": "jpeg", "width": size, "height": size}


def test_there_are_as_many_left_as_right(tap: Tap) -> None:
    """The stop may come between the two images of the last pair."""
    assert abs(len(tap.inputs("left")) - len(tap.inputs("right"))) <= 1


def test_nothing_follows_the_manual_stop_but_what_was_queued(tap: Tap) -> None:
    others = [(event["type"], event["id"]) for event in tap.events if event["type"] != "INPUT"]
    assert others == [("STOP", "MANUAL")]
    stop = next(n for n, event in enumerate(tap.events) if event["type"] == "STOP")
    assert len(tap.events) - stop - 1 <= 3 * 10, "more than three queues hold"


def test_more_than_40_positions_are_recorded(positions: list[dict[str, Any]]) -> None:
    assert len(positions) > 40, f"{len(positions)} rows in {SECONDS} s at 20 Hz"


def test_each_recorded_position_is_32_bytes(positions: list[dict[str, Any]]) -> None:
    assert {len(row["data"]) for row in positions} == {32}, "buffers()[1] is not just the data"


def test_a_senders_own_timestamp_arrives_as_the_number_it_was(
    positions: list[dict[str, Any]],
) -> None:
    for row in positions:
        metadata = json.loads(row["metadata"])
        assert list(metadata) == ["timestamp"]
        assert isinstance(metadata["timestamp"], int)
        assert metadata["timestamp"] > 10**18, f"not nanoseconds since 1970: {metadata}"


def test_images_are_not_recorded_since_their_timestamp_is_a_datetime(
    outcome: Outcome, tap: Tap
) -> None:
    assert not (outcome.folder / "logs" / "image.parquet").exists()
    refused = outcome.output.count(
        "Serialize error: Object of type datetime is not JSON serializable"
    )
    images = len(tap.inputs("left"))
    assert abs(refused - images) <= 2, f"{refused} images refused of about {images}"
