"""A fleet is handed over to a new authority: coordinator, agents and commands are processes."""

import asyncio
import json
import re
import shutil
import signal
from contextlib import contextmanager

import pytest

from dorad.agent.identitystore import IdentityStore
from dorad.control.client import Client
from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.target import Tcp, TlsFiles
from dorafleet.cli.main import run_command
from dorafleet.coordinator.messages import COORDINATOR_STATUS
from tests.agent.fleet import Agent
from tests.fleet.coordinator.running import client, coordinator
from tests.harness.ports import free_port
from tests.harness.waiting import until

THREE = """\
coordinator: {addr: 10.0.0.1}
machines: [{id: arm1, host: 10.0.0.11}, {id: arm2, host: 10.0.0.12}, {id: arm3, host: 10.0.0.13}]
"""


class Site:
    """A coordinator and the agents of its robots; it can be started again at the same port."""

    def __init__(self, folder):
        self.folder = folder
        self.state = folder / "state"
        self.port = free_port()
        self.agents = {}

    @contextmanager
    def coordinator(self):
        with coordinator(self.state, "--tls", "--port", str(self.port), file=THREE) as running:
            self.running = running
            yield running

    def command(self, *words):
        return run_command([*words, "--state", str(self.state), "--port", str(self.port)])

    async def enrol(self, robot, *, again=False):
        (self.folder / robot).mkdir(exist_ok=True)
        agent = self.agents.get(robot)
        if agent is None:
            agent = Agent(self.folder / robot, self.folder / robot / "dorad.sock")
        more = ["--replace"] if again else []
        asked = await asyncio.to_thread(agent.command, "enrol", robot, *more)
        csr = json.loads(asked.stdout)["csr"]
        async with client(self.running, Authorization=f"Bearer {self.running.token}") as admin:
            signed = await admin.call("enrol.sign", robot=robot, csr=csr, again=again)
        answer = {"robot": robot, "coordinators": [f"127.0.0.1:{self.port}"], **signed}
        given = json.dumps(answer)
        done = await asyncio.to_thread(agent.command, "certify", *more, stdin=given)
        assert done.returncode == 0, done.stderr
        self.agents[robot] = agent
        return agent

    async def started(self, *robots):
        for robot in robots:
            self.agents[robot].start()
        for robot in robots:
            await self.agents[robot].connection("connected")

    def trust(self, robot):
        return IdentityStore(self.agents[robot].folder).trust()

    async def status(self):
        async with client(self.running, Authorization=f"Bearer {self.running.token}") as one:
            return await one.call("authority.status")

    async def until_status(self, holds):
        return await until(self.status, holds)

    def client(self, bundle):
        files = TlsFiles(bundle, bundle)
        return Client(Tcp("127.0.0.1", self.port, None, files))

    def add_operator(self, name, file):
        path = self.folder / file
        assert (
            self.command(*("operator", "add", name, "--role", "admin", "--output", str(path))) == 0
        )
        return path


@pytest.fixture
def site(tmp_path):
    found = Site(tmp_path)
    try:
        yield found
    except BaseException:
        for agent in found.agents.values():
            print(agent.log[-4000:])
        raise
    finally:
        for agent in found.agents.values():
            agent.clear()


def errors(capsys):
    return capsys.readouterr().err


@pytest.mark.long
async def test_a_fleet_is_handed_over_and_every_certificate_of_the_old_authority_is_refused(
    site, capsys
):
    with site.coordinator():
        await site.enrol("arm1")
        await site.enrol("arm2")
        old_ann = site.add_operator("ann", "old.pem")
        await site.started("arm1")
        first = (await site.status())["fingerprint"]
        memory = IdentityStore(site.agents["arm1"].folder).load()
        assert site.command("authority", "hand-over") == 0
        assert "keep a copy" in errors(capsys)
        # One that is there trusts both, but its links to the other need its old certificate.
        found = await site.until_status(lambda now: now["waiting"] == ["arm2"])
        assert found["old"] == ["arm1", "arm2"]
        assert found["operators"] == ["ann"]
        assert site.trust("arm1").trusted == [first, found["next"]]
        assert not site.trust("arm1").certified
        assert site.command("authority", "status") == 1
        assert "trust only the old authority: arm2" in capsys.readouterr().out
        site.command("status")
        assert re.search(r"arm2 .*it trusts only the old authority", capsys.readouterr().out)
        assert site.command("authority", "finish") == 1
        assert "robots arm1, arm2; operators ann" in errors(capsys)
        # Both operators' files are good until the end.
        new_ann = site.add_operator("ann", "new.pem")
        for bundle in (old_ann, new_ann):
            with site.client(bundle) as ann:
                ann.call(COORDINATOR_STATUS, Nothing())
        await site.started("arm2")
        await site.until_status(lambda now: not now["old"])
        assert site.command("authority", "status") == 0
        assert site.command("authority", "finish") == 0
        for robot in ("arm1", "arm2"):
            await until(lambda robot=robot: site.trust(robot).trusted == [found["next"]])
        assert (await site.status())["fingerprint"] == found["next"]
        with pytest.raises(ControlError, match="is not of this fleet"):
            site.client(old_ann)
        with site.client(new_ann) as ann:
            ann.call(COORDINATOR_STATUS, Nothing())
        # It is the same fleet to the robot: its terms, and its memory of the audit, stay.
        now = IdentityStore(site.agents["arm1"].folder).load()
        assert (now.fleet, now.authority) == (memory.fleet, memory.authority)
        site.running.end(signal.SIGKILL)
    with site.coordinator():
        for robot in ("arm1", "arm2"):
            await site.agents[robot].connection("connected")
        assert (await site.status())["fingerprint"] == found["next"]
        async with client(site.running, Authorization=f"Bearer {site.running.token}") as admin:
            records = (await admin.call("audit.read"))["records"]
        actions = [each["record"]["action"] for each in records]
        assert actions.index("authority.hand-over") < actions.index("authority.finish")


@pytest.mark.long
async def test_a_robot_that_was_away_longer_is_named_with_the_way_back(site, capsys):
    with site.coordinator():
        await site.enrol("arm1")
        away = await site.enrol("arm2")
        await site.started("arm1")
        assert site.command("authority", "hand-over", "--json") == 0
        await site.until_status(lambda now: now["waiting"] == ["arm2"])
        errors(capsys)
        assert site.command("authority", "finish", "--force") == 1
        assert "arm2 was left behind: `dorafleet enrol CLUSTER.yml arm2 --again`" in errors(capsys)
        # Of those that were there none is left behind, although not all trusted the new one.
        assert (await site.status())["old"] == ["arm2"]
        await until(lambda: site.trust("arm1").certified and len(site.trust("arm1").trusted) == 1)
        away.start()
        status = await away.connection("unreachable")
        assert "handed over while this robot was away" in status.connection.reason
        site.command("status")
        shown = capsys.readouterr().out
        assert re.search(
            r"arm2 .*was away during the hand-over.*enrol CLUSTER.yml arm2 --again", shown
        )
        site.command("doctor")
        assert "arm2 was away during the hand-over" in capsys.readouterr().out
        await site.enrol("arm2", again=True)
        await away.connection("connected")
        assert not (await site.status())["old"]


@pytest.mark.long
async def test_a_hand_over_that_not_all_can_follow_is_cancelled_and_another_one_follows(
    site, capsys
):
    with site.coordinator():
        await site.enrol("arm1")
        await site.enrol("arm2")
        old_ann = site.add_operator("ann", "old.pem")
        await site.started("arm1")
        assert site.command("authority", "cancel") == 1
        assert "there is no hand-over that could be cancelled" in errors(capsys)
        assert site.command("authority", "hand-over") == 0
        found = await site.until_status(lambda now: now["waiting"] == ["arm2"])
        new_ann = site.add_operator("ann", "new.pem")
        # A kill right after it changes nothing: it is in the store.
        errors(capsys)
        assert site.command("authority", "cancel") == 1
        assert "operator ann: the new file is refused" in errors(capsys)
        site.running.end(signal.SIGKILL)
    with site.coordinator():
        await until(lambda: site.trust("arm1").trusted == [found["fingerprint"]])
        await site.until_status(lambda now: not now["trusting"])
        with site.client(old_ann) as ann:
            ann.call(COORDINATOR_STATUS, Nothing())
        with pytest.raises(ControlError, match="it ended the connection"):
            site.client(new_ann)
        site.command("authority", "status")
        assert f"the hand-over to {found['next']} was cancelled" in capsys.readouterr().out
        # One that was away all the time, and the one that came back, follow the next one.
        await site.started("arm2")
        assert site.command("authority", "hand-over") == 0
        again = await site.until_status(lambda now: not now["old"])
        assert again["next"] != found["next"]
        assert site.command("authority", "cancel") == 1
        assert "were given to robots already: arm1" in errors(capsys)
        site.add_operator("ann", "newer.pem")
        assert site.command("authority", "finish") == 0
        for robot in ("arm1", "arm2"):
            await until(lambda robot=robot: site.trust(robot).trusted == [again["next"]])


async def test_without_the_key_of_the_root_nothing_is_handed_over(site, capsys):
    """As after somebody has taken over a coordinator whose root.key is kept elsewhere."""
    with site.coordinator():
        safe = site.folder / "safe.key"
        (site.state / "ca" / "root.key").rename(safe)
        assert site.command("authority", "hand-over") == 1
        assert "root.key is missing" in errors(capsys)
        other = site.folder / "other.key"
        shutil.copy(site.state / "ca" / "issuer.key", other)
        assert site.command("authority", "hand-over", "--root-key", str(other)) == 1
        assert "is not the key of" in errors(capsys)
        assert (await site.status())["next"] == ""
        assert site.command("authority", "finish") == 1
        assert "there is no hand-over" in errors(capsys)
        assert site.command("authority", "hand-over", "--root-key", str(safe)) == 0
        assert (await site.status())["next"]
        assert site.command("authority", "hand-over", "--root-key", str(safe)) == 1
        assert "is not finished" in errors(capsys)
