"""A robot that was off when its rollout settled gets the files, and then the release, by itself."""

import asyncio

import asyncssh
import pytest

from dorafleet.coordinator.supply import ssh_trouble
from dorafleet.inventory.model import Machine
from dorafleet.rollout import messages as r
from dorafleet.ssh.errors import Code, SshError
from tests.fleet.sshd import SSHD, Host
from tests.harness.ports import free_port

from .site import ID1, ID2, site, strategy


class FakeSupply:
    """Files that reach a robot as soon as they are sent."""

    def __init__(self):
        self.agents = {}
        self.missing = ""
        self.errors = []
        """What the next transfers end with."""
        self.sent = []
        self.connected = []
        """Whether each went over a connection of the robot."""

    def trouble(self, release):
        return self.missing

    async def send(self, release, machine, on_progress=None, connect=None):
        self.sent.append((machine.id, release))
        self.connected.append(connect is not None)
        if self.errors:
            raise self.errors.pop(0)
        self.agents[machine.id].releases.get_files()
        return "1 file"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    for name in ("AFTER_S", "EVERY_S", "RETRY_S", "CHECK_S"):
        monkeypatch.setattr(f"dorafleet.coordinator.supply.{name}", 0.05)


async def settled(one, supply):
    """Roll out to r1; r2 is off, and comes back without the files."""
    supply.agents = one.agents
    await one.connect("r1", "r2")
    await one.runs(ID1)
    await one.agents["r2"].stop()
    one.agents["r2"].releases.has_files = False
    number = await one.start("pick@2", strategy=strategy())
    await one.until_state(number, r1="confirmed")
    one.control.robots.get("r2").away_since -= 60
    await one.until(number, "settled")
    return number


async def drift(one):
    found = await one.fleet.call("drift.list")
    return [row for row in found.rows if row.what == "release"]


async def test_it_is_caught_up_without_a_command(tmp_path):
    supply = FakeSupply()
    async with site(tmp_path, 2, connect=False, supply=supply) as one:
        number = await settled(one, supply)
        (row,) = await drift(one)
        assert (row.robot, row.desired, row.found) == ("r2", "pick@2", "pick@1")
        assert row.way_back.startswith("it follows once it can be reached")
        await one.fleet.connect(one.agents["r2"])
        await one.until(number, "succeeded")
        assert supply.sent == [("r2", ID2)]
        assert one.running() == {"r1": ID2, "r2": ID2}
        assert await drift(one) == []


async def test_status_and_drift_say_what_it_waits_for(tmp_path):
    supply = FakeSupply()
    supply.missing = "there is no release pick@2"
    async with site(tmp_path, 2, connect=False, supply=supply) as one:
        number = await settled(one, supply)
        await one.fleet.connect(one.agents["r2"])
        words = "the coordinator cannot send its files: there is no release pick@2"
        row = await one.until_reason(number, "r2", words)
        assert (row.state, row.waiting) == ("pending", "files")
        (row,) = await drift(one)
        assert words in row.way_back
        assert f"dorafleet rollout follow {number}" in row.way_back
        assert supply.sent == []
        supply.missing = ""
        await one.until(number, "succeeded")


async def test_a_transfer_that_fails_is_tried_again(tmp_path):
    supply = FakeSupply()
    supply.errors = [
        SshError(Code.UNREACHABLE, "no answer"),
        SshError(Code.LOST, "lost"),
        OSError("the store cannot be read"),
    ]
    async with site(tmp_path, 2, connect=False, supply=supply) as one:
        number = await settled(one, supply)
        await one.fleet.connect(one.agents["r2"])
        await one.until(number, "succeeded")
        assert len(supply.sent) == 4


async def test_a_robot_that_refuses_the_files_is_refused(tmp_path):
    supply = FakeSupply()
    supply.errors = [SshError(Code.REFUSED, "the key is revoked")]
    async with site(tmp_path, 2, connect=False, supply=supply) as one:
        number = await settled(one, supply)
        await one.fleet.connect(one.agents["r2"])
        detail = await one.until(number, "succeeded_partially", over=True)
        assert {row.robot: row.reason for row in detail.robots}["r2"] == "the key is revoked"
        assert one.switches()["r2"] == []


async def test_nothing_is_sent_while_a_client_sends(tmp_path):
    supply = FakeSupply()
    async with site(tmp_path, 2, connect=False, supply=supply) as one:
        number = await settled(one, supply)
        stream = one.fleet.stream("rollout.watch", r.RolloutWatch(rollout=number, sends=True))
        await anext(stream)
        await one.fleet.connect(one.agents["r2"])
        await one.until_state(number, r2="pending")
        await asyncio.sleep(0.5)  # nothing may happen
        assert supply.sent == []
        await stream.aclose()
        await one.until(number, "succeeded")
        assert supply.sent == [("r2", ID2)]


async def test_without_a_supply_the_status_says_so(tmp_path):
    async with site(tmp_path, 1) as one:
        one.agents["r1"].releases.has_files = False
        number = await one.start("pick@1")
        await one.until_reason(number, "r1", "it sends none")


@pytest.mark.skipif(SSHD is None, reason="there is no sshd: apt install openssh-server")
async def test_the_files_go_over_ssh(tmp_path, monkeypatch):
    from dorafleet.release.build import BuildOptions, build
    from dorafleet.release.signingkey import choose
    from dorafleet.release.store import Store
    from dorafleet.release.supply import Supply
    from tests.release.samples import public

    operator = asyncssh.generate_private_key("ssh-ed25519", comment="ada@example.org")
    host = Host(tmp_path / "r1", "r1")
    host.start(asyncssh.generate_private_key("ssh-ed25519"), operator)
    try:
        host.trust(public(operator))
        host.known_in(tmp_path / "home", operator)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        flow = tmp_path / "flow"
        flow.mkdir()
        (flow / "camera.py").write_text("print('camera')\n")
        (flow / "dataflow.yml").write_text("nodes: [{id: camera, path: camera.py}]\n")
        store = Store(tmp_path / "store")
        key = await asyncio.to_thread(choose, str(tmp_path / "home/.ssh/id_ed25519"))
        flow_file = flow / "dataflow.yml"
        bundle = (await asyncio.to_thread(build, flow_file, store, key, BuildOptions())).bundle
        supply = Supply(store)
        assert supply.trouble(bundle.id) == ""
        assert "there is no release" in supply.trouble(ID1)
        sent = await supply.send(bundle.id, host.machine())
        assert sent.objects == 2
        assert host.trees.lacking(host.trees.manifest(bundle.id)) == []
        assert list(store.folder.glob(".sending-*")) == []
        host.trust(public(asyncssh.generate_private_key("ssh-ed25519")))
        with pytest.raises(SshError) as caught:
            await supply.send(bundle.id, host.machine())
        assert caught.value.code is Code.REFUSED
        (store.folder / "manifests" / bundle.id).write_bytes(b"{}")
        with pytest.raises(SshError, match="cannot be read"):
            await supply.send(bundle.id, host.machine())
    finally:
        host.stop()


async def test_a_robot_that_ssh_does_not_reach_is_asked_to_connect_and_plan_says_so(tmp_path):
    supply = FakeSupply()
    supply.errors = [SshError(Code.UNREACHABLE, "no route")]
    async with site(tmp_path, 2, connect=False, supply=supply) as one:
        number = await settled(one, supply)
        assert (await one.plan("pick@3")).robots[1].files == (
            "SSH, else a connection that the robot opens"
        )
        await one.fleet.connect(one.agents["r2"])
        await one.until(number, "succeeded")
        assert supply.connected == [False, True]
        assert (await one.plan("pick@3")).robots[1].files == "a connection that the robot opens"


@pytest.mark.parametrize("code", [Code.LOST, Code.TIMEOUT, Code.HOST_KEY_CHANGED, Code.FAILED])
async def test_only_a_robot_that_ssh_does_not_reach_is_asked_to_connect(tmp_path, code):
    supply = FakeSupply()
    supply.errors = [SshError(code, "so it is")]
    async with site(tmp_path, 2, connect=False, supply=supply) as one:
        number = await settled(one, supply)
        await one.fleet.connect(one.agents["r2"])
        await one.until(number, "succeeded")
        assert supply.connected == [False, False]


async def test_where_neither_way_is_open_both_reasons_are_shown(tmp_path, monkeypatch):
    supply = FakeSupply()
    supply.errors = [SshError(Code.UNREACHABLE, "no route"), SshError(Code.FAILED, "too old")]
    async with site(tmp_path, 2, connect=False, supply=supply) as one:
        number = await settled(one, supply)
        monkeypatch.setattr("dorafleet.coordinator.supply.RETRY_S", 60.0)
        await one.fleet.connect(one.agents["r2"])
        row = await one.until_reason(number, "r2", "too old")
        assert "over SSH: no route; over a connection that the robot opens: too old" in row.reason


async def test_beside_a_client_that_sends_a_robot_without_ssh_is_asked_to_connect(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("dorafleet.coordinator.supply.BESIDE_S", 0.05)

    async def trouble(machine):
        assert machine.id == "r2"
        return answers.pop(0)

    answers = ["", "it does not answer"]
    monkeypatch.setattr("dorafleet.coordinator.supply.ssh_trouble", trouble)
    supply = FakeSupply()
    async with site(tmp_path, 2, connect=False, supply=supply) as one:
        number = await settled(one, supply)
        watch = one.fleet.stream("rollout.watch", r.RolloutWatch(rollout=number, sends=True))
        await anext(watch)
        await one.fleet.connect(one.agents["r2"])
        await one.until(number, "succeeded")
        assert supply.connected == [True]
        await watch.aclose()


async def test_a_port_of_ssh_is_found_closed_or_open(monkeypatch):
    monkeypatch.setattr("dorafleet.coordinator.supply.PROBE_S", 5.0)
    async with await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0
    ) as server:
        port = server.sockets[0].getsockname()[1]
        assert await ssh_trouble(Machine("a", "127.0.0.1", port=port)) == ""
    closed = await ssh_trouble(Machine("a", "127.0.0.1", port=free_port()))
    assert "Connect call failed" in closed or "refused" in closed
    assert await ssh_trouble(Machine("a", "no-way.invalid"))
