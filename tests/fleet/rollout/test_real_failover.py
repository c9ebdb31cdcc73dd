"""The files of releases after another coordinator has taken over: real processes, etcd, a robot."""

import asyncio
import json
import random
import re
import shutil
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncssh
import pytest

from dorad.control.target import TlsFiles
from dorad.release.signature import ALLOWED
from dorafleet.coordinator import accessmessages
from dorafleet.coordinator.accessmessages import ENROL_TOKEN
from dorafleet.release.build import BuildOptions, build
from dorafleet.release.signingkey import choose
from dorafleet.release.store import Store
from tests.fleet.control.machines import Fleet, Program
from tests.fleet.store.etcdserver import Cluster
from tests.harness.commands import run_command
from tests.harness.ports import free_port
from tests.harness.waiting import until
from tests.release.samples import public

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

DEADLINE_S = 120.0
FLOW = b"""\
nodes:
  - {id: listener, path: listener.py, args: model.bin, inputs: {tick: dora/timer/millis/50}}
"""
NODE = "from dora import Node\nfor event in Node():\n    pass\n"
SIZE = 40 << 20
"""Bytes of the model, which cannot be compressed."""


class Several(Fleet):
    """A robot without SSH, and coordinators with a store in common and no disk in common."""

    def __init__(self, folder, url):
        super().__init__(folder)
        self.robots = {"arm1": self.robots["arm1"]}
        self.store = Store(folder / "store")
        self.url = url
        self.ports = {"one": self.port, "two": free_port()}
        self.coordinators = {}
        self.key = folder / "key"
        made = asyncssh.generate_private_key("ssh-ed25519", comment="ada@example.org")
        made.write_private_key(self.key)
        self.key.chmod(0o600)
        self.signers = f"ada@example.org {public(made)}\n"
        (folder / "cluster.yml").write_text(
            "coordinator: {addr: 127.0.0.1}\n"
            f"machines: [{{id: arm1, host: 127.0.0.1, port: {free_port()}}}]\n"
        )

    @property
    def target(self):
        return super().target._replace(
            token=self.folder / "one" / "token", tls=TlsFiles(self.folder / "one/authority.pem")
        )

    def serve(self, name, *more):
        """Start a coordinator; it waits if another one leads."""
        folder = self.folder / name
        if name != "one" and not folder.exists():
            folder.mkdir(mode=0o700)
            shutil.copytree(self.folder / "one" / "ca", folder / "ca")
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        program = Program(
            log,
            *("dorafleet", "serve", self.folder / "cluster.yml", "--state", folder, "--tls"),
            *("--port", str(self.ports[name]), "--etcd", self.url, *more),
            *("--store", self.folder / "none"),
        )
        program.start()
        self.coordinators[name] = program
        return program

    def end(self):
        for each in self.robots.values():
            each.agent.end()
            each.dorad.end()
        for each in self.coordinators.values():
            each.end(signal.SIGKILL)

    def build(self, listener):
        (self.folder / "flow" / "dataflow.yml").write_bytes(FLOW)
        (self.folder / "flow" / "listener.py").write_text(listener)
        model = self.folder / "flow" / "model.bin"
        if not model.exists():
            model.write_bytes(b"small")
        flow = self.folder / "flow" / "dataflow.yml"
        return build(flow, self.store, choose(str(self.key)), BuildOptions(name="talk")).bundle

    async def run(self, name, *words):
        """Run a command on the machine of a coordinator; return it when it has ended."""
        state = ("--state", str(self.folder / name), "--port", str(self.ports[name]))
        done = await asyncio.to_thread(
            run_command, "dorafleet", [*words, *state], timeout=DEADLINE_S
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    async def stored(self, name):
        return json.loads((await self.run(name, "release", "stored", "--json")).stdout)

    async def until_copied(self, release, name):
        """Wait until a coordinator has a whole release."""
        path = self.folder / name / "uploads" / "manifests" / release
        await until(path.exists)

    async def until_printed(self, name, words, pattern):
        """Repeat a command until it prints something; return it then."""
        return await until(
            lambda: self.run(name, *words),
            lambda done: re.search(pattern, done.stdout + done.stderr),
            deadline_s=DEADLINE_S,
        )

    async def roll_out(self, name, *more):
        cluster = ("--cluster", str(self.folder / "cluster.yml"), "--store", str(self.store.folder))
        quick = ("--min-healthy-time", "1s", "--soak-time", "0", "--canary", "0")
        done = await self.run(name, "rollout", "start", "talk", *cluster, *quick, "--detach", *more)
        assert done.returncode == 0, done.stdout + done.stderr

    async def status(self, name):
        return json.loads((await self.run(name, "rollout", "status", "--json")).stdout)

    async def until_status(self, name, holds):
        return await until(lambda: self.status(name), holds, deadline_s=DEADLINE_S)

    async def join(self):
        robot = self.robots["arm1"]
        robot.dorad.start()
        await robot.dorad.until_logged("ready at")
        async with self.client() as client:
            token = await client.call(ENROL_TOKEN, accessmessages.EnrolRef(robot="arm1"))
        await asyncio.to_thread(robot.join, "arm1", self.port, token)
        addresses = [f"127.0.0.1:{port}" for port in self.ports.values()]
        folder = ("--state-dir", str(robot.folder / "agent"))
        done = await asyncio.to_thread(
            run_command, "dorad-agent", [*folder, "move", *addresses], timeout=DEADLINE_S
        )
        assert done.returncode == 0, done.stderr
        signers = robot.folder / "agent" / "signers"
        signers.mkdir(exist_ok=True)
        (signers / ALLOWED).write_text(self.signers)
        robot.agent.start()
        await robot.agent.until_logged(r"coordinator \S+: connected")


async def test_a_new_leader_has_copies_and_waits_for_what_it_lacks_until_the_other_is_back(
    tmp_path,
):
    etcd = Cluster(tmp_path, 1)
    async with AsyncExitStack() as stack:
        stack.callback(etcd.end)
        await asyncio.to_thread(etcd.start)
        # The paths of sockets are short.
        folder = stack.enter_context(TemporaryDirectory(prefix="dora-"))
        fleet = Several(Path(folder), etcd.urls[0])
        stack.callback(fleet.end)
        await fleet.serve("one").until_logged("ready at")
        await fleet.join()
        await fleet.serve("two").until_logged("waiting to lead")

        # One leads, and two gets a copy of what is uploaded to it.
        first = await asyncio.to_thread(fleet.build, NODE)
        upload = ("release", "upload", "talk", "--store", str(fleet.store.folder))
        assert (await fleet.run("one", *upload)).returncode == 0
        await fleet.until_copied(first.id, "two")
        await fleet.run("one", "release", "stored")
        shown = await fleet.stored("one")
        assert [other["name"].rpartition(":")[2] for other in shown["others"]] == [
            str(fleet.ports["two"])
        ]
        fleet.coordinators["one"].end(signal.SIGKILL)
        await fleet.coordinators["two"].until_logged("ready at")
        await fleet.robots["arm1"].agent.until_logged(
            rf"coordinator \S+:{fleet.ports['two']}: connected"
        )
        await fleet.roll_out("two")
        await fleet.until_status("two", lambda found: found["summary"]["phase"] == "succeeded")

        # Now two leads alone; what it gets has no copy when it ends.
        second = await asyncio.to_thread(fleet.build, NODE + "# changed\n")
        assert (await fleet.run("two", *upload)).returncode == 0
        fleet.robots["arm1"].agent.end()
        await fleet.roll_out("two")
        fleet.coordinators["two"].end(signal.SIGTERM)
        await fleet.serve("one").until_logged("ready at")
        fleet.robots["arm1"].agent.start()
        found = await fleet.until_status(
            "one", lambda found: "cannot send its files" in str(found["robots"])
        )
        assert not found["summary"]["over"]
        done = await fleet.run("one", "status")
        assert done.returncode == 1
        assert "the files of talk@2, which is needed, are not here" in done.stderr
        assert (await fleet.run("one", "release", "stored")).returncode == 1

        # Its files come back with the other coordinator, and the rollout goes on.
        await fleet.serve("two").until_logged("waiting to lead")
        await fleet.until_copied(second.id, "one")
        await fleet.until_status("one", lambda found: found["summary"]["phase"] == "succeeded")
        stored = await fleet.run("one", "release", "stored")
        assert (stored.returncode, "has what is needed" in stored.stdout) == (0, True), stored


async def test_one_that_cannot_copy_is_named_with_the_reason_and_goes_on_where_it_was(tmp_path):
    etcd = Cluster(tmp_path, 1)
    async with AsyncExitStack() as stack:
        stack.callback(etcd.end)
        await asyncio.to_thread(etcd.start)
        fleet = Several(tmp_path / "fleet", etcd.urls[0])
        stack.callback(fleet.end)
        await fleet.serve("one").until_logged("ready at")
        await fleet.serve("two", "--upload-limit", "1MB").until_logged("waiting to lead")
        (fleet.folder / "flow" / "model.bin").write_bytes(random.Random(1).randbytes(SIZE))
        bundle = await asyncio.to_thread(fleet.build, NODE)
        await fleet.roll_out("one", "--upload")

        two = Store(fleet.folder / "two" / "uploads")
        await fleet.until_printed("one", ["release", "stored"], "lacks talk@1: .* would exceed")
        shown = await fleet.until_printed("one", ["status"], "has no copy of the files of talk@1")
        assert shown.returncode == 1
        words = ["plan", "talk", "--store", str(fleet.store.folder)]
        await fleet.until_printed(
            "one", words, f"no copy of the files yet: .*:{fleet.ports['two']}"
        )

        # With room it copies them; killed in the middle, it goes on there.
        fleet.coordinators["two"].end(signal.SIGTERM)
        fleet.serve("two")
        await until(lambda: sum(two.objects.partials().values()) > SIZE // 10)
        fleet.coordinators["two"].end(signal.SIGKILL)
        arrived = sum(two.objects.partials().values())
        assert arrived < SIZE
        fleet.serve("two")
        await fleet.until_copied(bundle.id, "two")
        two.check(two.find(bundle.id))
        await fleet.until_printed("one", ["release", "stored"], "has what is needed")
        log = fleet.coordinators["one"].log.read_text()
        sent = re.findall(r"has the files of \w+: .* sent as ([0-9.]+) MB", log)
        assert float(sent[-1]) < (SIZE - arrived) / 1e6 + 1, (sent, arrived)
