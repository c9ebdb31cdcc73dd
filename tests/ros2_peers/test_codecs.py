"""The codecs against rclpy: every type of test_msgs, bit by bit."""

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dorad.ros2 import definitions, encode
from dorad.ros2.decode import decoder
from dorad.ros2.encode import encoder
from tests.harness.dataflow import clean_environment

from .conftest import PROGRAMS

PACKAGES = ("test_msgs", "std_msgs", "sensor_msgs", "geometry_msgs", "std_srvs")


@pytest.fixture(scope="module")
def samples(ros: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [ros / "bin/python", PROGRAMS / "samples.py", *PACKAGES],
        env=clean_environment(ros / "bin"),
        stdout=subprocess.PIPE,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_type_is_read_as_rclpy_has_written_it_and_written_the_same(
    ros: Path, samples: list[dict[str, Any]]
) -> None:
    parts = {"msg": 1, "srv": 2, "action": 3}
    files = [
        (file, number)
        for kind, number in parts.items()
        for package in PACKAGES
        for file in ros.glob(f"share/{package}/{kind}/*.json")
    ]
    assert len({each["name"] for each in samples}) == sum(number for _, number in files) > 80
    for each in samples:
        message = definitions.read(Path(each["file"]))[each["name"]]
        cdr = bytes.fromhex(each["cdr"])
        array = decoder(message)(cdr)
        assert same(array.to_pylist(), [each["value"]]), each["name"]
        array.validate(full=True)
        written = encoder(message)(array)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encode, "_PADDING", b"\xff" * 8)
            padded = encoder(message)(array)
        # Fast CDR writes whatever its memory has between two values, and we write zeros.
        values = [one == other for one, other in zip(written, padded, strict=True)]
        # It also estimates the length, and may leave more behind the end.
        assert masked(written, values) == masked(cdr[: len(written)], values), each["name"]


def masked(cdr: bytes, values: list[bool]) -> list[int]:
    """Return the bytes of the values, without those between them."""
    return [one for one, is_value in zip(cdr, values, strict=True) if is_value]


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            same(found[key], value) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return math.isclose(found, expected)
    return bool(found == expected)
