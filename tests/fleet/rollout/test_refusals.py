"""What cannot be rolled out is refused by the commands, with the reason; nothing is changed."""

import asyncio
import json

import asyncssh
import pytest

from dorad.release.manifest import Target
from dorafleet.release.build import BuildOptions, build
from dorafleet.release.signingkey import choose
from dorafleet.release.store import Store
from tests.fleet.sites import UNSET
from tests.fleet.sshd import SSHD, Host
from tests.harness.waiting import until
from tests.release.samples import public

from .site import ID1, ID2
from .test_commands import FAST, command_site

needs_sshd = pytest.mark.skipif(SSHD is None, reason="there is no sshd: apt install openssh-server")

FLOW = "nodes:\n  - id: camera\n    path: camera.py\n    outputs: [image]\n"
ROBOT = """\
#!/bin/sh
exec {{python}} -c '
import os, runpy, time
{patch}
runpy.run_module("dorad.agent.main", run_name="__main__")
' --state-dir {{folder}}/state "$@"
"""
"""The agent of a robot that differs."""
IN_2100 = "time.time = lambda: 4102444800.0"
FULL = """\
real = os.statvfs
os.statvfs = lambda path: os.statvfs_result((*real(path)[:3], 0, 0, *real(path)[5:10]))
"""


@pytest.fixture(scope="module")
def operator():
    return asyncssh.generate_private_key("ssh-ed25519", comment="ada@example.org")


@pytest.fixture(scope="module")
def robot(tmp_path_factory, operator):
    """The robot r1, whose sshd knows the operator's key."""
    found = Host(tmp_path_factory.mktemp("refusing") / "r1", "r1")
    found.start(asyncssh.generate_private_key("ssh-ed25519"), operator)
    yield found
    found.stop()


@pytest.fixture
def host(robot, operator, tmp_path, monkeypatch):
    """The robot as it was at first; the commands reach it."""
    robot.script("bin/dorad-agent", ROBOT.format(patch=""))
    robot.trust(public(operator))
    (robot.state / "signers/revoked_signers").unlink(missing_ok=True)
    robot.known_in(tmp_path / "home", operator)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in (*UNSET, "SSH_AUTH_SOCK", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cluster.yml").write_text(
        "coordinator: {addr: 127.0.0.1}\n"
        f"machines: [{{id: r1, host: 127.0.0.1, port: {robot.port}}}]\n"
    )
    return robot


def release(folder, store, *, text="print('camera')\n", targets=()):
    """Build and sign a release."""
    flow = folder / "flow"
    flow.mkdir(exist_ok=True)
    (flow / "camera.py").write_text(text)
    (flow / "dataflow.yml").write_text(FLOW)
    key = choose(str(folder / "home/.ssh/id_ed25519"))
    return build(
        flow / "dataflow.yml", Store(store), key, BuildOptions(name="flow", targets=list(targets))
    ).bundle


def distrust(host, operator):
    host.trust(public(asyncssh.generate_private_key("ssh-ed25519")))


def revoke(host, operator):
    (host.state / "signers/revoked_signers").write_text(f"{public(operator)}\n")


def let_expire(host, operator):
    allowed = host.state / "signers/allowed_signers"
    allowed.write_text(f'ada@example.org valid-before="20200101" {public(operator)}\n')


def move_to_2100(host, operator):
    allowed = host.state / "signers/allowed_signers"
    allowed.write_text(f'ada@example.org valid-before="20800101" {public(operator)}\n')
    host.script("bin/dorad-agent", ROBOT.format(patch=IN_2100))


def fill_disk(host, operator):
    host.script("bin/dorad-agent", ROBOT.format(patch=FULL))


@needs_sshd
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (distrust, "is not in"),
        (revoke, "is revoked"),
        (let_expire, "has expired at 2020-01-01"),
        (move_to_2100, "it is 2100-01-01 00:00 UTC here"),
        (fill_disk, "is too full"),
    ],
)
async def test_what_the_robot_refuses_ends_the_rollout_as_refused(
    tmp_path, capsys, host, operator, damage, reason
):
    damage(host, operator)
    async with command_site(tmp_path, capsys, robots=1) as one:
        bundle = await asyncio.to_thread(release, tmp_path, one.store)
        agent = one.agents["r1"].releases
        agent.runs("flow", ID1)
        agent.has_files = False
        cluster = ("--cluster", str(tmp_path / "cluster.yml"))
        code, out, err = await one.release("rollout", "start", bundle.id, *FAST, *cluster)
        assert code == 1, (out, err)
        assert "✗ r1: refused: " in out
        assert "1 robot  refused: the canary refuses it: `r1`" in out
        assert reason in out
        assert "no robot was changed" in out
        code, out, err = await one.run("rollout", "status", "--json")
        assert code == 1
        found = json.loads(out)
        assert found["summary"]["phase"] == "refused"
        assert reason in found["summary"]["reason"]
        assert [row["state"] for row in found["robots"]] == ["refused"]
        assert reason in found["robots"][0]["reason"]
        await one.until(1, "refused", over=True)
        assert agent.switches == []
        assert agent.orders[-1].release == ID1
        assert bundle.id not in host.trees.manifests()
        code, out, _ = await one.run("rollout", "history", "1")
        assert "verdict refused" in out
        code, out, _ = await one.run("drift")
        assert (code, out) == (0, "1 robot is in the desired state\n")


@needs_sshd
@pytest.mark.parametrize(
    ("r3", "end"),
    [
        ("confirmed", "succeeded_partially: failed: `r1` (the key"),
        ("waiting", "settled: for later: `r3`"),
    ],
)
async def test_one_robot_of_many_that_refuses_the_files_is_a_failure_of_that_robot(
    tmp_path, capsys, host, operator, r3, end
):
    distrust(host, operator)
    async with command_site(tmp_path, capsys, robots=3) as one:
        if r3 == "waiting":
            await one.agents["r3"].stop()
            await until(lambda: one.control.robots.get("r3").away_since is not None)
            one.control.robots.get("r3").away_since -= 60
        bundle = await asyncio.to_thread(release, tmp_path, one.store)
        one.agents["r1"].releases.has_files = False
        cluster = ("--cluster", str(tmp_path / "cluster.yml"))
        code, out, err = await one.release(
            "rollout", "start", bundle.id, *FAST, *cluster, "--canary", "0"
        )
        assert code == 1, (out, err)
        assert end in out
        assert (await one.run("rollout", "status"))[0] == 1
        detail = await one.status()
        assert {row.robot: row.state for row in detail.robots} == {
            "r1": "refused",
            "r2": "confirmed",
            "r3": r3,
        }


async def test_a_changed_byte_in_the_operators_store_is_refused(tmp_path, capsys):
    async with command_site(tmp_path, capsys) as one:
        await one.runs(ID1)
        path = one.store / "manifests" / ID2
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"camera"', b'"cameru"', 1))
        for word in ("pick@2", ID2, "pick"):
            code, out, err = await one.release("rollout", "start", word, *FAST)
            assert (code, out) == (1, "")
            assert "was changed" in err
        # With its own id it does not fit its signature.
        path.write_bytes(content)
        (path.with_name(f"{ID2}.sig")).write_bytes((path.with_name(f"{ID1}.sig")).read_bytes())
        code, out, err = await one.release("rollout", "start", "pick@2", *FAST)
        assert (code, out) == (1, "")
        assert "the signature does not fit the manifest" in err
        assert not one.control.rollouts.heads
        assert one.switches() == {"r1": [], "r2": [], "r3": []}


@needs_sshd
async def test_a_damaged_file_in_the_operators_store_is_refused(tmp_path, capsys, host):
    async with command_site(tmp_path, capsys, robots=1) as one:
        bundle = await asyncio.to_thread(release, tmp_path, one.store)
        for path in (one.store / "objects").rglob("*"):
            if path.is_file() and b"camera" in path.read_bytes():
                path.chmod(0o644)
                path.write_bytes(path.read_bytes().replace(b"camera", b"cameru", 1))
        cluster = ("--cluster", str(tmp_path / "cluster.yml"))
        code, out, err = await one.release("rollout", "start", bundle.id, *cluster)
        assert (code, out) == (1, "")
        assert "are missing or damaged" in err
        assert "build it again" in err
        assert not one.control.rollouts.heads


@needs_sshd
async def test_a_release_for_other_machines_is_refused_at_the_plan(tmp_path, capsys, host):
    targets = (
        (Target("riscv64"), "it is for riscv64"),
        (Target("x86_64", "3.9", "2.28"), "it is for x86_64, python 3.9"),
        (Target("x86_64", "3.13", "2.99"), "this machine is x86_64, python 3.13"),
    )
    async with command_site(tmp_path, capsys, robots=2) as one:
        for number, (target, reason) in enumerate(targets):
            bundle = await asyncio.to_thread(
                release, tmp_path, one.store, text=f"print({number})\n", targets=(target,)
            )
            for command in (("plan",), ("rollout", "start")):
                code, out, err = await one.release(*command, bundle.id)
                assert (code, out) == (1, "")
                assert "robot `r1` and 1 more: " in err
                assert reason in err
        assert not one.control.rollouts.heads


async def test_a_lower_sequence_is_refused_by_the_commands(tmp_path, capsys):
    async with command_site(tmp_path, capsys) as one:
        await one.runs(ID2, sequence=2)
        code, out, err = await one.release("rollout", "start", "pick@1", *FAST)
        assert (code, out) == (1, "")
        assert "its sequence 1 is below 2, which `r1`, `r2`, `r3` confirmed" in err
        assert "--allow-lower" in err
        assert not one.control.rollouts.heads


async def test_a_second_operator_learns_who_is_rolling_out(tmp_path, capsys):
    async with command_site(tmp_path, capsys) as one:
        one.agents["r1"].releases.fate = "switching"
        code, _, err = await one.release("rollout", "start", "pick@1", *FAST, "--detach")
        assert code == 0, err
        await one.until_state(1, r1="switching")
        code, out, err = await one.release("rollout", "start", "pick@2", *FAST)
        assert (code, out) == (1, "")
        assert "rollout 1 (pick@1 by ann) is canary: 1 of its 3 robots switch now" in err
        assert "--supersede" in err
        assert list(one.control.rollouts.heads) == [1]
