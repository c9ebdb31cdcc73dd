"""The desired state when another coordinator leads: nothing is written."""

import pytest

from dorad.control.errors import ControlError
from dorafleet.coordinator.audit import verify
from dorafleet.coordinator.desired import DesiredState
from dorafleet.coordinator.messages import DesiredRef, DesiredSet
from dorafleet.coordinator.writer import Writer
from dorafleet.store.sqlite import SqliteStore

ACTOR = {"user": 0, "client": "test 1"}


def ignore(*_written):
    """Nothing in this process follows the desired state."""


async def test_a_former_leader_changes_nothing_and_says_why(tmp_path):
    store = await SqliteStore.open(tmp_path / "store.db")
    wanted = DesiredSet(robot="arm1", dataflow="pick", if_version=0, release="pick-1")
    try:
        async with store.lead("one") as term:
            former = DesiredState(store, Writer(store, term), ignore)
        with pytest.raises(ControlError, match="another coordinator leads now") as caught:
            await former.set(wanted, ACTOR)
        assert caught.value.code == "unavailable"
        assert (await former.get(DesiredRef())).desired == []
        assert (await verify(store)).sequence == 0
        async with store.lead("two") as term:
            assert (
                await DesiredState(store, Writer(store, term), ignore).set(wanted, ACTOR)
            ).generation == 1
            with pytest.raises(ControlError):
                await former.set(
                    DesiredSet(
                        robot="arm1", dataflow="pick", if_version=term.version + 1, release="pick-2"
                    ),
                    ACTOR,
                )
            assert (await verify(store)).sequence == 1
    finally:
        await store.close()
