"""Following a rollout sends its release over SSH to robots that wait for files, and to no other."""

import asyncio
import json

import asyncssh
import pytest

from dorad.release.errors import ReleaseError
from dorafleet.cli.rolloutdisplay import Display
from dorafleet.cli.rolloutsend import Sender
from dorafleet.inventory.model import Machine
from dorafleet.release.build import BuildOptions, build
from dorafleet.release.signingkey import choose
from dorafleet.release.store import Store
from dorafleet.release.upload import Sent
from dorafleet.ssh.errors import Code, SshError
from dorafleet.ssh.fanout import MachineOutcome
from tests.fleet.control.serving import DEADLINE_S
from tests.fleet.sites import UNSET
from tests.fleet.sshd import SSHD, Host
from tests.release.samples import public

from .test_commands import FAST, command_site

needs_sshd = pytest.mark.skipif(SSHD is None, reason="there is no sshd: apt install openssh-server")

FLOW = "nodes:\n  - id: camera\n    path: camera.py\n    outputs: [image]\n"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """The robot r1, whose sshd knows the operator's key."""
    operator = asyncssh.generate_private_key("ssh-ed25519", comment="ada@example.org")
    found = Host(tmp_path / "r1", "r1")
    found.start(asyncssh.generate_private_key("ssh-ed25519"), operator)
    found.trust(public(operator))
    found.known_in(tmp_path / "home", operator)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (*UNSET, "SSH_AUTH_SOCK", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    yield found
    found.stop()


async def arrive(host, agent, release):
    """Let the agent see the files once all of them are on the robot."""
    async with asyncio.timeout(DEADLINE_S * 3):
        while True:
            try:
                if not host.trees.lacking(host.trees.manifest(release)):
                    break
            except ReleaseError:
                pass
            await asyncio.sleep(0.1)
    agent.releases.get_files(agent.releases.orders[-1].dataflow)


@pytest.fixture
def flow(tmp_path):
    """The file of a dataflow."""
    folder = tmp_path / "flow"
    folder.mkdir()
    (folder / "camera.py").write_text("print('camera')\n")
    (folder / "dataflow.yml").write_text(FLOW)
    return folder / "dataflow.yml"


@pytest.fixture
def cluster(tmp_path, host):
    """The file with the robot."""
    file = tmp_path / "cluster.yml"
    file.write_text(
        "coordinator: {addr: 127.0.0.1}\n"
        f"machines: [{{id: r1, host: 127.0.0.1, port: {host.port}}}]\n"
    )
    return file


@pytest.mark.long
@needs_sshd
async def test_a_robot_that_waits_for_files_gets_them_from_the_command(
    tmp_path, capsys, host, flow, cluster
):
    async with command_site(tmp_path, capsys, robots=1) as one:
        key = await asyncio.to_thread(choose, str(tmp_path / "home/.ssh/id_ed25519"))
        built = await asyncio.to_thread(build, flow, Store(one.store), key, BuildOptions())
        agent = one.agents["r1"]
        agent.releases.has_files = False
        arriving = asyncio.create_task(arrive(host, agent, built.bundle.id))
        code, out, err = await one.release(
            "rollout", "start", built.bundle.id, *FAST, "--cluster", str(cluster), "--json"
        )
        await arriving
        assert code == 0, (out, err)
        events = [json.loads(line) for line in out.splitlines()]
        (sent,) = [event for event in events if event["event"] == "transfer"]
        assert (sent["machine"], sent["complete"]) == ("r1", True)
        assert sent["bytes"] > 0
        assert events[-1]["phase"] in ("succeeded", "settled")
        assert agent.releases.switches == [built.bundle.id]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_robot_that_has_all_files_already_is_named_once(capsys, as_json):
    machine, again = Machine("r1", "127.0.0.1"), Sent(0, 0, 0, 0, 0.1)
    lost = MachineOutcome(machine, error=SshError(Code.LOST, "the connection was lost"))
    display = Display(Sender(None, "", {}, ""), as_json=as_json)
    sent = MachineOutcome(machine, Sent(2, 9, 9, 0, 0.1))
    for outcome in (lost, lost, sent, *[MachineOutcome(machine, again)] * 3):
        display.sent(outcome)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    if as_json:
        assert [json.loads(line)["complete"] for line in lines] == [False, True, True]
    else:
        assert lines[0] == "r1: not sent: the connection was lost"
        assert lines[2] == "r1: has it already"
