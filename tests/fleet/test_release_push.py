"""Releases go to robots through a real sshd: only what is lacking, and on where they were cut."""

import asyncio
import json
import random

import asyncssh
import pytest

from dorad.release import frames
from dorad.release.errors import ReleaseError
from dorad.release.machine import this_machine
from dorad.release.manifest import Target
from dorafleet.cli.main import run_command
from dorafleet.inventory.model import Machine
from dorafleet.release import transfer
from dorafleet.release.build import BuildOptions, build
from dorafleet.release.pieces import Pieces
from dorafleet.release.signingkey import choose
from dorafleet.release.store import Store
from dorafleet.release.transfer import TransferOptions, send
from dorafleet.release.upload import Session, Tracker
from dorafleet.ssh.errors import Code, SshError
from tests.fleet.sites import UNSET
from tests.fleet.sshd import AGENT, SSHD, Host, Network
from tests.release.samples import public

pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="there is no sshd: apt install openssh-server"),
    pytest.mark.long,
]

FLOW = """\
nodes:
  - id: camera
    path: camera.py
    args: --model model.bin
    outputs: [image]
  - id: arm
    path: arm.py
    inputs: {image: camera/image}
"""
FORMER_AGENT = """\
#!/bin/sh
exec {python} -c '
from dorad.agent.main import main
from dorad.release import frames
frames.PROTOCOL = frames.FORMER_PROTOCOL
main()
' --state-dir {folder}/state "$@"
"""
QUICK = TransferOptions(delays=(0.05, 0.1), connect_timeout=30.0)
STUBBORN = TransferOptions(delays=(0.05,) * 8, connect_timeout=30.0)


@pytest.fixture(scope="module")
def client() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519", comment="ada@example.org")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory, client) -> list[Host]:
    folder = tmp_path_factory.mktemp("hosts")
    key = asyncssh.generate_private_key("ssh-ed25519")
    found = [Host(folder / name, name) for name in ("arm1", "arm2")]
    for host in found:
        host.start(key, client)
    yield found
    for host in found:
        host.stop()


class Bench:
    """An operator with a key, a store, and a dataflow that he changes."""

    def __init__(self, folder, hosts, client):
        self.folder = folder
        self.hosts = hosts
        self.store = Store(folder / "store")
        self.key = folder / "home/.ssh/id_ed25519"
        self.flow = folder / "flow"
        self.flow.mkdir()
        (self.flow / "dataflow.yml").write_text(FLOW)
        (self.flow / "camera.py").write_text("print('camera')\n")
        (self.flow / "arm.py").write_text("print('arm')\n")
        (self.flow / "model.bin").write_bytes(random.Random(1).randbytes(300_000))
        self.known = folder / "home/.ssh/known_hosts"
        for host in hosts:
            host.trust(public(client))
            self.know(host.port, host)

    def know(self, port, host):
        line = public(asyncssh.read_private_key(host.folder / "host_key"))
        with self.known.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {line}\n")

    def build(self, **options):
        key = choose(str(self.key))
        return build(self.flow / "dataflow.yml", self.store, key, BuildOptions(**options)).bundle

    def send(self, bundle, *machines, options=QUICK, on_progress=lambda _: None):
        wanted = machines or [host.machine() for host in self.hosts]
        return asyncio.run(send(wanted, bundle, self.store, on_progress, options=options))

    def sent(self, bundle, *machines, **more):
        (outcome,) = self.send(bundle, *machines, **more)
        assert outcome.error is None, outcome.error
        return outcome.result

    def refused(self, bundle, *machines, **more):
        (outcome,) = self.send(bundle, *machines, **more)
        assert outcome.error is not None
        return outcome.error


@pytest.fixture
def bench(tmp_path, hosts, client, monkeypatch) -> Bench:
    (tmp_path / "home/.ssh").mkdir(parents=True, mode=0o700)
    client.write_private_key(tmp_path / "home/.ssh/id_ed25519")
    (tmp_path / "home/.ssh/id_ed25519").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (*UNSET, "SSH_AUTH_SOCK", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Bench(tmp_path, hosts, client)


def test_each_robot_gets_the_release_and_can_stage_it(bench):
    bundle = bench.build()
    outcomes = bench.send(bundle)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert [outcome.result.objects for outcome in outcomes] == [4, 4]
    for host in bench.hosts:
        tree = host.trees.stage(bundle.id)
        assert (tree.folder / "files/model.bin").read_bytes() == (
            bench.flow / "model.bin"
        ).read_bytes()
    assert bench.sent(bundle, bench.hosts[0].machine()).objects == 0


def test_a_second_release_sends_what_has_changed_as_patches(bench):
    host = bench.hosts[0]
    first = bench.build(name="patched")
    bench.sent(first, host.machine())
    host.trees.stage(first.id)
    model = bytearray((bench.flow / "model.bin").read_bytes())
    model[1000:1010] = b"0123456789"
    (bench.flow / "model.bin").write_bytes(model)
    (bench.flow / "arm.py").write_text("print('another arm')\n")
    second = bench.build(name="patched")
    seen = []
    found = bench.sent(second, host.machine(), on_progress=seen.append)
    assert (found.objects, found.patches) == (2, 1)
    assert found.sent < 10_000
    assert (seen[-1].state, seen[-1].done, seen[-1].left) == ("done", found.size, 0.0)
    tree = host.trees.stage(second.id)
    assert (tree.folder / "files/model.bin").read_bytes() == bytes(model)


def test_a_robot_with_the_release_before_gets_what_it_understands(bench):
    host = bench.hosts[0]
    host.script("bin/dorad-agent", FORMER_AGENT)
    try:
        bundle = bench.build(name="skew")
        bench.sent(bundle, host.machine())
        assert host.trees.stage(bundle.id).manifest.name == "skew"
    finally:
        host.script("bin/dorad-agent", AGENT)


def test_a_transfer_that_is_cut_again_and_again_continues_where_it_was(bench):
    host = bench.hosts[0]
    content = random.Random(2).randbytes(2_000_000)
    (bench.flow / "model.bin").write_bytes(content)
    bundle = bench.build(name="cut")
    seen = []
    with Network(host.port, cuts=3, after=600_000) as network:
        bench.know(network.port, host)
        machine = host.machine(network.port)
        bench.sent(bundle, machine, on_progress=seen.append, options=STUBBORN)
        assert network.connections == 4
    begun = [each.done for each in seen if each.state == "sending" and each.rate == 0.0]
    assert begun == sorted(begun)
    assert begun[-1] > 0
    tree = host.trees.stage(bundle.id)
    assert (tree.folder / "files/model.bin").read_bytes() == content


def test_a_network_that_passes_nothing_is_given_up_with_the_reason(bench):
    host = bench.hosts[0]
    (bench.flow / "model.bin").write_bytes(random.Random(3).randbytes(500_000))
    bundle = bench.build(name="never")
    with Network(host.port, cuts=100, after=20_000) as network:
        bench.know(network.port, host)
        error = bench.refused(bundle, host.machine(network.port))
    assert error.code is Code.LOST
    # Again as often as nothing arrives, and once more for the small files that do.
    assert network.connections <= 3 + len(QUICK.delays)


def test_a_host_that_hangs_holds_up_no_other(bench):
    bundle = bench.build(name="hangs")
    order = []
    with Network(bench.hosts[0].port, hangs=True) as network:
        bench.know(network.port, bench.hosts[0])
        machines = [bench.hosts[0].machine(network.port), bench.hosts[1].machine()]

        def take(outcome):
            order.append(outcome.machine.id)
            network.hang_up()

        work = send(machines, bundle, bench.store, on_outcome=take, options=QUICK)
        outcomes = asyncio.run(work)
    assert order == ["arm2", "arm1"]
    assert outcomes[1].error is None
    assert outcomes[0].error.code in (Code.UNREACHABLE, Code.LOST)


class Answers:
    """A process on a robot that has sent these frames, and takes everything."""

    def __init__(self, *sent):
        self._sent = b"".join(sent)
        self.stdin = self.stdout = self

    def write(self, content):
        del content

    async def readexactly(self, size):
        if not self._sent:
            await asyncio.Event().wait()
        found, self._sent = self._sent[:size], self._sent[size:]
        return found


async def test_a_robot_that_asks_for_one_file_again_and_again_gets_it_once(bench):
    bundle = await asyncio.to_thread(bench.build)
    model = next(each for each in bundle.manifest.files if each.path == "model.bin")
    offer = frames.Offer([frames.Lacking(model.sha256, False)] * 1000, this_machine(), [])
    process = Answers(frames.frame(frames.OFFER, offer))
    with Pieces(bench.store) as pieces:
        session = Session(process, bundle, bench.store, pieces, Tracker("arm1", lambda _: None))
        with pytest.raises(ReleaseError, match="asks for"):
            await session.run()


def test_a_robot_that_takes_a_little_each_time_does_not_hold_up_the_command(bench, monkeypatch):
    """Something arrives in each attempt, so that none would be the last one."""
    monkeypatch.setattr(transfer, "MAX_ATTEMPTS", 5)
    attempts = []

    async def attempt(self):
        attempts.append(1)
        self._tracker.set(sent=len(attempts))
        raise SshError(Code.LOST, "the connection was lost")

    monkeypatch.setattr(transfer._Transfer, "_attempt", attempt)
    assert "lost 5 times" in str(bench.refused(bench.build(), bench.hosts[0].machine()))
    assert len(attempts) == 5


def test_a_robot_that_does_not_trust_the_key_takes_nothing(bench):
    host = bench.hosts[1]
    host.trust(public(asyncssh.generate_private_key("ssh-ed25519")))
    bundle = bench.build(name="untrusted")
    error = bench.refused(bundle, host.machine())
    assert error.code is Code.REFUSED
    assert "allowed_signers" in str(error)
    assert bundle.id not in host.trees.manifests()


def test_a_release_for_another_machine_is_refused_before_its_files_are_sent(bench):
    bundle = bench.build(name="foreign", targets=[Target("riscv64")])
    error = bench.refused(bundle, bench.hosts[0].machine())
    assert "it is for riscv64" in str(error)
    assert bundle.id not in bench.hosts[0].trees.manifests()


def test_an_unknown_host_key_is_refused(bench):
    bundle = bench.build(name="strict")
    bench.known.write_text("")
    assert bench.refused(bundle, bench.hosts[0].machine()).code is Code.HOST_KEY_UNKNOWN


def test_a_robot_is_reached_through_another_one(bench):
    jump, host = bench.hosts
    bundle = bench.build(name="jump")
    config = bench.known.with_name("config")
    config.write_text(
        f"Host inner\n  HostName 127.0.0.1\n  Port {host.port}\n  ProxyJump 127.0.0.1:{jump.port}\n"
    )
    before = (jump.folder / "log").read_text().count("Accepted publickey")
    bench.sent(bundle, Machine("inner", "inner"))
    assert bundle.id in host.trees.manifests()
    assert (jump.folder / "log").read_text().count("Accepted publickey") == before + 1
    # The jump host's key is checked, too.
    bench.known.write_text("")
    bench.know(host.port, host)
    assert bench.refused(bundle, Machine("inner", "inner")).code is not Code.REFUSED


def test_two_transfers_to_one_robot_at_once_both_arrive(bench):
    host = bench.hosts[0]
    one = bench.build(name="one")
    (bench.flow / "arm.py").write_text("print('two')\n")
    two = bench.build(name="two")

    async def both():
        return await asyncio.gather(
            *(send([host.machine()], each, bench.store, options=QUICK) for each in (one, two))
        )

    for (outcome,) in asyncio.run(both()):
        assert outcome.error is None, outcome.error
    assert {one.id, two.id} <= set(host.trees.manifests())


def test_the_command_prints_progress_and_results_as_json(bench, capsys):
    bundle = bench.build(name="command")
    file = bench.folder / "cluster.yml"
    lines = [f"  - {{id: {host.id}, host: 127.0.0.1, port: {host.port}}}" for host in bench.hosts]
    file.write_text("\n".join(["coordinator: {addr: 127.0.0.1}", "machines:", *lines, ""]))
    words = ("release", "push", "command", str(file), "--json", "--store", str(bench.store.folder))
    assert run_command(words) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    results = [each for each in shown if each["event"] == "result"]
    assert sorted(each["machine"] for each in results) == ["arm1", "arm2"]
    assert all(each["complete"] and each["error"] is None for each in results)
    total = [each for each in shown if each["event"] == "progress" and each["machine"] == "all"]
    assert total[0]["left"] is None  # no robot has said yet what it lacks
    assert bundle.id in bench.hosts[1].trees.manifests()


def test_trust_and_revoke_change_what_a_robot_accepts(bench, capsys):
    host = bench.hosts[1]
    (host.state / "signers/allowed_signers").unlink()
    file = bench.folder / "cluster.yml"
    file.write_text(
        f"coordinator: {{addr: 127.0.0.1}}\nmachines:\n"
        f"  - {{id: arm2, host: 127.0.0.1, port: {host.port}}}\n"
    )
    bundle = bench.build(name="trusted")
    assert bench.refused(bundle, host.machine()).code is Code.REFUSED
    words = ("release", "trust", str(file), "--key", str(bench.key))
    assert run_command(words) == 0
    bench.sent(bundle, host.machine())
    assert host.trees.stage(bundle.id).manifest == bundle.manifest
    assert run_command((*words, "--revoke")) == 0
    again = bench.build(name="trusted2")
    assert "is revoked" in str(bench.refused(again, host.machine()))
    assert run_command(words) == 1
    assert "is revoked" in capsys.readouterr().err
    (host.state / "signers/revoked_signers").unlink()


def test_another_last_day_of_a_trusted_key_replaces_the_first_one(bench, capsys):
    host = bench.hosts[1]
    (host.state / "signers/allowed_signers").unlink()
    file = bench.folder / "cluster.yml"
    file.write_text(
        f"coordinator: {{addr: 127.0.0.1}}\nmachines:\n"
        f"  - {{id: arm2, host: 127.0.0.1, port: {host.port}}}\n"
    )
    words = ("release", "trust", str(file), "--key", str(bench.key), "--until")
    for day, done in (("2998-06-30", "added"), ("2997-12-31", "replaced"), ("2997-12-31", "was")):
        assert run_command((*words, day)) == 0
        assert done in capsys.readouterr().out
    (line,) = (host.state / "signers/allowed_signers").read_text().splitlines()
    assert 'valid-before="29980101000000Z"' in line
    for day, why in (("2020-01-01", "is over"), ("2027-02-30", "is not a date"), ("x", "not a d")):
        assert run_command((*words, day)) == 2
        assert why in capsys.readouterr().err
