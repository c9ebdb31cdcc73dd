"""A copied disk: two machines with one id and certificate. The first one keeps its place."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control import messages as m
from dorafleet.cli import checks
from dorafleet.cli import robots as rows
from dorafleet.coordinator.place import (
    FORGET_S,
    MAX_CLONES,
    Clone,
    Origin,
    clone_text,
    former_after,
    is_clone,
    was_first,
    with_clone,
)

from .agents import FakeAgent
from .serving import DEADLINE_S, TALK, leading

FIRST = {"boot_id": "boot-1", "machine_id": "1" * 32, "host": "127.0.0.1"}
CLONE = {"boot_id": "boot-2", "machine_id": "2" * 32, "host": "127.0.0.2"}


async def shown(fleet):
    return {robot.id: robot for robot in (await fleet.call("robot.list")).robots}["arm1"]


async def refused(agent):
    """Connect an agent, and wait until the coordinator closes the connection."""
    await agent.start()
    await agent.ended.until(lambda: not agent.connected, DEADLINE_S)
    await agent.connection.wait_closed()
    assert agent.connection.close_code == 1008
    assert agent.connection.close_reason == f"another machine has the id {agent.robot}"


@pytest.mark.parametrize("machine_id", ["1" * 32, "2" * 32], ids=["same", "another"])
async def test_a_clone_gets_no_order_and_the_first_keeps_its_connection(tmp_path, machine_id):
    async with leading(tmp_path) as fleet:
        first = await fleet.agent("arm1", **FIRST)
        await fleet.agent("arm2", machine_id="9" * 32)
        await fleet.run()
        clone = FakeAgent("arm1", fleet.port, **{**CLONE, "machine_id": machine_id})
        for _ in range(3):
            await refused(clone)
        assert first.connected
        assert clone.sets == []
        assert len(first.sets) == 1
        robot = await shown(fleet)
        assert (robot.state, robot.address, robot.machine_id) == (
            "connected",
            "127.0.0.1",
            "1" * 32,
        )
        # With the same machine id, the boots tell them apart.
        same = machine_id == "1" * 32
        for words in (
            f"127.0.0.2 (machine id {machine_id[:12]}{', boot boot-2' if same else ''})",
            f"127.0.0.1 (machine id 111111111111{', boot boot-1' if same else ''}) came first",
            "`dorafleet revoke arm1`",
            "`dorafleet enrol cluster.yml arm1`",
        ):
            assert words in robot.clone
        # Where people look, and in the exit codes.
        assert not rows.is_well(robot)
        (check,) = [each for each in checks.check_robots([robot]) if each.name == "arm1"]
        assert (check.level, check.text) == ("FAIL", robot.clone)
        await fleet.until(lambda: "arm1:clone:robot" in {a.id for a in alerts(fleet)})
        (alert,) = [each for each in alerts(fleet) if each.id == "arm1:clone:robot"]
        assert (alert.severity, alert.text) == ("fail", robot.clone)
        status = await fleet.call("daemon.status")
        assert any(robot.clone in notice for notice in status.notices)


def alerts(fleet):
    return fleet.control.overview.book.alerts()


@pytest.mark.parametrize("boot_id", ["boot-1", "boot-2"], ids=["containers", "machines"])
async def test_a_clone_that_comes_while_the_first_is_off_gets_no_place(tmp_path, boot_id):
    async with leading(tmp_path) as fleet:
        first = await fleet.agent("arm1", **FIRST)
        await fleet.disconnect(first)
        clone = FakeAgent("arm1", fleet.port, **{**CLONE, "boot_id": boot_id})
        await refused(clone)
        robot = await shown(fleet)
        assert robot.state == "unreachable"
        assert "127.0.0.2 (machine id 222222222222)" in robot.clone
        await fleet.until(
            lambda: {"arm1:clone:robot", "arm1:unreachable:robot"} <= {a.id for a in alerts(fleet)}
        )
    # The next coordinator knows it, too.
    async with leading(tmp_path) as fleet:
        clone.port = first.port = fleet.port
        await refused(clone)
        await fleet.connect(first)
        assert (await shown(fleet)).state == "connected"


@pytest.mark.parametrize("boot_id", ["boot-1", "boot-2"], ids=["containers", "machines"])
async def test_a_clone_with_the_same_machine_id_that_was_refused_once_stays_refused(
    tmp_path, boot_id
):
    async with leading(tmp_path) as fleet:
        first = await fleet.agent("arm1", **FIRST)
        copied = {**CLONE, "machine_id": "1" * 32, "boot_id": boot_id}
        clone = FakeAgent("arm1", fleet.port, **copied)
        await refused(clone)
        await fleet.disconnect(first)
        await refused(clone)
        clone.boot_id = "boot-3"
        await refused(clone)
        await fleet.connect(first)


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": "boot-5"},
        {"boot_id": "boot-5", "host": "127.0.0.5"},
        {"host": "127.0.0.5"},
        {"boot_id": "boot-5", "machine_id": "5" * 32},
        {"boot_id": "boot-5", "machine_id": ""},
    ],
    ids=["rebooted", "rebooted and moved", "moved", "installed again", "older software"],
)
@pytest.mark.parametrize("dead", [False, True], ids=["cut", "still open"])
async def test_the_robot_itself_always_gets_its_place_back(tmp_path, monkeypatch, changes, dead):
    """Also while its former connection is open, to a machine that no longer answers."""
    monkeypatch.setattr("dorafleet.coordinator.connections.ANSWER_S", 0.5)
    async with leading(tmp_path) as fleet:
        before = await fleet.agent("arm1", **FIRST)
        if dead:
            before.connection.transport.pause_reading()
        else:
            await before.stop()
        back = FakeAgent("arm1", fleet.port, **{**FIRST, **changes})
        fleet.agents["back"] = back
        await fleet.connect(back)
        robot = await shown(fleet)
        assert (robot.state, robot.clone) == ("connected", "")
        await fleet.start({"nodes": [TALK["nodes"][0]]})
        await fleet.until(lambda: [each.dataflow for each in back.sets] == ["talk"])
        if dead:
            before.connection.transport.resume_reading()


async def test_an_agent_that_connects_again_from_the_same_machine_replaces_at_once(tmp_path):
    async with leading(tmp_path) as fleet:
        first = await fleet.agent("arm1", **FIRST)
        again = FakeAgent("arm1", fleet.port, **FIRST)
        fleet.agents["again"] = again
        await fleet.connect(again)
        await first.ended.until(lambda: not first.connected, DEADLINE_S)
        assert again.connected
        assert (await shown(fleet)).clone == ""


async def test_of_two_that_come_at_once_one_gets_the_place(tmp_path):
    async with leading(tmp_path) as fleet:
        both = [FakeAgent("arm1", fleet.port, **each) for each in (FIRST, CLONE)]
        fleet.agents.update(zip(("one", "two"), both, strict=True))
        await asyncio.gather(*(each.start() for each in both))
        await fleet.until(lambda: [each.connected for each in both].count(False) == 1)
        await fleet.until(lambda: fleet.control.robots.get("arm1").client is not None)
        (loser,) = [each for each in both if not each.connected]
        await refused(loser)
        assert loser.host in (await shown(fleet)).clone


async def test_a_new_enrolment_gives_the_place_to_the_machine_that_has_it(tmp_path):
    async with leading(tmp_path) as fleet:
        first = await fleet.agent("arm1", **FIRST)
        clone = FakeAgent("arm1", fleet.port, **CLONE)
        await refused(clone)
        await fleet.disconnect(first)
        fleet.control.robots.forget_place("arm1")
        await fleet.connect(clone)
        robot = await shown(fleet)
        assert (robot.address, robot.clone) == ("127.0.0.2", "")
        await clone.stop()


async def test_a_clone_with_earlier_software_is_kept_without_orders(tmp_path, monkeypatch):
    """It would connect again at once whenever it is closed after it has attached."""
    monkeypatch.setattr("dorafleet.coordinator.connections.CLONE_S", 1.0)
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1", **FIRST)
        clone = FakeAgent("arm1", fleet.port, **{**CLONE, "machine_id": ""})
        await clone.start()
        robot = fleet.control.robots.get("arm1")
        await fleet.until(lambda: robot.clones)
        assert clone.connected
        await fleet.start({"nodes": [TALK["nodes"][0]]})
        await clone.ended.until(lambda: not clone.connected, DEADLINE_S)
        assert clone.sets == []


FULL_COPY = {**CLONE, "machine_id": FIRST["machine_id"]}


async def copied_while_off(fleet, **more):
    """Let a copy with the same machine id come while the robot is off; it looks like the robot."""
    first = await fleet.agent("arm1", **FIRST)
    await fleet.disconnect(first)
    copy = FakeAgent("arm1", fleet.port, **FULL_COPY | more)
    fleet.agents["copy"] = copy
    await fleet.connect(copy)
    assert (await shown(fleet)).clone == ""
    return first, copy


async def test_the_robot_gets_its_place_back_from_a_full_copy_if_it_was_not_rebooted(tmp_path):
    async with leading(tmp_path) as fleet:
        first, copy = await copied_while_off(fleet)
        await fleet.connect(first)
        await copy.ended.until(lambda: not copy.connected, DEADLINE_S)
        for _ in range(3):
            await refused(copy)
            assert first.connected
        robot = await shown(fleet)
        assert (robot.state, robot.address) == ("connected", "127.0.0.1")
        assert "127.0.0.2 (machine id 111111111111, boot boot-2)" in robot.clone
        assert "127.0.0.1 (machine id 111111111111, boot boot-1) came first" in robot.clone
        # The copy stays refused while the robot is off.
        await fleet.disconnect(first)
        await refused(copy)
        await fleet.connect(first)


@pytest.mark.parametrize(
    ("copied", "comes_back"),
    [("boot-2", "boot-3"), ("boot-1", "boot-1")],
    ids=["rebooted", "copied with its memory"],
)
async def test_of_a_robot_that_was_rebooted_and_its_full_copy_both_are_shown_and_none_flaps(
    tmp_path, copied, comes_back
):
    async with leading(tmp_path) as fleet:
        first, copy = await copied_while_off(fleet, boot_id=copied)
        first.boot_id = comes_back
        for _ in range(3):
            await refused(first)
            assert copy.connected
        robot = await shown(fleet)
        assert (robot.state, robot.address) == ("connected", "127.0.0.2")
        for words in (
            "two machines have its id and certificate",
            f"127.0.0.1 (machine id 111111111111, boot {comes_back}) had its place and is refused",
            f"127.0.0.2 (machine id 111111111111, boot {copied}) has it now",
            "either may be the copy",
            "`dorafleet revoke arm1`",
        ):
            assert words in robot.clone
    # The next coordinator says the same.
    async with leading(tmp_path) as fleet:
        first.port = fleet.port
        await refused(first)
        assert "had its place and is refused" in (await shown(fleet)).clone


async def test_a_full_copy_does_not_get_the_place_back_that_it_once_had(tmp_path):
    async with leading(tmp_path) as fleet:
        first, copy = await copied_while_off(fleet)
        await fleet.disconnect(copy)
        first.boot_id = "boot-3"
        await fleet.connect(first)
        for _ in range(2):
            await refused(copy)
            assert first.connected


def test_who_had_the_place_before_is_known_over_reboots():
    def after(*origins):
        former = first = None
        for host, boot in origins:
            new = Origin(host, boot)
            former, first = former_after(former, first, new), new
        return former

    assert after(("a", "1")) is None
    assert after(("a", "1"), ("a", "1")) is None
    assert after(("a", "1"), ("a", "2"), ("b", "3")) == Origin("a", "2")
    assert after(("a", "1"), ("b", "2"), ("b", "3")) == Origin("a", "1")
    assert after(("a", "1"), ("b", "2"), ("a", "1")) is None
    assert after(("a", "1"), ("b", "2"), ("a", "3")) is None


async def test_a_robot_that_moves_and_comes_back_in_one_boot_is_no_copy(tmp_path):
    async with leading(tmp_path) as fleet:
        agent = await fleet.agent("arm1", **FIRST)
        for number, host in enumerate(("127.0.0.7", "127.0.0.1", "127.0.0.7")):
            await agent.stop()
            agent = fleet.agents[f"again{number}"] = FakeAgent(
                "arm1", fleet.port, **{**FIRST, "host": host}
            )
            await fleet.connect(agent)
            assert (await shown(fleet)).clone == ""


async def test_a_robot_that_gets_the_address_of_its_refused_copy_is_no_copy(tmp_path):
    """An address server gives it away once the copy is off."""
    async with leading(tmp_path) as fleet:
        first = await fleet.agent("arm1", **FIRST)
        copy = FakeAgent("arm1", fleet.port, **FULL_COPY)
        await refused(copy)
        await fleet.disconnect(first)
        await refused(copy)
        moved = FakeAgent("arm1", fleet.port, **FIRST | {"host": copy.host})
        fleet.agents["moved"] = moved
        await fleet.connect(moved)
        # The copy is refused as before: beside the robot, and from another address without it.
        await refused(copy)
        assert moved.connected
        await fleet.disconnect(moved)
        copy.host = "127.0.0.3"
        await refused(copy)


async def test_a_robot_that_was_rebooted_at_the_address_of_its_copy_is_back_after_another_reboot(
    tmp_path,
):
    """Nothing tells it from the copy: it is refused, in this boot also at its own address."""
    async with leading(tmp_path) as fleet:
        first = await fleet.agent("arm1", **FIRST)
        copy = FakeAgent("arm1", fleet.port, **FULL_COPY)
        await refused(copy)
        await fleet.disconnect(first)
        back = FakeAgent("arm1", fleet.port, **FIRST | {"host": copy.host, "boot_id": "boot-3"})
        await refused(back)
        back.host = FIRST["host"]
        await refused(back)
        back.boot_id = "boot-4"
        fleet.agents["back"] = back
        await fleet.connect(back)


HOSTS = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])


@given(
    st.lists(st.tuples(st.sampled_from(["first", "clone"]), st.booleans(), HOSTS), max_size=30),
    st.booleans(),
)
def test_no_clone_ever_takes_the_place_of_a_machine_that_answers(moves, same_id):
    """Whatever both do: connect again, reboot, move, or stay away."""
    ids = {"first": "1", "clone": "1" if same_id else "2"}
    boots = {"first": 0, "clone": 0}
    holder, place, former, clones = None, None, None, []
    online = set()
    for number, (who, reboots, host) in enumerate(moves):
        if reboots:
            boots[who] += 1
            online.discard(who)
        if who == "clone" and host == "10.0.0.1":
            host = "10.0.0.2"
        new = Origin(host, f"{who}-{boots[who]}", ids[who])
        answers = holder is not None and holder != who and holder in online
        if was_first(new, former, place):
            # It had the place in this boot, so the other one is a copy of it.
            if answers:
                clones = with_clone(clones, place, float(number))
            former = former_after(former, place, new)
            holder, place, online = who, new, {who}
        elif is_clone(new, place, clones, first_answers=answers):
            # A robot that was rebooted at the address of a copy was taken for the copy.
            mistaken = any(each.origin.boot_id == new.boot_id for each in clones)
            clones = with_clone(clones, new, float(number))
            assert holder != who or place.host != new.host or mistaken
            assert place.boot_id != new.boot_id
        else:
            assert not answers
            former = former_after(former, place, new)
            holder, place = who, new
            online = {who}
        assert len(clones) <= MAX_CLONES


def test_what_is_known_of_clones_is_bounded_and_forgotten():
    clones = []
    for number in range(10):
        clones = with_clone(clones, Origin("h", f"b{number}"), float(number))
    assert [each.origin.boot_id for each in clones] == ["b6", "b7", "b8", "b9"]
    again = with_clone(clones, clones[1].origin, 20.0)
    assert [each.origin.boot_id for each in again] == ["b6", "b8", "b9", "b7"]
    (only,) = with_clone(again, Origin("h", "new"), 20.0 + FORGET_S)
    assert only.origin.boot_id == "new"


def test_several_clones_are_one_line_that_fits_in_an_alert():
    first = Origin("fd00:0000:0000:0000:0000:0000:0000:0001", "b", "a" * 32)
    clones = [Clone(Origin(f"fd00::{i}", f"{i}", "f" * 32), 100.0) for i in range(MAX_CLONES)]
    text = clone_text("arm1", first, clones, 100.0)
    assert "fd00::3 (machine id ffffffffffff) and 3 more" in text
    assert len(text) < 300
    assert clone_text("arm1", first, clones, 1000.0) == ""


async def test_a_lie_about_the_machine_id_harms_nobody(tmp_path):
    async with leading(tmp_path) as fleet:
        await fleet.agent("arm1", **FIRST)
        liar = FakeAgent("arm2", fleet.port, machine_id="x" * 5000)
        await liar.start()
        await liar.ended.until(lambda: not liar.connected, DEADLINE_S)
        assert (await shown(fleet)).state == "connected"
        listed = (await fleet.call("robot.list", m.Nothing())).robots
        assert "too long" in next(each for each in listed if each.id == "arm2").reason
