"""A disk of 100 MB fills at 30 MB a second: what must stay free does, and the robot runs on."""

import json
import os
import subprocess
from contextlib import suppress
from types import SimpleNamespace

import pytest

from dorad.record.mcap.reader import RecordingReader
from dorad.record.recorder import syncer
from dorad.record.recorder.recorder import Recorder
from dorad.record.recorder.settings import Settings
from tests.cli.running import write
from tests.harness.waiting import wait_until
from tests.record.recorder.test_recorder import DEADLINE_S, item, sequences


class SmallDisk:
    """A disk of 100 MB, which has as much free as the folder's files leave."""

    def __init__(self, folder, size=100 << 20):
        self.folder, self.size = folder, size

    def __call__(self, _descriptor):
        used = 0
        for each in self.folder.rglob("*.mcap"):
            with suppress(FileNotFoundError):  # it was removed for others
                used += each.stat().st_size
        free = max(0, self.size - used) >> 12
        return SimpleNamespace(f_bavail=free, f_frsize=4096, f_blocks=self.size >> 12)

    @property
    def free(self):
        return self(0).f_bavail * 4096


@pytest.mark.parametrize("values", [1 << 13, 1 << 20])
def test_what_must_stay_free_of_a_small_disk_stays_free_however_fast_it_fills(
    tmp_path, monkeypatch, values
):
    """Looking at the disk twice a second, a recorder of 30 MB a second is 15 MB too late."""
    disk = SmallDisk(tmp_path)
    monkeypatch.setattr(syncer.os, "fstatvfs", disk)
    monkeypatch.setattr(syncer, "SYNC_S", DEADLINE_S)
    recorder = Recorder(Settings(tmp_path / "a.mcap", "none", min_free=40 << 20), {})
    sent = 0
    while not recorder.ended and sent < 20_000:
        recorder.put([item(sent + n, values=values) for n in range(10)])
        sent += 10
        wait_until(lambda total=sent: recorder.ended or recorder.progress.messages >= total - 200)
    outcome = recorder.end("test", {})
    assert not outcome.complete
    assert "40 MiB must stay free" in outcome.reason
    assert disk.free >= 40 << 20
    assert disk.free < (40 << 20) + (9 << 20) + syncer.END_BYTES
    assert outcome.messages + outcome.dropped["a/b"] == sent
    assert len(sequences(tmp_path / "a.mcap")) == outcome.messages


@pytest.mark.long
def test_a_black_box_makes_room_on_a_small_disk_and_goes_on(tmp_path, monkeypatch):
    disk = SmallDisk(tmp_path, 24 << 20)
    monkeypatch.setattr(syncer.os, "fstatvfs", disk)
    monkeypatch.setattr("dorad.record.recorder.series.SEGMENT_S", 0.0)
    recorder = Recorder(Settings(tmp_path, keep_s=600.0, min_free=4 << 20), {})
    sent = 0
    while sent < 80 and not recorder.ended:  # 40 MiB
        recorder.put([item(sent, values=1 << 16)])
        sent += 1
        wait_until(lambda total=sent: recorder.ended or recorder.progress.messages >= total)
        assert disk.free >= 4 << 20
    outcome = recorder.end("test", {})
    assert outcome.complete, outcome.reason
    assert outcome.messages == sent == 80


CAMERA = """
    import json
    import os
    import time

    import pyarrow as pa
    from dora import Node

    node, frame = Node(), pa.array(bytes(1 << 20), pa.uint8())
    begin, least = time.monotonic(), 1 << 60
    for number in range(90):  # 30 MB a second, 30 MB more than the disk has room for
        time.sleep(max(0.0, begin + number / 30 - time.monotonic()))
        node.send_output("frame", frame)
        for part in range(10):
            node.send_output("pose", pa.array([10 * number + part]))
        disk = os.statvfs(os.environ["DISK"])
        least = min(least, disk.f_bavail * disk.f_frsize)
    json.dump({"least": least}, open("sent", "w"))
"""
SINK = """
    from dora import Node

    print("seen", sum(event["type"] == "INPUT" for event in Node()), flush=True)
"""
FLOW = """
    nodes:
      - {id: camera, path: camera.py, outputs: [frame, pose]}
      - {id: sink, path: sink.py, inputs: {pose: {source: camera/pose, queue_size: 1000}}}
"""
MIN_FREE = 40 << 20


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_dataflow_runs_on_when_its_recording_has_ended_for_want_of_room(tmp_path, dora):
    write(tmp_path, FLOW, camera=CAMERA, sink=SINK)
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", disk], check=False)
    if done.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        options = ("-o", "disk/a.mcap", "--min-free", str(MIN_FREE), "--exit-when-nodes-finish")
        done = dora(tmp_path, "record", "dataflow.yml", *options, DISK=str(disk))
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "40 MiB must stay free" in said
        assert "seen 900" in said
        assert json.loads((tmp_path / "sent").read_text())["least"] >= MIN_FREE
        with RecordingReader(disk / "a.mcap") as reader:
            assert reader.status == "INCOMPLETE"
            for topic, least in (("camera/frame", 50), ("camera/pose", 500)):
                recorded = [each.sequence for each in reader.messages(topics={topic})]
                assert recorded == list(range(len(recorded)))
                assert len(recorded) >= least
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
