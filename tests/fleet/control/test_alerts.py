"""Alerts of robots, with who looks after them, over the end of a coordinator."""

import asyncio
import time
from contextlib import aclosing

import msgspec
import pytest

from dorad.bell import Bell
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.coordinator.alertstore import MAX_KEPT, PAST, STATES
from dorafleet.coordinator.audit import read_rows, verify
from dorafleet.coordinator.rows import Software
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.sqlite import SqliteStore
from tests.harness.waiting import until

from .serving import leading

CRASH = m.Finding(
    cause="node-failed",
    subject="pick/gripper",
    text="node gripper failed",
    severity="fail",
    since=1000.0,
    dataflow="pick",
    node="gripper",
    event=True,
)


class Daemon:
    """The daemon of a robot, which sends its row."""

    def __init__(self) -> None:
        self.findings: list[m.Finding] = []
        self.bell = Bell()
        self.answers = asyncio.Event()
        self.answers.set()

    async def rows(self, _call, _params):
        await self.answers.wait()
        while True:
            state = "fail" if self.findings else "ok"
            row = m.FleetRow(robot="x", state=state, findings=self.findings, since=500.0)
            yield m.FleetRows(at=time.time(), rows=[row], whole=True)
            await self.bell.wait()

    def find(self, *findings: m.Finding) -> None:
        self.findings = list(findings)
        self.bell.ring()


async def connect(fleet, name, daemon):
    agent = await fleet.agent(name)
    await fleet.disconnect(agent)
    agent.handlers = {"fleet.watch": daemon.rows}
    await fleet.connect(agent)
    return agent


def alerts(fleet):
    return {each.id: each for each in fleet.control.overview.book.alerts()}


ID = "arm1:node-failed:pick/gripper"


async def acknowledged(fleet, daemon):
    """Connect a robot whose node has failed, and acknowledge the alert."""
    await connect(fleet, "arm1", daemon)
    await fleet.until(lambda: ID in alerts(fleet))
    return await fleet.call("alerts.ack", m.AlertAck(id=ID))


async def test_alerts_and_who_looks_after_them_outlive_a_coordinator(tmp_path):
    daemon = Daemon()
    daemon.find(CRASH)
    async with leading(tmp_path) as fleet:
        acked = await acknowledged(fleet, daemon)
        assert acked.acked_by == "ann"
    async with leading(tmp_path) as fleet:
        # Before the robot is back, too.
        assert alerts(fleet)[ID].acked_by == "ann"
        await fleet.until(lambda: "arm1" in fleet.control.overview.rows)
        row = fleet.control.overview.rows["arm1"]
        assert (row.state, row.why) == (
            "unreach",
            "not back yet: the coordinator has just started",
        )
        await connect(fleet, "arm1", daemon)
        await fleet.until(lambda: fleet.control.overview.rows["arm1"].state == "fail")
        alert = alerts(fleet)[ID]
        assert (alert.acked_by, alert.flapping) == ("ann", 0)
        # By the coordinator's clock, which is nearly that of the robot.
        assert alert.since == pytest.approx(1000.0, abs=5.0)
        assert fleet.control.overview.rows["arm1"].since == alert.since


class EndingStore:
    """Makes no more changes about alerts `after` or before the acknowledgement, as if killed."""

    def __init__(self, store, when):
        self.ended = False
        self._commit = store.commit
        self._when = when
        store.commit = self.commit

    async def commit(self, transaction):
        acks = any(b"alerts.ack" in value for value in transaction.puts.values())
        if self.ended or (acks and self._when == "before"):
            self.ended = True
            raise StoreError(Code.UNAVAILABLE, "gone")
        self.ended = acks
        return await self._commit(transaction)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_acknowledgement_is_stored_and_in_the_audit_or_neither(tmp_path, when):
    daemon = Daemon()
    daemon.find(CRASH)
    async with leading(tmp_path) as fleet:
        await connect(fleet, "arm1", daemon)
        await fleet.until(lambda: ID in alerts(fleet))
        # What is measured is stored before.
        await fleet.until(lambda: "arm1" in fleet.control.overview._kept.robots)
        EndingStore(fleet.store, when)
        if when == "before":
            with pytest.raises(StoreError, match="gone"):
                await fleet.call("alerts.ack", m.AlertAck(id=ID))
        else:
            await fleet.call("alerts.ack", m.AlertAck(id=ID))
        acked_by = alerts(fleet)[ID].acked_by
        assert acked_by == ("ann" if when == "after" else "")
    async with leading(tmp_path) as fleet:
        assert alerts(fleet)[ID].acked_by == acked_by
        records = [row.record async for row in read_rows(fleet.store)]
        assert sum(b"alerts.ack" in each for each in records) == (when == "after")


async def test_an_alert_that_is_over_can_still_be_read_also_from_the_next_coordinator(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("dorad.control.alertbook.CLEARED_AFTER_S", 0.2)
    daemon = Daemon()
    daemon.find(CRASH)
    async with leading(tmp_path) as fleet:
        await acknowledged(fleet, daemon)
        assert (await fleet.call("alerts.past", m.PastAlertsRead())).alerts == []
        daemon.find()
        await fleet.until(lambda: ID not in alerts(fleet))
        (past,) = (await fleet.call("alerts.past", m.PastAlertsRead())).alerts
        assert (past.id, past.robots, past.acked_by) == (ID, ["arm1"], "ann")
        assert past.until == pytest.approx(time.time(), abs=60.0)
        async with aclosing(fleet.store.watch(PAST, 1)) as changes:
            await anext(changes)  # it is stored
    async with leading(tmp_path) as fleet:
        assert (await fleet.call("alerts.past", m.PastAlertsRead())).alerts == [past]


async def test_a_robot_that_was_well_all_the_time_has_not_changed_with_a_new_coordinator(tmp_path):
    for _ in range(2):
        async with leading(tmp_path) as fleet:
            rows = fleet.control.overview.rows
            await fleet.until(lambda rows=rows: "arm1" in rows)
            await connect(fleet, "arm1", Daemon())
            await fleet.until(lambda rows=rows: rows["arm1"].state == "ok")
            assert rows["arm1"].since == pytest.approx(500.0, abs=5.0)


async def test_since_when_a_robot_is_back_outlives_a_coordinator(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.alertstore.PAST_S", 0.0)
    daemon = Daemon()
    async with leading(tmp_path) as fleet:
        rows = fleet.control.overview.rows
        agent = await connect(fleet, "arm1", daemon)
        await fleet.until(lambda: "arm1" in rows and rows["arm1"].state == "ok")
        # It is no longer the start of this coordinator.
        monkeypatch.setattr("dorafleet.coordinator.overview.COMING_S", 0.0)
        await agent.stop()
        await fleet.until(lambda: rows["arm1"].state == "unreach")
        await fleet.connect(agent)
        await fleet.until(lambda: rows["arm1"].state == "ok")
        since = rows["arm1"].since
        assert since == pytest.approx(time.time(), abs=60.0)
        async with aclosing(fleet.store.watch(STATES, 1)) as changes:
            while f"{since}".encode() not in (await fleet.store.get(STATES)).entries[0].value:
                await anext(changes)
    monkeypatch.undo()
    async with leading(tmp_path) as fleet:
        rows = fleet.control.overview.rows
        await connect(fleet, "arm1", daemon)
        await fleet.until(lambda: "arm1" in rows and rows["arm1"].state == "ok")
        assert rows["arm1"].since == since


async def test_a_robot_whose_daemon_is_late_after_a_new_coordinator_has_not_changed(tmp_path):
    daemon = Daemon()
    async with leading(tmp_path) as fleet:
        await connect(fleet, "arm1", daemon)
        await fleet.until(lambda: "arm1" in fleet.control.overview._kept.robots)
    daemon.answers.clear()
    async with leading(tmp_path) as fleet:
        rows = fleet.control.overview.rows
        agent = await connect(fleet, "arm1", daemon)
        agent.daemon = "it starts"
        agent.changed.ring()
        await fleet.until(lambda: "arm1" in rows and rows["arm1"].state == "fail")
        agent.daemon = ""
        agent.changed.ring()
        daemon.answers.set()
        await fleet.until(lambda: rows["arm1"].state == "ok")
        assert rows["arm1"].since == pytest.approx(500.0, abs=5.0)


async def test_a_busy_robot_is_so_since_its_lease_also_for_a_new_coordinator(tmp_path, monkeypatch):
    busy = Software("pick@2", busy="picks box 7", since=700.0)
    monkeypatch.setattr("dorafleet.coordinator.control.software_of", lambda *_: busy)
    async with leading(tmp_path) as fleet:
        rows = fleet.control.overview.rows
        await connect(fleet, "arm1", Daemon())
        await fleet.until(lambda: "arm1" in rows and rows["arm1"].state == "busy")
        assert rows["arm1"].since == pytest.approx(700.0, abs=5.0)


async def test_a_robot_whose_node_fails_out_of_reach_never_reads_ok_when_it_is_back(tmp_path):
    late, states = Daemon(), []
    late.answers.clear()
    late.find(CRASH)
    async with leading(tmp_path) as fleet:
        watching = fleet.control.overview

        def row():
            watching.mark(fleet.control.robots.get("arm1"))
            watching.look()
            states.append(watching.rows["arm1"].state)
            return watching.rows["arm1"]

        agent = await connect(fleet, "arm1", Daemon())
        await fleet.until(lambda: row().state == "ok")
        await agent.stop()
        agent.handlers = {"fleet.watch": late.rows}
        await fleet.until(lambda: row().why.startswith("no contact"))
        states.clear()
        await fleet.connect(agent)
        await fleet.until(lambda: row().why == "connected, has not described itself yet, was well")
        late.answers.set()
        await fleet.until(lambda: row().state == "fail")
        assert set(states) == {"unreach", "fail"}


async def test_a_robot_that_crashes_by_turns_while_it_is_updated_stays_failed(
    tmp_path, monkeypatch
):
    updating = Software("pick@2", updating="rollout 12: probation")
    monkeypatch.setattr("dorafleet.coordinator.control.software_of", lambda *_: updating)
    daemon = Daemon()
    async with leading(tmp_path) as fleet:
        rows = fleet.control.overview.rows
        await connect(fleet, "arm1", daemon)
        await fleet.until(lambda: "arm1" in rows and rows["arm1"].state == "update")
        daemon.find(CRASH)
        await fleet.until(lambda: rows["arm1"].state == "fail")
        since = rows["arm1"].since
        daemon.find()
        await fleet.until(lambda: rows["arm1"].why == f"{CRASH.text}; rollout 12: probation")
        assert (rows["arm1"].state, rows["arm1"].since) == ("fail", since)


async def test_an_alert_that_is_over_when_the_robot_is_back_ends(tmp_path, monkeypatch):
    daemon = Daemon()
    daemon.find(CRASH)
    async with leading(tmp_path) as fleet:
        await acknowledged(fleet, daemon)
    monkeypatch.setattr("dorad.control.alertbook.CLEARED_AFTER_S", 0.2)
    daemon.find()
    async with leading(tmp_path) as fleet:
        assert ID in alerts(fleet)
        await connect(fleet, "arm1", daemon)
        await fleet.until(lambda: not alerts(fleet))
        # It is gone from the store, too.
        await fleet.until(lambda: fleet.control.overview.rows["arm1"].state == "ok")
        store = fleet.store

        async def stored():
            return [entry.value for entry in (await store.get("alerts/")).entries]

        await until(stored, lambda found: found == [b"[]"])


async def test_a_robot_that_does_not_come_back_after_a_restart_is_an_alert(tmp_path, monkeypatch):
    async with leading(tmp_path) as fleet:
        await connect(fleet, "arm1", Daemon())
        await fleet.until(
            lambda: (
                "arm1" in fleet.control.overview.rows
                and fleet.control.overview.rows["arm1"].state == "ok"
            )
        )
        await fleet.until(lambda: "arm1" in fleet.control.overview._kept.robots)
    monkeypatch.setattr("dorafleet.coordinator.overview.COMING_S", 0.5)
    monkeypatch.setattr("dorafleet.coordinator.overview.WHOLE_S", 0.2)
    async with leading(tmp_path) as fleet:
        await fleet.until(lambda: alerts(fleet))
        # Those that have never connected are no alert.
        assert list(alerts(fleet)) == ["arm1:unreachable:robot"]
        (alert,) = alerts(fleet).values()
        assert (
            alert.text
            == "it is unreachable: it has not come back since the coordinator was started"
        )


async def test_an_acknowledgement_is_in_the_audit(tmp_path):
    daemon = Daemon()
    daemon.find(CRASH)
    async with leading(tmp_path) as fleet:
        await acknowledged(fleet, daemon)
        await fleet.call("alerts.ack", m.AlertAck(id=ID, undo=True))
        with pytest.raises(ControlError, match="there is no alert `arm1:x:y`"):
            await fleet.call("alerts.ack", m.AlertAck(id="arm1:x:y"))
    store = await SqliteStore.open(tmp_path / "coordinator.db")
    try:
        await verify(store)
        records = [row.record async for row in read_rows(store)]
    finally:
        await store.close()
    found = [record for record in records if b"alerts.ack" in record]
    assert len(found) == 2
    assert b'"peer":"ann"' in found[0] and b'"undo":true' in found[1]


async def test_a_robot_that_makes_up_huge_alerts_keeps_none_of_another_one_from_the_store(tmp_path):
    liar, other = Daemon(), Daemon()
    liar.find(
        *(
            msgspec.structs.replace(CRASH, cause="\N{GRINNING FACE}" * 999, subject=f"{n}" * 99)
            for n in range(1000)
        )
    )
    other.find(CRASH)
    async with leading(tmp_path) as fleet:
        await connect(fleet, "arm2", liar)
        await connect(fleet, "arm1", other)
        await fleet.until(lambda: ID in alerts(fleet))
        await fleet.call("alerts.ack", m.AlertAck(id=ID))
    async with leading(tmp_path) as fleet:
        assert alerts(fleet)[ID].acked_by == "ann"
        assert 0 < len(alerts(fleet)) <= MAX_KEPT + 1
