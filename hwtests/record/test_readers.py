"""Other programs read our recordings: rerun (Rust), @mcap/core (TypeScript), and mcap (Python).

LeRobot's loader reads our datasets. Set RERUN to the program of PyPI's rerun-sdk, MCAP_CORE to a
folder in which npm has installed @mcap/core and @mcap/nodejs, and LEROBOT to a Python that has
lerobot, torch and av; without them the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mcap.reader import make_reader

from dorad.record.export.rerun import to_rerun
from dorad.record.mcap.recovery import recover
from tests.record.encoding.test_encoding import ARRAYS
from tests.record.export.test_lerobot import HEIGHT, WIDTH, drive, export
from tests.record.files import Line, write

RERUN = os.environ.get("RERUN") or shutil.which("rerun")
MCAP_CORE = os.environ.get("MCAP_CORE")
LEROBOT = os.environ.get("LEROBOT")

SCRIPT = """
const { McapIndexedReader } = require("@mcap/core");
const { FileHandleReadable } = require("@mcap/nodejs");
const { open } = require("fs/promises");
(async () => {
  const readable = new FileHandleReadable(await open(process.argv[1], "r"));
  const reader = await McapIndexedReader.Initialize({ readable });
  let count = 0;
  for await (const message of reader.readMessages()) count += 1;
  console.log(count, reader.statistics.messageCount.toString());
})();
"""


@pytest.fixture(params=["complete", "recovered", "odd"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, int]:
    """A recording of numbers, texts and pictures, and its number of messages.

    An odd one also has every Arrow type on one topic, and a clock that is set back.
    """
    shape = {"width": 8, "height": 4, "encoding": "rgb8"}
    lines: list[Line] = []
    members = [("width", pa.uint32()), ("height", pa.uint32())]
    members += [("encoding", pa.string()), ("data", pa.large_binary())]
    for n in range(60):
        row = shape | {"data": bytes([n] * 96)}
        lines.append(("camera/typed", n * 10, pa.array([row], pa.struct(members)), {}))
        lines.append(("arm/angle", n * 10, pa.array([n / 2]), {"n": n}))
        lines.append(("arm/name", n * 10 + 1, pa.array([f"t{n}"]), {}))
        lines.append(("camera/image", n * 10 + 2, pa.array(np.full(96, n, np.uint8)), shape))
    if request.param == "odd":
        # Type after type: each gets its own channel.
        lines += [("arm/odd", 700 - 20 * n, each, {"n": n}) for n, each in enumerate(ARRAYS)]
    # The TypeScript library has no decompression.
    path = write(tmp_path / "a.mcap", lines, compression="none")
    count = len(lines)
    if request.param == "recovered":
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        count = recover(path).messages
    return path, count


@pytest.mark.skipif(RERUN is None, reason="rerun-sdk is not installed; set RERUN")
def test_rerun_finds_nothing_wrong(recording: tuple[Path, int]) -> None:
    path, count = recording
    assert RERUN is not None
    done = subprocess.run(
        [RERUN, "mcap", "check", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    about = subprocess.run(
        [RERUN, "mcap", "info", str(path)], capture_output=True, text=True, check=True
    ).stdout
    assert str(count) in about
    assert "foxglove.RawImage" in about


@pytest.mark.skipif(RERUN is None, reason="rerun-sdk is not installed; set RERUN")
def test_rerun_shows_every_type_of_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert RERUN is not None
    monkeypatch.setenv("PATH", str(Path(RERUN).parent), prepend=os.pathsep)
    lines: list[Line] = [
        (f"all/{number}", number, array, {}) for number, array in enumerate(ARRAYS)
    ]
    to_rerun(write(tmp_path / "a.mcap", lines), tmp_path / "a.rrd", None)
    command = [RERUN, "rrd", "print", "-v", str(tmp_path / "a.rrd")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "dora.Struct_" in text
    assert "McapMessage:data" not in text


@pytest.mark.skipif(MCAP_CORE is None, reason="@mcap/core is not installed; set MCAP_CORE")
def test_the_typescript_library_reads_every_message(recording: tuple[Path, int]) -> None:
    path, count = recording
    done = subprocess.run(
        ["node", "-e", SCRIPT, "--", str(path)],
        cwd=MCAP_CORE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(count), str(count)]


def test_the_python_library_reads_every_message(recording: tuple[Path, int]) -> None:
    path, count = recording
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert len(list(reader.iter_messages())) == count
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        assert summary.statistics.message_count == count


LOADER = """
import json, sys
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

joints, image = "observation.arm.joints", "observation.images.cam.image"
data = LeRobotDataset(
    "local/set", root=sys.argv[1], video_backend="pyav", delta_timestamps={joints: [-0.1, 0.0]}
)
rows = [data[at] for at in range(len(data))]
print(json.dumps({
    "episodes": data.num_episodes,
    "fps": data.fps,
    "rows": [
        {
            "episode": row["episode_index"].item(),
            "task": row["task"],
            "joints": row[joints].tolist(),
            "shape": list(row[image].shape),
            "colours": row[image].mean((1, 2)).tolist(),
        }
        for row in rows
    ],
    "mean": data.meta.stats[image]["mean"].reshape(-1).tolist(),
    "batches": [
        len(batch["task"]) for batch in torch.utils.data.DataLoader(data, batch_size=16)
    ],
}))
"""


@pytest.mark.skipif(LEROBOT is None, reason="lerobot is not installed; set LEROBOT")
def test_lerobot_loads_every_row_of_every_episode_with_its_picture_and_task(tmp_path: Path) -> None:
    assert LEROBOT is not None
    paths = [drive(tmp_path / "a.mcap"), drive(tmp_path / "b.mcap", shades=(10, 250))]
    export(tmp_path / "set", *paths, tasks=("fold", "open"))
    done = subprocess.run(
        [LEROBOT, "-c", LOADER, str(tmp_path / "set")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert (loaded["episodes"], loaded["fps"]) == (2, 10)
    shades = [(0, "fold", (50, 100, 150, 200)), (1, "open", (10, 250))]
    expected = [
        (episode, task, number, shade)
        for episode, task, own in shades
        for number, shade in enumerate(own)
        for _ in range(10)
    ]
    assert len(loaded["rows"]) == len(expected) == 60
    before: tuple[int, int] | None = None
    for row, (episode, task, number, shade) in zip(loaded["rows"], expected, strict=True):
        assert (row["episode"], row["task"]) == (episode, task)
        if before is None or before[0] != episode:
            before = (episode, number)  # at the first row there is none before
        assert row["joints"] == [[before[1]] * 2, [number] * 2]
        before = (episode, number)
        assert row["shape"] == [3, HEIGHT, WIDTH]
        assert row["colours"] == pytest.approx([shade / 255, shade / 255, 0], abs=0.04)
    assert loaded["mean"] == pytest.approx([760 / 6 / 255, 760 / 6 / 255, 0], abs=1e-6)
    assert loaded["batches"] == [16, 16, 16, 12]
