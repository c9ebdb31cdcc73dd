"""Two coordinators with one etcd: what a former leader does has no effect."""

import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.store.etcd import EtcdStore
from dorafleet.store.model import LEADER, Transaction
from tests.fleet.store.etcdserver import Cluster

from .agents import FakeAgent
from .serving import DEADLINE_S, leading


@pytest.fixture
def urls(tmp_path):
    cluster = Cluster(tmp_path, 1)
    try:
        cluster.start()
        yield cluster.urls
    finally:
        cluster.end()


@pytest.fixture
async def stores(urls):
    opened = [await EtcdStore.open(urls) for _ in range(2)]
    yield opened
    for store in opened:
        await store.close()


async def test_robots_obey_the_new_leader_and_the_former_one_changes_nothing(tmp_path, stores):
    first, second = stores
    async with leading(tmp_path, store=first) as former:
        arm1, arm2 = await former.agent("arm1"), await former.agent("arm2")
        started = await former.start()
        await former.wait("running")
        await former.until(lambda: arm2.shares["talk"].status == "running")
        # The lease ends, and the former leader does not notice yet.
        await second.commit(Transaction(deletes=[LEADER]))
        async with leading(tmp_path, store=second) as newer:
            await arm1.stop()
            arm1.port = newer.port
            newer.agents["arm1"] = arm1
            await newer.connect(arm1)
            (row,) = (await newer.call("dataflow.list")).dataflows
            assert (row.uuid, row.status) == (started.uuid, "running")
            with pytest.raises(ControlError, match="another coordinator leads now"):
                await former.call("dataflow.stop", m.Stop(dataflow="talk"))
            assert [each.enabled for each in arm2.sets] == [True]
            # A robot that has obeyed the new one never obeys the former again.
            back = FakeAgent("arm1", former.port)
            back.memory = arm1.memory
            former.agents["arm1"] = back
            await back.start()
            await back.ended.until(lambda: not back.connected, DEADLINE_S)
            assert not back.connected
            await arm2.stop()
            arm2.port = newer.port
            newer.agents["arm2"] = arm2
            await newer.connect(arm2)
            assert (await newer.call("dataflow.stop", m.Stop(dataflow="talk"))).status == "finished"
            assert {each.status for each in (arm1.shares["talk"], arm2.shares["talk"])} == {
                "stopped"
            }
            assert arm1.sets[-1].epoch > arm1.sets[0].epoch
