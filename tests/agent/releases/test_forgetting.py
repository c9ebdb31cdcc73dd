"""A dataflow whose release was removed is forgotten: all of it, whatever happens meanwhile."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace

from dorad.agent.model import Ended, ShareRecord
from dorad.agent.releases.model import ReleaseRecord
from dorad.agent.store import ShareStore
from dorad.control.errors import ControlError
from dorad.control.messages.releases import ReleaseOrder
from tests.agent.orders import order
from tests.agent.releases.robot import Robot
from tests.harness.waiting import until


async def test_no_share_is_left_that_would_look_like_one_of_the_coordinator(tmp_path, monkeypatch):
    """The share is forgotten first, and the release, which says so, only then."""
    robot = Robot(tmp_path, SimpleNamespace(paths=SimpleNamespace(control=tmp_path / "absent")))
    with closing(ShareStore(robot.folder / "shares.db")) as store:
        gone = ReleaseOrder(epoch=1, generation=2, dataflow="flow", release=None, switch=True)
        store.put_release(ReleaseRecord(gone, "uuid", "boot-1", since=0.0, step=1, halting=True))
        share = order(epoch=0, dataflow="flow", enabled=False)
        store.put(ShareRecord(order=share, boot="boot-1", ended=Ended("stopped", 0.0)))
    remove, refusals = ShareStore.remove, ["the disk is full"]

    def refuse_once(store, dataflow):
        if refusals:
            raise ControlError("unavailable", refusals.pop())
        remove(store, dataflow)

    monkeypatch.setattr(ShareStore, "remove", refuse_once)
    robot.start()
    await until(lambda: not robot.store.releases)
    assert not refusals
    assert robot.store.records == {}
    await robot.kill()
