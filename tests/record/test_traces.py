"""Traces of recordings: those that a daemon would show, whatever was cut, merged or damaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dorad.cli.trace_view import view
from dorad.control import messages as m
from dorad.daemon.tracer import Tracer
from dorad.record.edit import merge
from dorad.record.encoding import extras
from dorad.record.encoding.messages import Encoded
from dorad.record.mcap.reader import RecordingError
from dorad.record.mcap.recovery import recover
from dorad.record.mcap.writer import RecordingFile
from dorad.record.traces import RecordedTraces, read_traces
from dorad.shm.hoplog import Hop
from dorad.trace import hopbatch
from dorad.trace.hopbatch import Exit, HopBatch, Losses, batches
from dorad.trace.join import Joiner
from dorad.trace.model import NodePlaces, Place
from dorad.trace.store import TraceStore
from tests.record.files import numbers, write
from tests.trace.recorded import (
    LATER,
    MS,
    START,
    Linked,
    Recorded,
    chain,
    fed,
    run_chain,
    tick,
)

PATH = "camera/tick → camera → detector → planner"
EVERY_MS = 100

Made = list[tuple[int, HopBatch]]
"""Batches, with their times in ms after START."""


def work(count: int, *, slow: int | None = None) -> Made:
    """Return what a daemon has read of a chain of nodes, ten times a second."""
    made: Made = []
    first = 0
    for number in range(count):
        nodes = chain()
        run_chain(nodes, number * EVERY_MS, work=60 if number == slow else 10)
        for node in nodes:
            at = (number + 1) * EVERY_MS
            empty = HopBatch("flow", "run", first, at * MS, node.name)
            made += ((at, each) for each in batches(empty, node.places, node.hops))
            first += len(node.hops)
    return made


def recording(path: Path, made: Made, **about: str) -> Path:
    file = RecordingFile(path, "test")
    file.describe("dora.recording", {"id": path.stem, extras.HOPS: "1", **about})
    for number, (at, batch) in enumerate(made):
        body = hopbatch.encode(batch)
        message = Encoded(extras.HOP_BATCH, b"", body, b"")
        file.add(extras.HOPS_TOPIC, number, START + at * MS, message)
        if number % 10 == 9:
            file.flush()
    file.describe("dora.end", {"status": "COMPLETE", "reason": "test"})
    file.finish()
    file.close()
    return path


def facts(traces: RecordedTraces) -> tuple[list[m.Trace], list[m.TracePath]]:
    found = traces.traces(limit=10**6, spans=True).traces
    return found, traces.trace_paths().paths


def test_the_slowest_message_of_a_recording_is_found_and_its_time_explained(
    tmp_path: Path,
) -> None:
    traces = read_traces([recording(tmp_path / "day.mcap", work(50, slow=33))])
    (path,) = traces.trace_paths().paths
    assert (path.path, path.count, path.worst) == (PATH, 50, pytest.approx(0.072))
    (slowest,) = traces.traces(slow=True, limit=1, spans=True).traces
    assert slowest.id == path.worst_id
    span = max(slowest.spans, key=lambda each: (each.done or 0) - (each.received or 0))
    assert span.node == "detector"
    # A recording has room for all, not only for one a second.
    assert len(traces.traces(limit=100).traces) == 50
    assert not traces.lacking
    assert not traces.damaged
    assert traces.traces("flow", id=slowest.id[:6]).traces == [
        msgspec.structs.replace(slowest, spans=[])
    ]
    with pytest.raises(RecordingError, match="no dataflow 'other'"):
        traces.traces("other")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 9), st.data())
def test_a_recording_has_the_traces_of_the_daemon(
    works: list[int], most: int, data: st.DataObject
) -> None:
    nodes = chain()
    for number, each in enumerate(works):
        run_chain(nodes, number * 30, work=each)
    live = Joiner()
    recorded = RecordedTraces()
    left = {node.name: [*node.hops] for node in nodes}
    places = {node.name: node.places for node in nodes}
    now = first = 0
    while any(left.values()):
        name = data.draw(st.sampled_from([name for name, hops in left.items() if hops]))
        now += 10 * MS
        hops, left[name] = left[name][:most], left[name][most:]
        live.add(name, places[name], hops, now)
        for batch in batches(HopBatch("flow", "run", first, now, name), places[name], hops):
            recorded.add(hopbatch.encode(batch), START + 10**6 * MS)
        first += len(hops)
    recorded.end()
    store = TraceStore(steady_s=0.0)
    for tree in live.settle(LATER):
        store.add("flow", tree)
    found, paths = facts(recorded)
    assert sorted(found, key=lambda each: each.id) == sorted(
        (whole() for _, whole in store.kept("flow")), key=lambda each: each.id
    )
    assert paths == store.paths("flow")


def over_machines(count: int, *, slow: int, skew: int) -> dict[str, Made]:
    """Return what the daemons of two machines have read: the second one's clock is ahead, in ms."""
    over = "beta/camera/image"
    made: dict[str, Made] = {"alpha": [], "beta": []}
    for number in range(count):
        at = number * EVERY_MS
        camera = Recorded("camera", tick("camera"), ("image",))
        link = Linked(fed(**{over: "camera/image"}))
        camera.receive("tick", at, at + 1)
        camera.send("image", at + 5, ("tick", at))
        camera.done("tick", at, at + 6)
        link.receive(over, at + 5, at + 6)
        planner = {"image": Place("image", "camera/image", local=False)}
        detector = Recorded("detector", planner)
        detector.receive("image", at + 5, at + 8 + skew)
        detector.done("image", at + 5, at + (60 if number == slow else 20) + skew)
        for machine, nodes in (("alpha", (camera, link)), ("beta", (detector,))):
            batches_of = made[machine]
            for node in nodes:
                first = sum(len(batch) for _, batch in batches_of)
                read = at + EVERY_MS + (skew if machine == "beta" else 0)
                empty = HopBatch(
                    "flow", f"run of {machine}", first, read * MS, node.name, machine=machine
                )
                batches_of += ((read, each) for each in batches(empty, node.places, node.hops))
    return made


@pytest.mark.parametrize("merged", [False, True])
def test_recordings_of_several_machines_show_whole_traces_and_paths(
    tmp_path: Path, merged: bool
) -> None:
    made = over_machines(30, slow=17, skew=40)
    files = [recording(tmp_path / f"{name}.mcap", each) for name, each in made.items()]
    if merged:
        merge(files, tmp_path / "merged.mcap")
        files = [tmp_path / "merged.mcap"]
    traces = read_traces(files)
    answer = traces.traces(slow=True, limit=100, spans=True)
    assert len(answer.traces) == 30
    assert all(trace.path == "camera/tick → camera → detector" for trace in answer.traces)
    slowest = answer.traces[0]
    assert not slowest.gaps
    assert [span.machine for span in slowest.spans] == ["alpha", "beta"]
    assert all(span.sent <= (span.received or 0) for trace in answer.traces for span in trace.spans)
    assert slowest.clocks["beta"].measured is None
    by_path = {path.path: path for path in traces.trace_paths().paths}
    assert by_path["camera/tick → camera → detector"].count == 30
    assert by_path["camera/tick → camera → detector"].worst_id == slowest.id
    part = by_path["camera/image → detector"]
    assert (part.machine, part.count) == ("beta", 30)
    # The id of a part stands for the whole.
    (same,) = traces.traces(id=part.worst_id, spans=True).traces
    assert same == slowest


def test_a_recording_of_one_of_several_machines_says_what_it_lacks(tmp_path: Path) -> None:
    made = over_machines(3, slow=1, skew=0)
    file = recording(tmp_path / "alpha.mcap", made["alpha"])
    (trace, *_) = read_traces([file]).traces(spans=True).traces
    assert [(gap.machine, gap.topic) for gap in trace.gaps] == [("beta", "camera/image")]
    result = CliRunner().invoke(view, [str(file), "--slow"])
    assert result.exit_code == 0, result.output
    assert "camera/image went to beta, whose part of the trace is missing" in result.output


class _Reader:
    """The records of one node, of which there is a recorder."""

    overwritten = damaged = 0

    def __init__(self, node: Recorded) -> None:
        self._node = node

    def recorders(self) -> list[str]:
        return ["recorder"]

    def unread(self) -> dict[str, int]:
        return {self._node.name: len(self._node.hops)}

    def read(self, _node: str) -> list[Hop]:
        return self._node.hops

    def places(self, _node: str) -> NodePlaces:
        return self._node.places


def test_the_daemon_of_a_share_says_in_the_records_which_machine_it_is_on() -> None:
    camera = Recorded("camera", tick("camera"), ("image",))
    camera.receive("tick", 0, 1)
    camera.done("tick", 0, 2)
    recorded = RecordedTraces()
    emitter = SimpleNamespace(
        emit_bytes=lambda _recorder, _input, data: recorded.add(data, START + MS * EVERY_MS)
    )
    tracer = Tracer(
        "flow",
        cast("Any", _Reader(camera)),
        cast("Any", emitter),
        cast("Any", SimpleNamespace(connected=list)),
        TraceStore(),
        lambda _node: False,
        machine="arm1",
    )
    tracer.read()
    recorded.end()
    (trace,) = recorded.traces(spans=True).traces
    assert trace.machine == "arm1"


def test_machines_without_end_are_bounded_and_counted() -> None:
    traces = RecordedTraces()
    for number in range(20):
        for _, batch in over_machines(1, slow=0, skew=0)["alpha"]:
            each = msgspec.structs.replace(batch, machine=f"m{number}", run=f"r{number}")
            traces.add(hopbatch.encode(each), START + 10**3 * MS)
    traces.end()
    counts = traces.traces().counts
    assert (counts.records, counts.unknown) == (8 * 4, 12 * 4)


def test_two_recorders_of_one_dataflow_and_their_merge_have_each_message_once(
    tmp_path: Path,
) -> None:
    made = work(40)
    whole = facts(read_traces([recording(tmp_path / "whole.mcap", made)]))
    parts = [
        recording(tmp_path / "a.mcap", made[:80]),
        recording(tmp_path / "b.mcap", made[50:]),
    ]
    assert facts(read_traces(parts)) == whole
    assert facts(read_traces([tmp_path / "a.mcap", tmp_path])) == whole
    merge(parts, tmp_path / "merged.mcap")
    merged = read_traces([tmp_path / "merged.mcap"])
    assert facts(merged) == whole
    assert not merged.lacking


def test_a_part_of_a_recording_says_what_came_before_it(tmp_path: Path) -> None:
    made = work(40)
    day = recording(tmp_path / "day.mcap", made)
    begin = START + 10 * EVERY_MS * MS
    merge([day], tmp_path / "part.mcap", start=begin, end=begin + 20 * EVERY_MS * MS)
    traces = read_traces([tmp_path / "part.mcap"])
    (path,) = traces.trace_paths().paths
    assert path.count == 20
    (note,) = traces.lacking
    before = sum(len(batch) for at, batch in made if at < 10 * EVERY_MS)
    assert f"nodes had made {before} records before" in note


def test_batches_that_a_recorder_has_dropped_are_counted(tmp_path: Path) -> None:
    made = work(20)
    lost = made[30]
    traces = read_traces([recording(tmp_path / "day.mcap", made[:30] + made[31:])])
    (note,) = traces.lacking
    assert note.startswith(f"{len(lost[1])} records of nodes are missing in between")
    assert traces.trace_paths().paths[0].count == 19


def test_what_the_daemon_has_lost_meanwhile_is_counted_and_not_what_it_lost_before(
    tmp_path: Path,
) -> None:
    made = [
        (at, msgspec.structs.replace(batch, losses=Losses(5 + number, 7, 9)))
        for number, (at, batch) in enumerate(work(4))
    ]
    counts = read_traces([recording(tmp_path / "day.mcap", made)]).traces().counts
    assert (counts.overwritten, counts.skipped, counts.damaged) == (11, 0, 0)
    assert counts.records == sum(len(batch) for _, batch in made)


def test_what_a_node_worked_on_when_it_was_killed_has_failed_in_the_recording(
    tmp_path: Path,
) -> None:
    camera = Recorded("camera", {}, ("image",))
    arm = chain().detector
    camera.send("image", 0)
    arm.receive("image", 0, 1, thread=77)
    made = [
        *batches(HopBatch("flow", "run", 0, 1, "camera"), camera.places, camera.hops),
        *batches(HopBatch("flow", "run", 1, 2, "detector"), arm.places, arm.hops),
        HopBatch("flow", "run", 2, 3, "detector", exit=Exit([77], failed=True)),
    ]
    traces = read_traces([recording(tmp_path / "a.mcap", [(5, each) for each in made])])
    (trace,) = traces.traces(troubled=True).traces
    assert (trace.failed, trace.running) == (1, False)


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"version": "0.1.0"}, "made by an older version of dorad \\(0.1.0\\)"),
        ({}, "made by an older version of dorad"),
        ({extras.HOPS: "0"}, "the daemon was of an older version"),
        ({extras.HOPS: "1"}, "no node did anything, or they were cut out"),
    ],
)
def test_a_recording_without_hop_records_says_why(
    tmp_path: Path, about: dict[str, str], expected: str
) -> None:
    old = write(tmp_path / "old.mcap", numbers(3), **about)
    with pytest.raises(RecordingError, match=expected):
        read_traces([old])
    both = read_traces([old, recording(tmp_path / "new.mcap", work(3))])
    assert [note for note in both.lacking if "old.mcap has no hop records" in note]
    assert both.trace_paths().paths[0].count == 3


def test_a_file_after_a_crash_is_read_as_far_as_it_goes_before_and_after_its_recovery(
    tmp_path: Path,
) -> None:
    path = recording(tmp_path / "day.mcap", work(40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    torn = read_traces([path])
    count = torn.trace_paths().paths[0].count
    assert 10 <= count < 40
    assert torn.damaged
    recover(path)
    recovered = read_traces([path])
    assert recovered.trace_paths().paths[0].count == count
    assert not recovered.damaged


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(0, 2**64 - 1))
def test_nonsense_in_a_recording_is_counted_and_changes_nothing_else(
    nonsense: Sequence[bytes], number: int
) -> None:
    traces, clean = RecordedTraces(), RecordedTraces()
    made = work(3)
    for place, (at, batch) in enumerate(made):
        for data in nonsense[place:]:
            traces.add(data, number)
        for each in (traces, clean):
            each.add(hopbatch.encode(batch), START + at * MS)
    traces.end()
    clean.end()
    assert facts(traces) == facts(clean)
    bad = sum(len(nonsense[place:]) for place in range(len(made)))
    assert traces.traces().counts.damaged == bad


def test_dataflows_without_end_are_bounded_and_counted() -> None:
    traces = RecordedTraces()
    node = chain().camera
    run_chain(chain()._replace(camera=node), 0)
    for number in range(200):
        empty = HopBatch(f"flow{number}", "run", 0, number, "camera")
        for batch in batches(empty, node.places, node.hops):
            traces.add(hopbatch.encode(batch), START + 10 * MS)
    traces.end()
    counts = traces.traces().counts
    assert counts.records == 64 * len(node.hops)
    assert counts.unknown == 136 * len(node.hops)
