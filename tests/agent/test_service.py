"""The agent between a coordinator and dorad: real processes, real TLS, a daemon of the test."""

import asyncio
import socket
import time
from contextlib import AsyncExitStack

import apsw
import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.agent import (
    AGENT_REMEMBER,
    SHARE_OPEN,
    SHARE_REMOVE,
    Remember,
    ShareRef,
)
from tests.agent.fleet import DEADLINE_S, robot, send
from tests.agent.orders import NODE, UUID, order
from tests.harness.waiting import until


async def test_a_share_is_started_held_opened_and_stopped(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach()
        assert control.attached.robot == "arm1"
        state = await send(control, order(hold=20, connect=["tls/192.0.2.9:5456"]))
        assert state.status == "pending"
        await control.reaches("ready")
        [start] = dorad.started
        assert (start.uuid, start.name, start.hold) == (UUID, "flow", 20)
        assert start.descriptor == NODE
        assert start.share.tls.key == str(agent.folder / "identity/key.pem")
        ref = ShareRef(epoch=1, generation=1, dataflow="flow")
        await control.client.call(SHARE_OPEN, ref)
        await control.reaches("running")
        assert dorad.opened == [UUID]
        await send(control, order(2, enabled=False, grace=3))
        ended = await control.reaches("stopped", generation=2)
        assert [(stop.dataflow, stop.grace) for stop in dorad.stops] == [(UUID, 3)]
        assert ended.outcome.status == "finished"
        ref = ShareRef(epoch=1, generation=2, dataflow="flow")
        await control.client.call(SHARE_REMOVE, ref)
        await until(lambda: any(report.removed == ["flow"] for report in control.reports))


async def test_a_changed_share_is_changed_in_place(folder):
    async with robot(folder) as (coordinator, _, dorad):
        control = await coordinator.attach_running()
        await send(control, order(2, descriptor={"nodes": []}))
        await control.reaches("running", generation=2)
        assert [update.descriptor for update in dorad.updates] == [{"nodes": []}]
        dorad.refusal = ControlError("conflict", "node a is in use")
        await send(control, order(3, descriptor=NODE))
        refused = await control.reaches("running", generation=3)
        assert "node a is in use" in refused.reason
        assert len(dorad.started) == 1


async def test_a_share_that_dorad_refuses_has_failed_and_says_why(folder):
    async with robot(folder) as (coordinator, _, dorad):
        dorad.refusal = ControlError("bad-request", "bad", None, ["node a: no such file", "b"])
        control = await coordinator.attach()
        await send(control, order())
        failed = await control.reaches("failed")
        assert failed.reason == "node a: no such file; b"


async def test_a_share_that_ran_before_is_tried_again_until_dorad_can_start_it(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach_running()
        agent.kill()
        await control.close()
        # As after a boot, when not everything is up yet.
        dorad.runs.clear()
        dorad.refusal = ControlError("refused", "nodes cannot be started: no D-Bus")
        agent.start()
        control = await coordinator.attach()
        pending = await control.reaches("pending")
        await until(lambda: "no D-Bus" in control.shares["flow"].reason)
        dorad.refusal = None
        await control.reaches("running")
        assert pending.outcome is None


def forget_that_it_ran(agent):
    """Leave the file as a kill does that comes before the agent has stored dorad's answer."""
    database = apsw.Connection(str(agent.folder / "shares.db"))
    [content] = database.execute("SELECT record FROM assignment").fetchone()
    changed = content.replace(b'"ran":true', b'"ran":false')
    assert changed != content
    database.execute("UPDATE assignment SET record = ?", (changed,))
    database.close()


async def test_a_share_whose_start_was_not_stored_is_tried_again_after_a_boot(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach_running()
        agent.kill()
        await control.close()
        forget_that_it_ran(agent)
        agent.start()
        control = await coordinator.attach()
        await control.reaches("running")
        agent.kill()
        await control.close()
        dorad.runs.clear()
        dorad.refusal = ControlError("refused", "nodes cannot be started: no D-Bus")
        agent.start()
        control = await coordinator.attach()
        await until(lambda: "no D-Bus" in control.shares["flow"].reason)
        assert control.shares["flow"].status == "pending"
        dorad.refusal = None
        await control.reaches("running")


async def test_a_stop_by_force_does_not_wait_for_one_that_waits(folder):
    async with robot(folder) as (coordinator, _, dorad):
        dorad.slow_stop = True
        control = await coordinator.attach_running()
        await send(control, order(2, enabled=False, grace=1000))
        await control.reaches("stopping")
        await send(control, order(3, enabled=False, force=True))
        await control.reaches("stopped", generation=3)


async def test_a_kill_and_an_upgrade_of_the_agent_disturb_no_node(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach(epoch=4, audit="head")
        await send(control, order(epoch=4))
        await control.reaches("running")
        for end in (agent.kill, agent.end):
            end()
            await control.close()
            agent.start()
            control = await coordinator.attach(epoch=4)
            assert control.attached.epoch == 4
            assert [share.status for share in control.attached.shares] in (["running"], ["pending"])
            await control.reaches("running")
        assert len(dorad.started) == 1
        assert dorad.updates == []
        assert dorad.stops == []


async def test_systemd_is_notified_of_the_state_and_that_the_agent_is_alive(folder):
    loop = asyncio.get_running_loop()
    async with robot(folder) as (coordinator, agent, _):
        control = await coordinator.attach()
        await asyncio.to_thread(agent.end)
        await control.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.setblocking(False)
            systemd.bind(str(folder / "notify"))
            agent.start(NOTIFY_SOCKET=str(folder / "notify"), WATCHDOG_USEC="4000000")
            control = await coordinator.attach()
            notified = []
            async with asyncio.timeout(DEADLINE_S):
                while not notified or "connected 127.0.0.1" not in notified[-1]:
                    notified.append((await loop.sock_recv(systemd, 1000)).decode())
                assert notified[0].startswith("READY=1\nSTATUS=robot arm1; ")
                assert "WATCHDOG=1" in notified
                await asyncio.to_thread(agent.end)
                while not notified[-1].startswith("STOPPING=1"):
                    notified.append((await loop.sock_recv(systemd, 1000)).decode())


async def test_an_agent_is_ended_by_sigterm_with_success(folder):
    async with robot(folder) as (coordinator, agent, _):
        await coordinator.attach()
        assert await asyncio.to_thread(agent.end) == 0


async def test_orders_survive_while_dorad_is_away(folder):
    async with robot(folder) as (coordinator, _, dorad):
        control = await coordinator.attach()
        await dorad.stop()
        await until(lambda: control.reports and control.reports[-1].daemon)
        pending = await send(control, order())
        assert pending.status == "pending"
        with pytest.raises(ControlError) as caught:
            await control.client.list()
        assert caught.value.code == "unavailable"
        await dorad.start()
        await control.reaches("running")
        await until(lambda: control.reports[-1].daemon == "")
        assert await control.client.list() != []
        await dorad.stop()
        await until(lambda: control.reports[-1].daemon)
        assert control.shares["flow"].status == "running"
        await dorad.start()
        await until(lambda: control.reports[-1].daemon == "")
        assert len(dorad.started) == 1


async def test_a_share_ends_when_dorad_says_so(folder):
    async with robot(folder) as (coordinator, _, dorad):
        control = await coordinator.attach_running()
        dorad.end(UUID, "failed")
        ended = await control.reaches("failed")
        assert ended.outcome.status == "failed"


async def test_an_old_coordinator_is_not_obeyed(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach(epoch=5, audit="five")
        await control.close()
        with pytest.raises(ControlError, match="epoch 5; epoch 4 is older"):
            await coordinator.attach(epoch=4)
        control = await coordinator.attach(epoch=6, audit="six")
        assert (control.attached.epoch, control.attached.audit) == (5, "five")
        with pytest.raises(ControlError, match="is older"):
            await send(control, order(epoch=5))
        assert dorad.started == []
        await control.close()
        del agent


async def test_the_head_of_the_audit_is_kept_and_the_one_before_told(folder):
    async with robot(folder) as (coordinator, agent, _dorad):
        control = await coordinator.attach(epoch=5, audit="five")
        begun = time.time()
        found = await control.client.call(AGENT_REMEMBER, Remember(audit="six"))
        assert found.audit == "five"
        assert begun <= found.time <= time.time()
        await control.close()
        control = await coordinator.attach(epoch=5, audit="seven")
        assert control.attached.audit == "six"
        await control.close()
        del agent


async def test_methods_of_the_daemon_are_passed_on_with_their_errors_and_data(folder):
    async with robot(folder) as (coordinator, _, dorad):
        control = await coordinator.attach()
        client = control.client
        assert await client.list() == []
        with pytest.raises(ControlError) as caught:
            await client.top()
        error = caught.value
        assert (error.code, error.message, error.hint) == ("busy", "not now", "later")
        assert error.problems == ["a problem"]
        async with client.frames(m.TopicSubscribe()) as frames:
            found = [(header.sequence, bytes(data)) async for header, data in frames]
        assert found == [(number + 1, bytes([number]) * 1000) for number in range(3)]
        async with client.watch() as events:
            arriving = asyncio.ensure_future(anext(aiter(events)))
            await until(lambda: dorad.network_changed() or arriving.done())
            assert (await arriving).what == "network-changed"
        with pytest.raises(ControlError) as caught:
            await client.call(m.DAEMON_STATUS, m.Nothing())
        assert caught.value.code == "unsupported"


async def test_streams_of_clients_leave_room_for_those_of_the_coordinator(folder):
    async with robot(folder) as (coordinator, _, _dorad), AsyncExitStack() as stack:
        client = (await coordinator.attach()).client
        wanted = m.TopicWatch()
        with pytest.raises(ControlError, match="running streams, the maximum"):
            for _ in range(100):
                rates = client.stream(m.TOPIC_WATCH, wanted)
                await stack.enter_async_context(rates)
                await anext(rates)
        with pytest.raises(ControlError, match="running streams, the maximum"):
            await anext(client.stream(m.WATCH, m.Watch()))
        async with client.stream(m.FLEET_WATCH, m.FleetWatch()) as rows:
            assert (await anext(rows)).whole
        assert await client.list() == []


async def test_a_heartbeat_comes_though_nothing_changes(folder):
    async with robot(folder) as (coordinator, _, _dorad):
        control = await coordinator.attach_running()
        before = len(control.reports)
        await until(lambda: len(control.reports) >= before + 5)
        assert all(report.shares == [] for report in control.reports[before + 2 :])
        assert all(report.room for report in control.reports)


async def test_after_the_coordinator_has_been_away_the_agent_is_back_in_seconds(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach_running()
        await coordinator.stop()
        await control.close()
        await agent.connection("unreachable")
        dorad.end(UUID, "finished")
        await coordinator.start()
        control = await coordinator.attach()
        await control.reaches("finished")
        assert (await agent.connection("connected")).robot == "arm1"
