"""Several numpy arrays as one Arrow array, and back."""

from typing import Any

import numpy as np
import pyarrow as pa


def pack(arrays: dict[str, np.ndarray]) -> tuple[pa.StructArray, dict[str, Any]]:
    """Return one struct with a list for each array, and the shapes as metadata."""
    lists = [pa.ListArray.from_arrays([0, each.size], each.reshape(-1)) for each in arrays.values()]
    shapes = {f"shape.{name}": list(each.shape) for name, each in arrays.items()}
    return pa.StructArray.from_arrays(lists, list(arrays)), shapes


def unpack(value: pa.StructArray, metadata: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays, as views of the message."""
    return {
        field.name: value.field(field.name)
        .values.to_numpy()
        .reshape(metadata[f"shape.{field.name}"])
        for field in value.type
    }
