"""The black box of a dataflow that comes from releases goes on through switches and returns."""

import time

import msgspec
import pytest

from dorad.dataflow.recording import NODE_ID
from dorad.record.box import ring
from dorad.record.box.incidents import Mark, incidents
from dorad.record.mcap.reader import RecordingReader, merged
from dorad.record.recorder.outcome import MARK_PARAM
from tests.agent.assignments.robot import NEW_SINK, SINK, SOURCE, Robot, eventually, flow

pytestmark = pytest.mark.timeout(240)


def add_release(robot: Robot, folder, sink: str) -> str:
    """Add a release with a black box."""
    release = robot.library.add("flow", flow(folder), source=SOURCE, sink=sink)
    known = robot.library.bundles[release]
    descriptor = known.descriptor | {"record": {"keep": "60s"}}
    robot.library.bundles[release] = known._replace(descriptor=descriptor)
    return release


async def mark(robot: Robot, note: str) -> str:
    """Let the recorder make an incident; return its id."""
    client = await robot.daemon.client()
    folder = robot.folder / "recordings" / "flow"
    before = len(incidents(folder))
    order = msgspec.to_builtins(Mark(time.time_ns(), 60.0, 0.0, note))
    await client.set_param(NODE_ID, MARK_PARAM, order, dataflow="flow")
    await eventually(lambda: len(incidents(folder)) > before)
    await client.delete_param(NODE_ID, MARK_PARAM, dataflow="flow")
    return incidents(folder)[-1][0].name


def numbers(folder) -> list[int]:
    """Return the recorded numbers of all segments, by time."""
    readers = [RecordingReader(each.path) for each in ring.segments(folder)]
    try:
        return [
            each.decode().array[0].as_py() for each in merged(readers, topics={"source/number"})
        ]
    finally:
        for reader in readers:
            reader.close()


@pytest.mark.long
async def test_a_black_box_goes_on_over_releases_and_keeps_its_incidents(robot, folder):
    first = add_release(robot, folder, SINK)
    robot.order(first, 1)
    await robot.reaches("confirmed", 1)
    box = robot.folder / "recordings" / "flow"
    await eventually(lambda: len(numbers(box / ring.RING)) > 5)
    kept = [await mark(robot, "with the first release")]
    recorder = (await robot.pids())[NODE_ID]

    robot.order(add_release(robot, folder, NEW_SINK), 2)
    await robot.reaches("confirmed", 2)
    kept.append(await mark(robot, "with the second one"))

    robot.order(add_release(robot, folder, "raise SystemExit('broken')"), 3)
    await robot.reaches("reverted", 3)
    kept.append(await mark(robot, "after the return"))

    client = await robot.daemon.client()
    (found,) = (await client.incidents("flow")).boxes
    assert [each.id for each in found.incidents] == kept
    assert found.folder == str(box)
    assert (await robot.pids())[NODE_ID] == recorder
    recorded = numbers(box / ring.RING)
    assert recorded == list(range(len(recorded)))
