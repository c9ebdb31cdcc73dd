"""What the next coordinator knows of robots that do not come back: last seen, and how."""

import time

import msgspec

from dorad import __version__
from dorad.control import messages as m
from dorad.control.messages.releases import ReleaseState
from dorafleet.cli import checks, robots
from dorafleet.coordinator import lastseen
from dorafleet.store.model import Transaction
from dorafleet.store.sqlite import SqliteStore

from .serving import leading


async def shown(fleet, id_="arm1"):
    return {robot.id: robot for robot in (await fleet.call("robot.list")).robots}[id_]


async def keys(folder):
    store = await SqliteStore.open(folder / "coordinator.db")
    try:
        return {entry.key: entry for entry in (await store.get("")).entries}
    finally:
        await store.close()


async def ran(fleet):
    """Run a dataflow and a release on two robots."""
    agent = await fleet.agent("arm1", machine_id="1" * 32)
    await fleet.agent("arm2")
    agent.releases.states["pick"] = ReleaseState(
        dataflow="pick",
        epoch=0,
        generation=0,
        phase="confirmed",
        since=time.time(),
        release="a" * 64,
        running="a" * 64,
    )
    agent._on_release("pick")
    await fleet.run()
    robot = fleet.control.robots.get("arm1")
    await fleet.until(lambda: "pick" in robot.releases and robot.shares["talk"].status == "running")


async def test_a_robot_that_is_away_is_shown_as_it_was_by_the_next_coordinator(tmp_path):
    async with leading(tmp_path) as fleet:
        await ran(fleet)
        before = await shown(fleet)
    for _ in range(2):  # also by the one after the next
        async with leading(tmp_path) as fleet:
            robot = await shown(fleet)
            assert robot.state == "unreachable"
            assert robot.reason.endswith(lastseen.NOT_BACK)
            assert before.seen_at <= robot.seen_at <= time.time()
            assert robot.age is not None
            assert [(s.dataflow, s.status) for s in robot.shares] == [("talk", "running")]
            assert [(r.dataflow, r.phase) for r in robot.releases] == [("pick", "confirmed")]
            assert (robot.version, robot.arch, robot.cores) == (__version__, "x86_64", 4)
            assert (robot.address, robot.machine_id) == ("127.0.0.1", "1" * 32)
            row = robots.as_row(robot)
            assert "ago" in row[3]
            assert "talk running" in row[6]
            (check,) = [each for each in checks.check_robots([robot]) if each.name == "arm1"]
            assert check.text == f"it is unreachable: {lastseen.NOT_BACK}"
            assert check.since is not None
            assert "enrol" not in str(check.hint)
            assert (await shown(fleet, "arm3")).state == "never-seen"


async def test_what_was_known_decides_nothing(tmp_path):
    """A robot that is back says itself what it runs, and is told what differs."""
    async with leading(tmp_path) as fleet:
        await ran(fleet)
    async with leading(tmp_path) as fleet:
        robot = fleet.control.robots.get("arm1")
        assert (robot.shares, robot.releases, robot.client) == ({}, {}, None)
        agent = await fleet.agent("arm1")
        await fleet.until(lambda: [each.dataflow for each in agent.sets] == ["talk"])
        now = await shown(fleet)
        assert now.releases == []


async def test_states_are_stored_when_they_change_not_with_each_report(tmp_path, monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.lastseen.EVERY_S", 0.02)
    async with leading(tmp_path) as fleet:
        await ran(fleet)
        robot = fleet.control.robots.get("arm1")
        writer = fleet.control.fleet.writer
        writes: list[str] = []
        keep = writer.keep

        async def counted(puts):
            writes.extend(puts)
            await keep(puts)

        monkeypatch.setattr(writer, "keep", counted)
        for number in range(20):
            seen = robot.seen_at
            fleet.agents["arm1"].report("talk", "running", reason=f"number {number}")
            await fleet.until(lambda seen=seen: robot.seen_at != seen)
        assert writes.count("last-states/arm1") <= 1
        assert writes.count("last-seen") <= 1
        # A change of before the last write is not lost.
        monkeypatch.setattr("dorafleet.coordinator.lastseen.ROBOT_S", 0.0)
        await fleet.until(lambda: b"number 19" in fleet.control._last_seen._stored["arm1"])


async def test_a_store_of_the_version_before_has_no_unknown_robots(tmp_path):
    async with leading(tmp_path) as fleet:
        await ran(fleet)
        await fleet.until(lambda: "arm1" in fleet.control.overview._kept.robots)
    gone = [key for key in await keys(tmp_path) if key.startswith(("last-seen", "last-states/"))]
    store = await SqliteStore.open(tmp_path / "coordinator.db")
    assert sorted(gone) == ["last-seen", "last-states/arm1", "last-states/arm2"]
    await store.commit(Transaction({}, {}, gone))
    await store.close()
    async with leading(tmp_path) as fleet:
        robot = await shown(fleet)
        assert (robot.state, robot.seen_at, robot.shares) == ("unreachable", None, [])
        assert (await shown(fleet, "arm3")).state == "never-seen"


async def test_damaged_states_are_left_out(tmp_path, caplog):
    async with leading(tmp_path) as fleet:
        await ran(fleet)
    store = await SqliteStore.open(tmp_path / "coordinator.db")
    await store.commit(Transaction({}, {"last-states/arm1": b"{", "last-seen": b"[]"}))
    await store.close()
    async with leading(tmp_path) as fleet:
        assert (await shown(fleet, "arm2")).state == "unreachable"
        await fleet.agent("arm1")
        assert (await shown(fleet)).state == "connected"
    assert "`last-states/arm1`" in caplog.text


async def test_a_robot_with_many_dataflows_is_stored_in_part(tmp_path):
    async with leading(tmp_path) as fleet:
        agent = await fleet.agent("arm1")
        await fleet.agent("arm2")
        await fleet.run()
        share = agent.shares["talk"]
        for number in range(300):
            name = f"more-{number}"
            agent.shares[name] = msgspec.structs.replace(share, dataflow=name, reason="x" * 1000)
            agent._tell(name)
        robot = fleet.control.robots.get("arm1")
        await fleet.until(lambda: len(robot.shares) == 301)
        state = lastseen.last_state(robot)
        assert 10 < len(state.shares) < 100
        assert len(msgspec.json.encode(state)) < 2 * lastseen.MAX_STATES


async def test_the_row_of_a_robot_that_is_away_has_its_last_dataflows(tmp_path, monkeypatch):
    async with leading(tmp_path) as fleet:
        await ran(fleet)
        before = (await shown(fleet)).seen_at
    monkeypatch.setattr("dorafleet.coordinator.overview.COMING_S", 0.0)
    async with leading(tmp_path) as fleet:
        rows = (await anext(fleet.stream("fleet.watch", m.FleetWatch()))).rows
        row = next(each for each in rows if each.robot == "arm1")
        assert (row.state, row.dataflow) == ("unreach", "talk")
        assert row.seen_at >= before
        assert row.why == "no contact"
