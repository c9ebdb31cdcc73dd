"""The standard library of types, `std/…`, as data; names and fields are those of dora 1.x."""

from __future__ import annotations

import functools

from dorad.dataflow.types.model import (
    Field,
    ListOf,
    Named,
    Param,
    Scalar,
    Shape,
    Struct,
    TypeDef,
)

PREFIX = "std/"
BYTES = "std/core/v1/Bytes"
"""An input of this type accepts everything."""
TIMER = "std/core/v1/UInt64"
"""The type of a timer's ticks."""

_V = "std/math/v1/Vector3"

_SCALARS = {
    "Float32": ("Float32", "32-bit floating-point numbers"),
    "Float64": ("Float64", "64-bit floating-point numbers"),
    "Int8": ("Int8", "8-bit integers"),
    "Int16": ("Int16", "16-bit integers"),
    "Int32": ("Int32", "32-bit integers"),
    "Int64": ("Int64", "64-bit integers"),
    "UInt8": ("UInt8", "8-bit unsigned integers"),
    "UInt16": ("UInt16", "16-bit unsigned integers"),
    "UInt32": ("UInt32", "32-bit unsigned integers"),
    "UInt64": ("UInt64", "64-bit unsigned integers"),
    "String": ("Utf8", "text"),
    "Bytes": ("LargeBinary", "bytes; an input of this type accepts everything"),
    "Bool": ("Boolean", "booleans"),
}

_STRUCTS: dict[str, tuple[str, dict[str, str]]] = {
    _V: (
        "a vector, a position, or an angular velocity",
        {"x": "Float64", "y": "Float64", "z": "Float64"},
    ),
    "std/math/v1/Quaternion": (
        "an orientation",
        {"x": "Float64", "y": "Float64", "z": "Float64", "w": "Float64"},
    ),
    "std/math/v1/Pose": (
        "a position and an orientation",
        {"position": _V, "orientation": "std/math/v1/Quaternion"},
    ),
    "std/math/v1/Transform": (
        "the position and orientation of one frame in another",
        {"translation": _V, "rotation": "std/math/v1/Quaternion"},
    ),
    "std/control/v1/Twist": (
        "velocities: linear in m/s, angular in rad/s",
        {"linear": _V, "angular": _V},
    ),
    "std/control/v1/JointState": (
        "the joints of a robot, one entry of each list for each joint",
        {
            "names": "List<Utf8>",
            "positions": "List<Float64>",
            "velocities": "List<Float64>",
            "efforts": "List<Float64>",
        },
    ),
    "std/control/v1/Odometry": (
        "a pose and its rate of change, in a frame",
        {"pose": "std/math/v1/Pose", "twist": "std/control/v1/Twist", "frame_id": "Utf8"},
    ),
    "std/media/v1/Image": (
        "an uncompressed picture; `encoding` is its pixel format",
        {"width": "UInt32", "height": "UInt32", "encoding": "Utf8", "data": "LargeBinary"},
    ),
    "std/media/v1/PointCloud": (
        "points, in one row or in the rows of the sensor",
        {"points": "LargeBinary", "width": "UInt32", "height": "UInt32"},
    ),
    "std/media/v1/AudioFrame": (
        "interleaved samples of all channels",
        {"sample_rate": "UInt32", "channels": "UInt32", "data": "LargeBinary"},
    ),
    "std/vision/v1/BoundingBox": (
        "a rectangle in a picture, with a label",
        {
            "x": "Float32",
            "y": "Float32",
            "width": "Float32",
            "height": "Float32",
            "confidence": "Float32",
            "label": "Utf8",
        },
    ),
    "std/vision/v1/Detection": (
        "the objects found in a picture",
        {"boxes": "List<std/vision/v1/BoundingBox>"},
    ),
    "std/vision/v1/Segmentation": (
        "the class of each pixel of a picture",
        {
            "width": "UInt32",
            "height": "UInt32",
            "num_classes": "UInt32",
            "mask": "LargeBinary",
            "class_names": "List<Utf8>",
        },
    ),
}

_PARAMS = {
    "std/media/v1/AudioFrame": (Param("sample_type", "f32", "the type of a sample"),),
}

CONVERSIONS = (
    ("std/core/v1/UInt8", "std/core/v1/UInt32"),
    ("std/core/v1/UInt32", "std/core/v1/UInt64"),
    ("std/core/v1/Int32", "std/core/v1/Int64"),
    ("std/core/v1/Float32", "std/core/v1/Float64"),
)
"""Implicit conversions, one step each."""


@functools.cache
def standard_types() -> tuple[TypeDef, ...]:
    """Return all types of the standard library, package by package."""
    types = [
        TypeDef(f"std/core/v1/{name}", Scalar(arrow), text)
        for name, (arrow, text) in _SCALARS.items()
    ]
    for urn, (text, fields) in _STRUCTS.items():
        shape = Struct(tuple(Field(name, _shape(kind)) for name, kind in fields.items()))
        types.append(TypeDef(urn, shape, text, _PARAMS.get(urn, ())))
        if urn == "std/media/v1/Image":
            types.append(
                TypeDef(
                    "std/media/v1/CompressedImage",
                    Scalar("LargeBinary"),
                    "a picture in a file format such as JPEG or PNG",
                )
            )
    return tuple(types)


def _shape(text: str) -> Shape:
    if text.startswith("List<"):
        return ListOf(_shape(text[5:-1]))
    return Named(text) if "/" in text else Scalar(text)
