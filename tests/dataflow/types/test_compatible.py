"""Compatible types of outputs and inputs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.types.compatible import detail, fits
from dorad.dataflow.types.library import Library
from dorad.dataflow.types.standard import standard_types
from dorad.dataflow.types.urn import parse_urn
from tests.dataflow.reading import unhurried

CORE = "std/core/v1/"
AUDIO = "std/media/v1/AudioFrame"


@pytest.mark.parametrize(
    ("source", "target", "fit"),
    [
        (f"{CORE}UInt8", f"{CORE}UInt8", True),
        (f"{CORE}UInt8", f"{CORE}UInt32", True),
        (f"{CORE}UInt8", f"{CORE}UInt64", True),
        (f"{CORE}UInt64", f"{CORE}UInt8", False),
        (f"{CORE}UInt8", f"{CORE}UInt16", False),
        (f"{CORE}Int32", f"{CORE}Int64", True),
        (f"{CORE}Float32", f"{CORE}Float64", True),
        (f"{CORE}Float64", f"{CORE}Float32", False),
        (f"{CORE}Int32", f"{CORE}Float64", False),
        ("std/media/v1/Image", f"{CORE}Bytes", True),
        (f"{CORE}Bytes", "std/media/v1/Image", False),
        (f"{AUDIO}[sample_type=f32]", AUDIO, True),
        (AUDIO, f"{AUDIO}[sample_type=f32]", True),
        (f"{AUDIO}[sample_type=f32]", f"{AUDIO}[sample_type=i16]", False),
        (f"{AUDIO}[sample_type=f32]", f"{AUDIO}[layout=planar]", True),
        ("std/math/v1/Pose", "std/math/v1/Transform", False),
    ],
)
def test_the_rules_of_the_standard_types(source: str, target: str, fit: bool) -> None:
    assert fits(parse_urn(source), parse_urn(target)) is fit


def test_rules_of_the_file_apply_in_at_most_three_steps() -> None:
    chain = [parse_urn(f"my/v1/T{number}") for number in range(5)]
    rules = list(itertools.pairwise(chain))
    assert fits(chain[0], chain[3], rules)
    assert not fits(chain[0], chain[4], rules)
    assert not fits(chain[1], chain[0], rules)


def test_rules_of_the_file_chain_with_those_of_the_standard_types() -> None:
    rules = [(parse_urn(f"{CORE}UInt64"), parse_urn("my/v1/Stamp"))]
    assert fits(parse_urn(f"{CORE}UInt8"), parse_urn("my/v1/Stamp"), rules)


def test_a_rule_with_parameters_applies_to_these_only() -> None:
    rules = [(parse_urn("a/v1/T[unit=m]"), parse_urn("b/v1/T"))]
    assert fits(parse_urn("a/v1/T[unit=m]"), parse_urn("b/v1/T"), rules)
    assert fits(parse_urn("a/v1/T"), parse_urn("b/v1/T"), rules)
    assert not fits(parse_urn("a/v1/T[unit=mm]"), parse_urn("b/v1/T"), rules)


@unhurried
@given(
    links=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10),
    start=st.integers(0, 5),
    end=st.integers(0, 5),
)
def test_fits_reaches_types_within_three_steps(
    links: list[tuple[int, int]], start: int, end: int
) -> None:
    types = [parse_urn(f"my/v1/T{number}") for number in range(6)]
    reached = {start}
    for _ in range(3):
        reached |= {b for a, b in links if a in reached}
    rules = [(types[a], types[b]) for a, b in links]
    assert fits(types[start], types[end], rules) is (end in reached)


def test_the_detail_of_a_mismatch_is_the_first_field_that_differs() -> None:
    library = Library()

    def between(source: str, target: str) -> str | None:
        first, second = library.get(source), library.get(target)
        assert first is not None
        assert second is not None
        return detail(library, first.shape, second.shape)

    pose, transform = "std/math/v1/Pose", "std/math/v1/Transform"
    assert between(pose, transform) == 'it has no field "translation"'
    quaternion, vector = "std/math/v1/Quaternion", "std/math/v1/Vector3"
    assert between(quaternion, vector) == 'it has also a field "w"'
    box = "std/vision/v1/BoundingBox"
    assert between(quaternion, box) == 'field "x" is Float64, not Float32'
    assert between("std/core/v1/Bool", box) is None


def test_the_standard_library_is_whole() -> None:
    names = {definition.urn.removeprefix("std/") for definition in standard_types()}
    core = "Float32 Float64 Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 String Bytes Bool"
    assert names == {
        *(f"core/v1/{name}" for name in core.split()),
        *(f"math/v1/{name}" for name in ("Vector3", "Quaternion", "Pose", "Transform")),
        *(f"control/v1/{name}" for name in ("Twist", "JointState", "Odometry")),
        *(f"media/v1/{name}" for name in ("Image", "CompressedImage", "PointCloud", "AudioFrame")),
        *(f"vision/v1/{name}" for name in ("BoundingBox", "Detection", "Segmentation")),
    }
