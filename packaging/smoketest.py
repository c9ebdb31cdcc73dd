"""Test the trimmed environment of the package dorad; a missing part stops the build.

Nodes may use: Arrow arrays, compute, IPC, Parquet, CSV, JSON, Feather, datasets; numpy; Pillow
for JPEG, PNG and WebP; dorad with the C part of its data plane, and dora.
"""

import importlib
import io
import pkgutil

import dora
import numpy as np
import pyarrow as pa
import pyarrow.acero
import pyarrow.csv
import pyarrow.dataset
import pyarrow.feather
import pyarrow.fs
import pyarrow.ipc
import pyarrow.json
from PIL import Image
from pyarrow import compute, parquet

import dorad
from dorad.shm import native


def main() -> None:
    """Raise if a part is missing."""
    table = pa.table({"number": np.arange(4), "word": ["a", "b", "a", None]})
    assert compute.sum(table["number"]).as_py() == 6
    assert table.group_by("word").aggregate([("number", "sum")]).num_rows == 3
    assert table.join(table, "number").num_rows == 4

    file = pa.BufferOutputStream()
    parquet.write_table(table, file)
    read = parquet.read_table(pa.BufferReader(file.getvalue()), filters=[("number", ">", 1)])
    assert read.num_rows == 2

    stream = io.BytesIO()
    with pyarrow.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    assert pyarrow.ipc.open_stream(stream.getvalue()).read_all() == table

    picture = io.BytesIO()
    for kind in ("JPEG", "PNG", "WEBP"):
        picture.seek(0)
        Image.new("RGB", (8, 8), "red").save(picture, kind)
        assert Image.open(picture).convert("RGB").size == (8, 8)

    assert np.linalg.inv(np.eye(3)).trace() == 3.0
    assert np.random.default_rng(1).random() < 1
    assert dora.Node
    assert native.describe() == "native"
    for module in pkgutil.walk_packages(dorad.__path__, "dorad."):
        if "templates" not in module.name and not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                # It comes with ROS 2, in whose Python these modules run.
                if error.name != "rclpy" or not module.name.startswith("dorad.ros2."):
                    raise


main()
