"""A dataflow whose release was removed is forgotten: all of it at once, whatever happens."""

from contextlib import closing
from types import SimpleNamespace

from dorad.agent.assignments.model import Assignment, ReleaseRecord
from dorad.agent.assignments.runs import Ended, RunRecord
from dorad.agent.store import AssignmentStore
from dorad.control.errors import ControlError
from dorad.control.messages.releases import ReleaseOrder
from tests.agent.assignments.robot import Robot
from tests.agent.orders import order
from tests.harness.waiting import until


async def test_a_full_disk_delays_it(tmp_path, monkeypatch):
    robot = Robot(tmp_path, SimpleNamespace(paths=SimpleNamespace(control=tmp_path / "absent")))
    with closing(AssignmentStore(robot.folder / "shares.db")) as store:
        gone = ReleaseOrder(epoch=1, generation=2, dataflow="flow", release=None, switch=True)
        release = ReleaseRecord(gone, "uuid", "boot-1", since=0.0, step=1, halting=True)
        share = order(epoch=0, dataflow="flow", enabled=False)
        run = RunRecord(order=share, boot="boot-1", ended=Ended("stopped", 0.0))
        store.put(Assignment(run, release))
    remove, refusals = AssignmentStore.remove, ["the disk is full"]

    def refuse_once(store, dataflow):
        if refusals:
            raise ControlError("unavailable", refusals.pop())
        remove(store, dataflow)

    monkeypatch.setattr(AssignmentStore, "remove", refuse_once)
    robot.start()
    await until(lambda: not robot.store.assignments)
    assert not refusals
    assert (robot.assignments.states, robot.assignments.releases) == ({}, {})
    await robot.kill()
