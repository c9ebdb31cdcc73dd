"""Connecting: whom the agent obeys, and what it does when refused, or when the network changes."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers

from dorad.agent import backoff, handlers
from dorad.agent.backoff import MAX_PAUSE_S, HandshakeTimeout, bounded, fleet_backoff
from dorad.agent.dial import Dialer, retry_after
from dorad.agent.identitystore import IdentityStore
from dorad.control import messages as m
from dorad.control.codec import encode
from dorad.control.messages.agent import AGENT_CERTIFY, AGENT_RENEW, Certificates
from dorad.control.tls import Identity
from dorafleet.ca.authority import open_authority
from tests.agent.cable import Cable
from tests.agent.fakedorad import FakeDorad
from tests.agent.fleet import Agent, Coordinator, fleet, robot, send
from tests.agent.orders import order
from tests.harness.commands import fails, succeeds
from tests.harness.waiting import until


async def test_a_refusal_is_shown_with_its_reason_and_not_tried_again_at_once(folder):
    async with robot(folder) as (coordinator, agent, _):
        error = m.Error(code="refused", message="robot `arm1` was revoked", hint="enrol it again")
        control = await coordinator.attach()
        coordinator.refusal = (403, encode(error))
        await coordinator.stop()
        await control.close()
        await coordinator.start()
        found = await agent.connection("refused")
        assert "robot `arm1` was revoked (enrol it again)" in found.connection.reason
        shown = await asyncio.to_thread(agent.command, "status")
        assert shown.returncode == 1
        assert "refused" in shown.stdout
        tries = coordinator.tries
        await asyncio.sleep(1)
        assert coordinator.tries <= tries + 1


async def test_the_agent_waits_as_long_as_the_coordinator_of_a_large_fleet_asks(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach(pause=40.0)
        tries = coordinator.tries
        await control.close()
        await agent.connection("unreachable")
        # Without it, the agent would try within 0.2 s; now it waits from 2.5 s to 10 s.
        await asyncio.sleep(1)
        assert coordinator.tries == tries
        # A network that is back is a reason not to wait.
        await until(lambda: dorad.network_changed() or coordinator.tries > tries)
        await (await coordinator.attach()).close()


async def test_the_agent_tries_no_earlier_than_a_busy_coordinator_says(folder):
    async with robot(folder) as (coordinator, _, _):
        control = await coordinator.attach()
        tries = coordinator.tries
        coordinator.refusal, coordinator.retry_after = (503, b"{}"), "20"
        await control.close()
        await until(lambda: coordinator.tries > tries)
        # Without it, the agent would try again within 0.4 s; now it waits for 10 s at least.
        await asyncio.sleep(1)
        assert coordinator.tries == tries + 1


@pytest.mark.parametrize(
    ("asked", "obeyed"),
    [
        (0.0, 0.0),
        (30.0, 30.0),
        (1e9, MAX_PAUSE_S),
        (float("inf"), MAX_PAUSE_S),
        (-5.0, 0.0),
        (float("nan"), 0.0),
    ],
)
def test_a_coordinator_can_ask_for_a_bounded_pause_only(asked, obeyed):
    assert bounded(asked) == obeyed
    spread = fleet_backoff(asked)
    delays = [spread.next() for _ in range(20)]
    assert 0 < delays[0] <= max(0.2, obeyed / 4)
    assert max(delays) <= max(5.0, obeyed)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("999999999999", 120.0), ("soon", 0.0), ("-3", 0.0), ("²", 0.0)],
)
def test_only_a_number_of_seconds_is_obeyed(text, seconds):
    assert retry_after(Headers({"Retry-After": text})) == seconds
    assert retry_after(Headers()) == 0.0


@given(st.lists(st.sampled_from(["expired", "answered"])), st.floats(), st.booleans())
def test_the_time_for_a_handshake_is_bounded_and_starts_again_after_an_answer(acts, pause, alone):
    allowed, expired = HandshakeTimeout(), 0
    for act in acts:
        getattr(allowed, act)()
        expired = expired + 1 if act == "expired" else 0
    expected = min(10.0 * 2**expired, 80.0 if alone else 20.0)
    assert allowed.seconds(0.0, alone=alone) == expected
    assert allowed.pause == (min(5.0 * 2**expired, 40.0) if expired else 0.0)
    assert allowed.seconds(pause, alone=alone) == max(expected, bounded(pause))


async def test_a_coordinator_that_lets_its_fleet_wait_for_handshakes_is_given_more_time(
    folder, monkeypatch
):
    """Each try would end before its turn if all had the same time."""
    monkeypatch.setattr(backoff, "HANDSHAKE_S", 0.2)
    coordinator, line = Coordinator(folder, open_authority(folder / "ca")), Cable(delay=1.0)
    await coordinator.start()
    await line.start(coordinator.port)
    agent = Agent(folder, folder / "dorad.sock")
    await asyncio.to_thread(agent.enrol, coordinator.authority, line.port)
    reasons = []
    dialer = Dialer(
        IdentityStore(folder / "agent"), {}, lambda: reasons.append(dialer.status.reason)
    )
    dialing = asyncio.create_task(dialer.run())
    try:
        await coordinator.accepted()
    finally:
        dialing.cancel()
        await asyncio.wait({dialing})
        await line.stop()
        await coordinator.stop()
    assert reasons[:2] == ["no answer within 0.2 s", "no answer within 0.4 s"]


@pytest.mark.long
async def test_a_coordinator_that_gives_up_on_handshakes_is_tried_less_often(folder, monkeypatch):
    monkeypatch.setattr(backoff, "MAX_HANDSHAKE_S", 40.0)
    tries = []

    async def give_up(reader, writer):
        await reader.read(1)
        tries.append(time.monotonic())
        writer.transport.abort()

    authority = open_authority(folder / "ca")
    server = await asyncio.start_server(give_up, "127.0.0.1", 0)
    agent = Agent(folder, folder / "dorad.sock")
    await asyncio.to_thread(agent.enrol, authority, server.sockets[0].getsockname()[1])
    dialer = Dialer(IdentityStore(folder / "agent"), {}, lambda: None)
    dialing = asyncio.create_task(dialer.run())
    await until(lambda: len(tries) >= 2)
    dialing.cancel()
    await asyncio.wait({dialing})
    server.close()
    # Without it, the second try would come within 0.2 s; now the pause is 2.5 s to 10 s.
    assert tries[1] - tries[0] >= 2


async def test_the_agent_tries_at_once_when_the_network_changes(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        coordinator.refusal = (403, b"{}")
        await agent.connection("refused")
        coordinator.refusal = None
        tries = coordinator.tries
        await until(lambda: dorad.network_changed() or coordinator.tries > tries)
        await coordinator.attach()


@pytest.mark.long
@pytest.mark.parametrize("notified", [True, False])
async def test_a_connection_that_is_silently_dead_is_replaced(folder, notified):
    """At once if the network has changed, else when pings are no longer answered."""
    dorad = FakeDorad(folder / "dorad.sock")
    cable = Cable()
    coordinator = Coordinator(folder, open_authority(folder / "ca"))
    await dorad.start()
    await coordinator.start()
    await cable.start(coordinator.port)
    agent = Agent(folder, dorad.path)
    await asyncio.to_thread(agent.enrol, coordinator.authority, cable.port)
    agent.start()
    try:
        control = await coordinator.attach()
        cable.cut()
        cut_at = time.monotonic()
        if notified:
            dorad.network_changed()
        again = await coordinator.attach()
        seconds = time.monotonic() - cut_at
        assert notified == ("the connection no longer works" in agent.log)
        assert seconds < 45
        await control.close()
        await again.close()
    finally:
        agent.clear()
        await cable.stop()
        await coordinator.stop()
        await dorad.stop()


async def test_another_version_of_the_protocol_is_refused_by_both_and_said(folder):
    async with robot(folder) as (coordinator, agent, _):
        connection = await coordinator.accepted()
        await connection.send(json.dumps({"hello": "dorafleet 9", "protocol": 99}))
        reply = json.loads(await connection.recv())
        assert reply["error"]["code"] == "version"
        found = await agent.connection("refused")
        assert "version 99" in found.connection.reason


async def test_the_next_coordinator_is_tried_when_one_is_away(folder):
    away = Coordinator(folder, open_authority(folder / "ca"))
    await away.start()
    await away.stop()
    coordinator = Coordinator(folder, away.authority)
    await coordinator.start()
    agent = Agent(folder, folder / "dorad.sock")
    await asyncio.to_thread(agent.enrol, away.authority, away.port, coordinator.port)
    agent.start()
    try:
        control = await coordinator.attach()
        found = await agent.connection("connected")
        assert found.connection.coordinator == f"127.0.0.1:{coordinator.port}"
        await control.close()
    finally:
        agent.clear()
        await coordinator.stop()


async def test_a_coordinator_may_have_an_ipv6_address(folder):
    coordinator = Coordinator(folder, open_authority(folder / "ca"), "::1")
    try:
        await coordinator.start()
    except OSError:
        pytest.skip("this machine has no IPv6")
    agent = Agent(folder, folder / "dorad.sock")
    await asyncio.to_thread(agent.enrol, coordinator.authority, coordinator.port, host="[::1]")
    agent.start()
    try:
        control = await coordinator.attach()
        found = await agent.connection("connected")
        assert found.connection.coordinator == f"[::1]:{coordinator.port}"
        await control.close()
    finally:
        agent.clear()
        await coordinator.stop()


async def test_a_robot_whose_key_others_may_read_says_so_until_that_is_mended(folder):
    async with fleet(folder, folder / "dorad.sock") as (coordinator, agent):
        key = agent.folder / "identity/key.pem"
        await coordinator.stop()
        key.chmod(0o644)
        await coordinator.start()
        await agent.says(f"the private key in {key}: its mode is 0644")
        assert f"`chmod 640 {key}`" in agent.log
        key.chmod(0o640)  # dorad, which has the group of the key on a robot, reads it
        await (await coordinator.attach()).close()


async def test_no_server_is_obeyed_but_a_coordinator_of_the_fleet(folder):
    strangers = open_authority(folder / "strangers")
    async with fleet(folder, folder / "dorad.sock") as (coordinator, agent):
        await coordinator.stop()
        for identity, authority, reason in [
            (Identity("robot", "arm2"), None, "the certificate of dorad:robot/arm2"),
            (Identity("coordinator", "base"), strangers, "unable to get local issuer"),
        ]:
            await coordinator.start(identity, authority)
            await agent.says(reason)
            await coordinator.stop()
        while not coordinator.hears.empty():
            # It has said nothing to them.
            assert coordinator.hears.get_nowait().close_code is not None
        await coordinator.start()
        await coordinator.attach()


async def test_a_renewed_certificate_is_used_and_stops_nothing(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach()
        await send(control, order(connect=["tls/192.0.2.9:5456"]))
        await control.reaches("running")
        before = (agent.folder / "identity/key.pem").read_text()
        asked = await control.client.call(AGENT_RENEW, m.Nothing())
        issued = coordinator.authority.issue(asked.csr, Identity("robot", "arm1"))
        answer = Certificates(chain=issued.chain, authority=coordinator.authority.certificate)
        await control.client.call(AGENT_CERTIFY, answer)
        again = await coordinator.attach()
        assert (agent.folder / "identity/key.pem").read_text() != before
        assert (agent.folder / "identity/chain.pem").read_text() == issued.chain
        assert len(list(agent.folder.glob("identity.*"))) == 1
        assert again.shares["flow"].status == "running"
        # The links take it, too.
        await until(lambda: len(dorad.updates) == 1)
        assert len(dorad.started) == 1
        await control.close()
        await again.close()


async def test_the_service_ends_when_the_robot_leaves_its_fleet(folder):
    async with robot(folder) as (coordinator, agent, _):
        await coordinator.attach_running()
        refused = await asyncio.to_thread(agent.command, "leave")
        assert refused.returncode == 1
        assert "dataflows of the fleet run here: flow" in refused.stderr
        succeeds(await asyncio.to_thread(agent.command, "leave", "--force"))
        assert not (agent.folder / "identity").exists()
        await until(lambda: agent.process.poll() is not None)
        assert "this robot is not enrolled" in agent.log


async def test_a_robot_that_moves_to_another_fleet_obeys_its_coordinator(folder):
    other = Coordinator(folder / "other", open_authority(folder / "other-ca"))
    (folder / "other").mkdir()
    await other.start()
    try:
        async with robot(folder) as (coordinator, agent, dorad):
            control = await coordinator.attach(epoch=9, audit="nine")
            await send(control, order(5, epoch=9))
            await control.reaches("running")
            await asyncio.to_thread(agent.enrol, other.authority, other.port, replace=True)
            moved = await other.attach(epoch=1, audit="one")
            assert (moved.attached.epoch, moved.attached.audit) == (0, "")
            [share] = moved.attached.shares
            assert (share.status, share.epoch, share.generation) == ("running", 9, 5)
            await send(moved, order(6, enabled=False))
            await moved.reaches("stopped", generation=6)
            assert len(dorad.started) == 1
            await moved.close()
            await control.close()
    finally:
        await other.stop()


async def test_only_one_agent_runs_in_a_folder(folder):
    async with robot(folder) as (coordinator, agent, _):
        await coordinator.attach()
        fails(await asyncio.to_thread(agent.command, "run"), 1, "already runs")
        # Its file may still say that dorad was not asked yet.
        await until(lambda: agent.command("status").returncode == 0)
        shown = await asyncio.to_thread(agent.command, "status", "--json")
        assert json.loads(shown.stdout)["pid"] == agent.process.pid
        agent.kill()
        fails(await asyncio.to_thread(agent.command, "status"), 1, "no dorad-agent runs")


async def test_a_refusal_after_the_coordinator_has_attached_is_shown_and_not_tried_again_at_once(
    folder,
):
    """Only then the coordinator knows which machine this is."""
    async with robot(folder) as (coordinator, agent, _):
        control = await coordinator.attach()
        connection = control.client._connection
        await connection.close(1008, "another machine has the id arm1")
        found = await agent.connection("refused")
        assert "another machine has the id arm1" in found.connection.reason
        tries = coordinator.tries
        await asyncio.sleep(1)
        assert coordinator.tries <= tries + 1


async def test_the_agent_says_on_which_installation_it_runs(folder):
    async with robot(folder) as (coordinator, _, _):
        control = await coordinator.attach()
        assert control.attached.machine_id == handlers.machine_id()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0123456789abcdef" * 2 + "\n", "0123456789abcdef" * 2),
        ("uninitialized\n", ""),
        ("", ""),
        ("ü" * 32, ""),
        (None, ""),
    ],
)
def test_a_machine_id_that_does_not_last_is_none(tmp_path, monkeypatch, text, found):
    monkeypatch.setattr(handlers, "_MACHINE_ID", tmp_path / "machine-id")
    monkeypatch.setattr(handlers, "_TRANSIENT_ID", tmp_path / "transient")
    if text is not None:
        (tmp_path / "machine-id").write_text(text)
    assert handlers.machine_id() == found
    (tmp_path / "transient").touch()
    assert handlers.machine_id() == ""
