"""What a crash of a recorder has lost is counted by the next one, exactly."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.writer import RecordingFile
from dorad.record.recorder.leftovers import Leftovers, Origin, lost_between, recover_left
from tests.record.files import START, encoded

OWN = Origin("d-1", "rec")


def crashed(
    path, numbers, *, part=1, first_part=1, start_ns=1, own=OWN, begin=(), end=None, per_chunk=3
):
    """Write a file of these numbers by topic, which ends without a summary."""
    file = RecordingFile(path, "test")
    about = {"dataflow": own.dataflow, "node": own.node, "part": str(part)}
    about |= {"start_ns": str(start_ns), "first_part": str(first_part)}
    about |= {f"begin.{topic}": str(number) for topic, number in begin}
    file.describe("dora.recording", about)
    lines = sorted((number, topic) for topic, each in numbers.items() for number in each)
    for count, (number, topic) in enumerate(lines, start=1):
        file.add(topic, number & 0xFFFFFFFF, START + number, encoded(pa.array([number])))
        if count % per_chunk == 0:
            file.flush()
    file.flush()
    if end is not None:
        file.describe("dora.end", end)
        file.finish()
    file.close()
    return path


def recovered(*paths):
    return [path for path, _ in recover_left(paths)]


SPLIT = {"reason": "split"}


@given(
    st.sets(st.integers(0, 60), min_size=1),
    st.integers(0, 40),
    st.sampled_from([0, 7, (1 << 32) - 20]),
)
def test_messages_that_no_file_has_are_counted(tmp_path_factory, kept, late, origin):
    """Before the first, in gaps between, where the recorder has dropped them, and at the end."""
    path = tmp_path_factory.mktemp("crash") / "a.mcap"
    crashed(path, {"a/x": [origin + number for number in kept]}, begin=[("a/x", origin)])
    begin = max(kept) + 1 + late
    lost = lost_between(recovered(path), [path], OWN, {"a/x": origin + begin})
    assert lost == {"a/x": begin - len(kept)}


def test_the_losses_of_several_crashes_in_succession_add_up(tmp_path):
    """What one that was killed had counted of the crash before it is in no file."""
    files = [
        crashed(tmp_path / "1.mcap", {"a/x": [0, 1]}, end={"reason": "its disk was full"}),
        crashed(tmp_path / "2.mcap", {"a/x": [4]}, start_ns=2, begin=[("a/x", 3)]),
        crashed(tmp_path / "3.mcap", {"a/x": [7]}, start_ns=3, begin=[("a/x", 6)]),
    ]
    assert lost_between(recovered(*files), files, OWN, {"a/x": 9, "a/y": 2}) == {"a/x": 4, "a/y": 2}


def test_parts_of_a_recording_count_with_what_they_say_themselves(tmp_path):
    parts = [
        crashed(tmp_path / "1.mcap", {"a/x": [0, 2]}, end=SPLIT | {"dropped.a/x": "1"}),
        crashed(tmp_path / "2.mcap", {"a/x": [3]}, part=2, end=SPLIT | {"dropped.a/x": "1"}),
        crashed(tmp_path / "3.mcap", {"a/x": [4, 6], "a/y": [1]}, part=3),
    ]
    known = recovered(*parts)
    begin = {"a/x": 9, "a/y": 3, "a/z": 2}
    assert lost_between(known, parts, OWN, begin) == {"a/x": 3, "a/y": 2, "a/z": 2}
    # Of files that were removed nothing is known.
    assert lost_between(known, parts[1:], OWN, begin) == {"a/x": 2, "a/y": 1}
    assert lost_between(known, parts[::2], OWN, begin) == {"a/x": 3, "a/y": 1}


def test_files_of_others_and_recorders_that_have_ended_count_for_nothing(tmp_path):
    other = crashed(tmp_path / "a.mcap", {"a/x": [0]}, own=Origin("d-2", "rec"), start_ns=9)
    ended = crashed(tmp_path / "b.mcap", {"a/x": [0]}, start_ns=8, end={"reason": "test"})
    earlier = crashed(tmp_path / "c.mcap", {"a/x": [0]})
    paths = [other, ended, earlier]
    assert lost_between(recovered(*paths), paths, OWN, {"a/x": 5}) == {}
    (tmp_path / "d.mcap").write_bytes(b"")
    assert lost_between([], [tmp_path / "d.mcap", tmp_path / "gone.mcap"], OWN, {"a/x": 5}) == {}


def test_files_are_recovered_meanwhile(tmp_path):
    path = crashed(tmp_path / "a.mcap", {"a/x": [0, 1]})
    lines = []
    left = Leftovers(OWN, {"a/x": 4}, lines.append, [path, tmp_path / "gone.mcap"])
    assert left.lost() == {"a/x": 2}
    assert any("recovered" in line for line in lines)
    with RecordingReader(path) as reader:
        assert reader.status == "RECOVERED"
    assert Leftovers(OWN, {}, lines.append, []).lost() == {}


@pytest.mark.parametrize("per_chunk", [1, 4, 100])
def test_the_first_number_of_each_topic_is_found(tmp_path, per_chunk):
    path = crashed(tmp_path / "a.mcap", {"a/x": [3, 5, 9], "a/y": [4]}, per_chunk=per_chunk)
    with RecordingReader(path) as reader:
        assert reader.first_numbers(["a/x", "a/y", "a/z"]) == {"a/x": 3, "a/y": 4}
