"""A release reaches robots that SSH cannot reach: real coordinator, TLS, agents and daemons."""

import asyncio
import re
import shutil
import zlib
from contextlib import AsyncExitStack

import asyncssh
import pytest

from dorad.control import messages as m
from dorad.release.signature import ALLOWED
from dorafleet.coordinator.uploadmessages import RELEASE_STORED
from dorafleet.release.build import BuildOptions, build
from dorafleet.release.signingkey import choose
from dorafleet.release.store import Store
from dorafleet.rollout import messages as r
from dorafleet.rollout.messages import DRIFT_LIST, RELEASE_PUT, ROLLOUT_PLAN
from tests.fleet.control.machines import LISTENER, Fleet, Program
from tests.harness.commands import run_command
from tests.release.samples import Release, public

from .test_real import FLOW, STRATEGY, end_of, roll_out

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


class Beyond(Fleet):
    """A fleet without SSH, whose coordinator has a store of releases."""

    def __init__(self, folder, *machines):
        super().__init__(folder, *machines)
        self.store = Store(folder / "store")
        self.coordinator = Program(
            folder / "coordinator.log",
            *("dorafleet", "serve", folder / "cluster.yml", "--state", folder / "state", "--tls"),
            *("--store", self.store.folder),
        )

    def without_store(self):
        """Let the coordinator have no releases but uploaded ones."""
        words = ("--state", self.folder / "state", "--tls", "--store", self.folder / "none")
        self.coordinator = Program(
            self.folder / "coordinator.log",
            *("dorafleet", "serve", self.folder / "cluster.yml", *words),
        )

    def roll_out(self, release, *more, code=0):
        """Start a rollout with the command; return what it has printed."""
        cluster = ("--cluster", self.folder / "cluster.yml", "--store", self.store.folder)
        target = ("--state", self.folder / "state", "--port", str(self.port))
        quick = ("--min-healthy-time", "1s", "--soak-time", "0", "--canary", "0")
        words = ["rollout", "start", release, *cluster, *target, *quick, *more]
        done = run_command("dorafleet", [str(each) for each in words], timeout=200.0)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def release(self, flow, name):
        """Build a release in the coordinator's store; the robots trust its signer."""
        key = self.folder / "key"
        if not key.exists():
            made = asyncssh.generate_private_key("ssh-ed25519", comment="ada@example.org")
            made.write_private_key(key)
            key.chmod(0o600)
            for robot in self.robots.values():
                signers = robot.folder / "agent" / "signers"
                signers.mkdir(exist_ok=True)
                (signers / ALLOWED).write_text(f"ada@example.org {public(made)}\n")
        return build(flow, self.store, choose(str(key)), BuildOptions(name=name)).bundle

    def build(self, listener):
        """Build a release of `talk` with this listener."""
        (self.folder / "flow" / "dataflow.yml").write_bytes(FLOW)
        (self.folder / "flow" / "listener.py").write_text(listener)
        bundle = self.release(self.folder / "flow" / "dataflow.yml", "talk")
        return Release(bundle.content, bundle.signature, {})


async def test_a_release_arrives_over_connections_of_the_robots_where_there_is_no_ssh(tmp_path):
    async with AsyncExitStack() as stack:
        fleet = Beyond(tmp_path)
        stack.callback(fleet.end)
        await fleet.start()
        first = await asyncio.to_thread(fleet.build, LISTENER)
        async with fleet.client() as client:
            number = await roll_out(client, first)
            detail = await end_of(client, number, "succeeded", "reverted", "failed")
            states = [(each.robot, each.state, each.reason) for each in detail.robots]
            assert detail.summary.phase == "succeeded", (detail.summary.reason, states)

            second = await asyncio.to_thread(fleet.build, LISTENER + "# changed\n")
            put = r.ReleasePut(
                content=zlib.compress(second.content), signature=second.signature.decode()
            )
            info = await client.call(RELEASE_PUT, put)
            new = r.RolloutNew(release=info.id, strategy=STRATEGY)
            plan = await client.call(ROLLOUT_PLAN, new)
            assert {each.files for each in plan.robots} == {"a connection that the robot opens"}
            assert (await client.call(DRIFT_LIST, m.Nothing())).robots == 2
        log = (fleet.folder / "coordinator.log").read_text()
        assert "SSH does not reach robot `arm1`, which shall connect" in log
        assert "is unreachable" not in log  # the robots' own connections lived


@pytest.mark.parametrize("more", [["--upload", "--detach"], []])
async def test_robots_beyond_ssh_get_an_uploaded_release_also_when_the_operator_is_gone(
    tmp_path, more
):
    """Without `--upload` the command uploads it when SSH turns out not to reach them."""
    async with AsyncExitStack() as stack:
        fleet = Beyond(tmp_path)
        fleet.without_store()
        stack.callback(fleet.end)
        await fleet.start()
        await asyncio.to_thread(fleet.build, LISTENER)
        shown = await asyncio.to_thread(fleet.roll_out, "talk", *more)
        if more:
            shutil.rmtree(fleet.store.folder)
        else:
            # The one that is tried second may get it from the coordinator by then.
            assert re.search(r"SSH does not reach arm[12]", shown), shown
        async with fleet.client() as client:
            detail = await end_of(client, 1, "succeeded", "reverted", "failed")
            states = [(each.robot, each.state, each.reason) for each in detail.robots]
            assert detail.summary.phase == "succeeded", (detail.summary.reason, states)
            stored = await client.call(RELEASE_STORED, m.Nothing())
            (row,) = stored.releases
            assert (row.label, row.state, row.needed) == (
                *("talk@1", "complete"),
                "desired on arm1, arm2",
            )
