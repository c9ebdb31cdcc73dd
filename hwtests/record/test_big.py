"""Recordings and exports of one very large message, whose size in MiB may be given as BIG."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dorad.record.damage import dropped_in
from dorad.record.mcap.reader import RecordingReader
from tests.cli.running import write as write_flow
from tests.harness.commands import command_server, run_command
from tests.harness.dataflow import clean_environment
from tests.record.export.test_export import measured
from tests.record.files import write

BIG = int(os.environ.get("BIG", "1500"))
POSES = 3000
pytestmark = pytest.mark.timeout(3600)

FLOW = f"""
    nodes:
      - {{id: cam, path: cam.py, args: "{BIG}", inputs: {{pose: arm/pose}}, outputs: [image]}}
      - {{id: arm, path: arm.py, args: "{POSES}", outputs: [pose]}}
"""
CAM = """
    import sys

    import numpy as np
    import pyarrow as pa
    from dora import Node

    node, pixels, sent = Node(), pa.array(np.zeros(int(sys.argv[1]) << 20, np.uint8)), 0
    for event in node:
        if event["type"] == "INPUT" and not sent:
            sent += 1
            node.send_output("image", pixels)
"""
ARM = """
    import sys
    import time

    import pyarrow as pa
    from dora import Node

    node, begin = Node(), time.monotonic()
    for number in range(int(sys.argv[1])):
        time.sleep(max(0.0, begin + number / 1000 - time.monotonic()))
        node.send_output("pose", pa.array([number]))
"""


def test_while_a_large_message_is_recorded_no_small_one_is_dropped(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The queue is longer than any pause of a busy machine; how long the message takes is not."""
    write_flow(tmp_path, FLOW, cam=CAM, arm=ARM)
    runtime = tmp_path_factory.mktemp("run")
    environ = clean_environment(Path(sys.executable).parent, {"XDG_RUNTIME_DIR": str(runtime)})
    options = ("-o", "a.mcap", "--exit-when-nodes-finish", "--queue-size", str(POSES))
    with command_server():
        done = run_command(
            "dora", ("record", "dataflow.yml", *options), cwd=tmp_path, env=environ, timeout=600
        )
    assert done.returncode == 0, done.stdout + done.stderr
    with RecordingReader(tmp_path / "a.mcap") as reader:
        assert reader.status == "COMPLETE"
        assert not dropped_in(reader.metadata)
        poses = [each.sequence for each in reader.messages(topics={"arm/pose"})]
        assert poses == list(range(POSES))
        (image,) = reader.messages(topics={"cam/image"})
        assert len(image.decode().array) == BIG << 20


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of one message of pixels."""
    pixels = pa.array(np.zeros(BIG << 20, np.uint8))
    path = tmp_path_factory.mktemp("big") / "a.mcap"
    return write(path, [("cam/image", 0, pixels, {})], compression="none")


@pytest.mark.parametrize(
    "options", [("parquet",), ("arrow",), ("csv", "--large-cells")], ids=["parquet", "arrow", "csv"]
)
def test_an_export_takes_three_times_the_largest_message(
    recording: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    begin_s = time.monotonic()
    code, peak = measured("record", "export", recording, "-o", tmp_path / "out", "--to", *options)
    print(f"{options[0]}: {time.monotonic() - begin_s:.0f} s, {peak} MiB")
    assert code == 0
    assert peak < max(512, 3 * BIG + 100)
