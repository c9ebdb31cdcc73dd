"""Robots come and go while the coordinator runs, and the store is the truth."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.dataflow.settings import Amounts
from dorafleet.coordinator.audit import read_rows
from dorafleet.coordinator.membermessages import (
    FleetImport,
    FleetMachine,
    MachineCapacity,
    RobotAdd,
    RobotRemove,
)
from dorafleet.coordinator.members import CHUNK, difference, machine_of, sent_of
from dorafleet.coordinator.messages import RobotLabel
from dorafleet.inventory.model import Cluster, Coordinator, Machine
from dorafleet.store.model import Store, Transaction
from dorafleet.store.sqlite import SqliteStore

from .agents import FakeAgent
from .serving import MACHINES, leading, machine

ANYWHERE = {"nodes": [{"id": "solo", "path": "solo.py"}]}
IN_LAB = {
    "nodes": [
        {"id": "base", "path": "base.py", "outputs": ["out"], "deploy": {"machine": "arm1"}},
        {
            "id": "probe",
            "path": "probe.py",
            "inputs": {"in": "base/out"},
            "deploy": {"labels": {"zone": "lab"}},
        },
    ]
}


def add(fleet, added, *, change=False):
    return fleet.call("robot.add", RobotAdd(machine=sent_of(added), change=change))


def import_(fleet, machines, **options):
    params = FleetImport(machines=[sent_of(each) for each in machines], **options)
    return fleet.call("fleet.import", params)


def remove(fleet, robot, *, lost=False):
    return fleet.call("robot.remove", RobotRemove(robot=robot, lost=lost))


def ids(fleet):
    return [each.id for each in fleet.control.robots.all]


async def keys_of(fleet, robot):
    """Return the keys of the store that are about a robot, without access and audit."""
    entries = (await fleet.store.get("")).entries
    found = [entry.key for entry in entries if robot in entry.key.split("/")]
    return [key for key in found if not key.startswith(("audit", "access/"))]


async def audit_of(fleet):
    records = [msgspec.json.decode(row.record) async for row in read_rows(fleet.store)]
    return [each for each in records if each.get("action", "").startswith(("robot.", "fleet."))]


async def test_a_robot_that_is_added_gets_the_node_that_waited_for_it(tmp_path):
    async with leading(tmp_path) as fleet:
        one = await fleet.agent("arm1")
        await fleet.call("robot.label", RobotLabel(robot="arm2", labels={"zone": "lab"}))
        two = await fleet.agent("arm2")
        await fleet.run(IN_LAB)
        await remove(fleet, "arm2", lost=True)
        record = fleet.control.fleet.get("talk")
        assert (record.placement, list(record.pending)) == ({"base": "arm1"}, ["probe"])
        await fleet.until(lambda: one.shares["talk"].generation == record.generation)
        await fleet.until(lambda: not two.connected)

        found = await add(fleet, machine("arm9", 9, zone="lab"))
        assert (found.added, found.unlisted) == (["arm9"], [])
        nine = await fleet.agent("arm9")
        await fleet.until(lambda: fleet.control.fleet.get("talk").placement.get("probe") == "arm9")
        await fleet.until(lambda: "talk" in nine.shares and nine.shares["talk"].status == "running")
        rows = fleet.stream("fleet.watch", m.FleetWatch())
        async with aclosing(rows):
            assert {row.robot for row in (await anext(rows)).rows} == {"arm1", "arm3", "arm9"}


async def test_a_robot_that_runs_something_is_removed_only_if_it_is_lost(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        await fleet.run(ANYWHERE)
        with pytest.raises(ControlError, match=r"robot `arm1` runs `talk`") as caught:
            await remove(fleet, "arm1")
        assert "--lost" in caught.value.hint
        with pytest.raises(ControlError, match=r"robot `arm1` runs `talk`"):
            await import_(fleet, [*MACHINES[1:], machine("arm7", 7)], removes=["arm1"])
        assert ids(fleet) == ["arm1", "arm2", "arm3"]  # no half of a file

        await fleet.agent("arm3")
        await remove(fleet, "arm1", lost=True)
        # `solo` may run anywhere, and arm3 is there.
        assert fleet.control.fleet.get("talk").placement == {"solo": "arm3"}
        three = fleet.agents["arm3"].shares
        await fleet.until(lambda: "talk" in three and three["talk"].status == "running")
        (removed,) = [each for each in await audit_of(fleet) if each["action"] == "robot.remove"]
        assert (removed["robot"], removed["lost"], removed["ran"]) == ("arm1", True, ["talk"])


async def test_a_dataflow_whose_only_machine_is_lost_ends_and_says_why(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1")
        only = {"nodes": [{**ANYWHERE["nodes"][0], "deploy": {"machine": "arm1"}}]}
        await fleet.run(only)
        await remove(fleet, "arm1", lost=True)
        await fleet.until(lambda: not fleet.control.fleet.get("talk").running)
        record = fleet.control.fleet.get("talk")
        assert "its machine `arm1` was removed from the fleet" in record.failure
        await fleet.call("dataflow.clean")


async def test_everything_that_is_known_of_a_robot_leaves_with_it(tmp_path):
    async with leading(tmp_path) as fleet:
        agent = await fleet.agent("arm2")
        agent.daemon = "it is broken"
        agent.changed.ring()
        await fleet.call("robot.label", RobotLabel(robot="arm2", labels={"zone": "lab"}))
        await fleet.until(lambda: "arm2" in fleet.control.overview.rows)
        await fleet.store.commit(
            Transaction(puts={"last-states/arm2": b"{}", "alerts/arm2": b"[]"})
        )
        await remove(fleet, "arm2")
        assert await keys_of(fleet, "arm2") == []
        assert "arm2" not in fleet.control.overview.rows
        assert not [a for a in fleet.control.overview.book.alerts() if "arm2" in a.robots]
        await fleet.until(lambda: not agent.connected)
        with pytest.raises(ControlError, match="there is no robot `arm2`"):
            await remove(fleet, "arm2")
        # Its agent knocks on: nothing of it comes back.
        await agent.start()
        await fleet.until(lambda: not agent.connected)
        assert ids(fleet) == ["arm1", "arm3"]
        await add(fleet, MACHINES[1])
        robot = fleet.control.robots.get("arm2")
        assert (robot.state, robot.known_shares) == ("never-seen", [])
        assert fleet.control.fleet.labels("arm2") == {}
        await fleet.connect(agent)


async def test_adding_again_changes_nothing_and_other_keys_need_a_word(tmp_path):
    async with leading(tmp_path) as fleet:
        before = len(await audit_of(fleet))
        found = await add(fleet, MACHINES[0])
        assert (found.added, found.changed) == ([], {})
        assert len(await audit_of(fleet)) == before
        moved = replace(MACHINES[0], host="arm1.lan", labels={"zone": "lab"})
        with pytest.raises(ControlError, match="in the fleet with other keys"):
            await add(fleet, moved)
        agent = await fleet.agent("arm1")
        found = await add(fleet, moved, change=True)
        assert found.changed == {
            "arm1": [
                "host: 10.0.0.1 -> arm1.lan",
                "label zone: hall -> lab",
                "zenoh_addr: none -> 10.0.0.1",
            ]
        }
        assert agent.connected
        (listed, *_) = (await fleet.call("robot.list")).robots
        assert (listed.host, listed.labels) == ("arm1.lan", {"zone": "lab"})


async def test_an_import_adds_changes_and_removes_only_what_is_named(tmp_path):
    wanted = [replace(MACHINES[1], labels={"zone": "lab"}), machine("arm9", 9), MACHINES[2]]
    async with leading(tmp_path) as fleet:
        dry = await import_(fleet, wanted, dry_run=True)
        assert (dry.added, list(dry.changed), dry.unlisted) == (["arm9"], ["arm2"], ["arm1"])
        assert ids(fleet) == ["arm1", "arm2", "arm3"]
        found = await import_(fleet, wanted)
        assert (found.removed, found.unlisted) == ([], ["arm1"])
        assert ids(fleet) == ["arm1", "arm2", "arm3", "arm9"]
        found = await import_(fleet, wanted, removes=["arm1"])
        assert (found.added, found.changed, found.removed) == ([], {}, ["arm1"])
        again = await import_(fleet, wanted)
        assert again == type(again)()
        with pytest.raises(ControlError, match="there is no robot `arm1`"):
            await import_(fleet, wanted, removes=["arm1"])
        with pytest.raises(ControlError, match="sent and removed at once"):
            await import_(fleet, wanted, removes=["arm9"])
        with pytest.raises(ControlError, match="`arm9` is given twice"):
            await import_(fleet, [*wanted, machine("arm9", 8)])
    async with leading(tmp_path) as fleet:  # the store counts, not the file
        assert ids(fleet) == ["arm2", "arm3", "arm9"]
        assert fleet.control.robots.get("arm2").machine == wanted[0]


async def test_drift_shows_how_the_cluster_file_differs_from_the_store(tmp_path):
    def read():
        return Cluster((MACHINES[0], MACHINES[2]), Coordinator("10.0.0.1"), Path("/etc/c.yml"))

    async with leading(tmp_path, read_file=read) as fleet:
        await add(fleet, machine("arm9", 9))
        await add(fleet, replace(MACHINES[2], port=2222), change=True)
        rows = (await fleet.call("drift.list")).rows
        about = [row for row in rows if row.what == "cluster file"]
        assert [(row.robot, row.found) for row in about] == [
            ("arm3", "port: 2222 -> none"),
            ("arm2", "not in /etc/c.yml"),
            ("arm9", "not in /etc/c.yml"),
        ]
        assert all("dorafleet up /etc/c.yml" in row.way_back for row in about)


async def test_a_cluster_file_that_cannot_be_read_is_drift_too(tmp_path):
    def read():
        raise ControlError("refused", "c.yml: no such file")

    async with leading(tmp_path, read_file=read) as fleet:
        row = (await fleet.call("drift.list")).rows[0]
        assert (row.what, row.found) == ("cluster file", "c.yml: no such file")


async def test_the_store_of_an_earlier_version_takes_the_file_and_keeps_all_else(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.call("robot.label", RobotLabel(robot="arm2", labels={"zone": "lab"}))
        entries = (await fleet.store.get("")).entries
        ours = [each.key for each in entries if each.key.startswith(("machine/", "membership"))]
        assert len(ours) == 4
        await fleet.store.commit(Transaction(deletes=ours))
    async with leading(tmp_path) as fleet:
        assert ids(fleet) == ["arm1", "arm2", "arm3"]
        listed = {each.id: each.labels for each in (await fleet.call("robot.list")).robots}
        assert listed["arm2"] == {"zone": "lab"}
        imports = [each for each in await audit_of(fleet) if each["action"] == "fleet.import"]
        assert imports[-1]["robots"] == ["arm1", "arm2", "arm3"]


async def test_an_import_that_was_interrupted_begins_again(tmp_path):
    many = tuple(machine(f"r{number:03}", number) for number in range(1, 2 * CHUNK + 5))

    class Failing(SqliteStore):
        async def commit(self, transaction):
            if f"machine/r{CHUNK + 1:03}" in transaction.puts:
                raise ControlError("unavailable", "the power is gone")
            return await super().commit(transaction)

    store: Store = await Failing.open(tmp_path / "coordinator.db")
    with pytest.raises(ControlError, match="the power is gone"):
        async with leading(tmp_path, many, store=store):
            pass
    await store.close()
    async with leading(tmp_path, many) as fleet:
        assert ids(fleet) == [each.id for each in many]


async def test_a_robot_that_leaves_while_it_attaches_is_refused(tmp_path):
    async with leading(tmp_path) as fleet:
        robot = fleet.control.robots.get("arm2")
        async with robot.attaching:  # it waits for its place
            agent = fleet.agents["arm2"] = FakeAgent("arm2", fleet.port)
            await agent.start()
            await asyncio.sleep(0.1)
            await remove(fleet, "arm2")
        await fleet.until(lambda: not agent.connected)
        assert robot.client is None


BAD = {
    "id": ["", "-x", "a b", "a/b", "é", "x" * 300],
    "host": ["", "-x", "a b", "u@h", "x" * 300],
    "user": ["", "-x", "a b"],
    "port": [0, -1, 65536],
    "labels": [{"": "x"}, {"a": "b c"}, {str(n): "x" for n in range(200)}],
    "zenoh_addr": ["", "name", "0.0.0.0", "224.0.0.1"],
    "zenoh_port": [0, 70000],
    "capacity": [
        MachineCapacity(cpu=-1),
        MachineCapacity(cpu=float("nan")),
        MachineCapacity(memory=-1),
        MachineCapacity(gpu=1 << 40),
        MachineCapacity(devices=["a b"]),
        MachineCapacity(devices=["/dev/x"] * 200),
    ],
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, each) for key, all_ in BAD.items() for each in all_]
)
def test_a_machine_that_a_cluster_file_could_not_have_is_refused(key, value):
    sent = FleetMachine(**{"id": "arm1", "host": "h", key: value})
    with pytest.raises(ControlError) as caught:
        machine_of(sent)
    assert caught.value.code == "bad-request"


names = st.sampled_from(["a", "b", "c", "d"])
texts = st.sampled_from(["x", "y"])
machines = st.builds(
    Machine,
    names,
    st.sampled_from(["h", "10.0.0.7"]),
    st.none() | texts,
    st.none() | st.integers(1, 65535),
    labels=st.dictionaries(texts, texts),
    zenoh_port=st.integers(1, 65535),
    capacity=st.builds(
        Amounts,
        st.none() | st.floats(0, 100),
        st.none() | st.integers(0, 1 << 40),
        st.none() | st.integers(0, 8),
        st.none() | st.just(()) | st.just(("/dev/video0",)),
    ),
).map(lambda each: machine_of(sent_of(each)))
fleets = st.lists(machines, unique_by=lambda each: each.id)


@given(machines)
def test_a_machine_survives_its_way_to_the_store(each):
    text = msgspec.json.encode(sent_of(each))
    assert machine_of(msgspec.json.decode(text, type=FleetMachine)) == each


@pytest.mark.long
@given(fleets, fleets, st.data())
def test_the_difference_leads_from_one_fleet_to_the_other(before, after, data):
    known = {each.id: each for each in before}
    wanted = {each.id: each for each in after}
    gone = [id_ for id_ in known if id_ not in wanted]
    removes = data.draw(st.lists(st.sampled_from(gone), unique=True)) if gone else []
    found = difference(known, after, removes)
    for id_ in [*found.added, *found.changed]:
        known[id_] = wanted[id_]
    for id_ in found.removed:
        del known[id_]
    assert known == {
        **{id_: each for id_, each in known.items() if id_ in found.unlisted},
        **wanted,
    }
    assert set(found.unlisted) == set(gone) - set(removes)
    assert set(found.changed) == {
        each.id for each in before if each.id in wanted and wanted[each.id] != each
    }
