"""`dorafleet enrol` with a real coordinator, real SSH, and the agent itself on each robot."""

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from dorad.control.tls import Identity
from dorafleet.ca.authority import open_authority
from dorafleet.cli.main import run_command
from dorafleet.robot.enrol import RobotIdentity, decide
from dorafleet.ssh.errors import SshError
from tests.fleet.ca.keys import csr_of
from tests.fleet.coordinator.running import coordinator
from tests.fleet.fakerobot import DEADLINE_S, FakeRobot
from tests.harness.commands import run_command as run_program
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.long

AGENT = (sys.executable, "-m", "dorad.agent.main")


class Machine:
    """A robot with a real agent in its own folder; `systemctl enable` starts it."""

    def __init__(self, stack: ExitStack, *, socket: Path | None = None, **more) -> None:
        """`socket` is that of the robot's dorad; without one it has none."""
        # Short, because sockets go into it.
        self.folder = Path(tempfile.mkdtemp(prefix="dt-", dir="/tmp"))
        stack.callback(shutil.rmtree, self.folder)
        stack.callback(self.end)
        self.socket = socket or self.folder / "absent.sock"
        self.agent: subprocess.Popen[bytes] | None = None
        programs = {"dorad-agent": self.run, "cat": self.cat, "systemctl": self.systemctl}
        self.robot = FakeRobot(programs=programs, **more)

    def command(self, *words: str) -> list[str]:
        return [*AGENT, "--state-dir", str(self.folder), *words]

    def run(self, words, given):
        arguments = ["--state-dir", self.folder, *words]
        done = run_program("dorad-agent", arguments, given=given.decode(), timeout=DEADLINE_S)
        return done.returncode, done.stdout.encode(), done.stderr.encode()

    def cat(self, words, given):
        assert words == ["/var/lib/dorad-agent/identity/agent.json"]
        path = self.folder / "identity/agent.json"
        return (0, path.read_bytes(), b"") if path.exists() else (1, b"", b"No such file")

    def systemctl(self, words, given):
        if words == ["disable", "--now", "dorad-agent.service"]:
            self.end()
            return 0, b"", b""
        if words != ["enable", "--now", "dorad-agent.service"]:
            return 1, b"", b"unknown"
        if self.agent is None:
            self.agent = subprocess.Popen(
                self.command("run", "--socket", str(self.socket)),
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )
        return 0, b"", b""

    def end(self):
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait(DEADLINE_S)


@pytest.fixture
def stack():
    with ExitStack() as found:
        yield found


@pytest.fixture
def served(fleet, stack, tmp_path):
    """Return a function that starts the coordinator of the fleet, and one that runs commands."""

    def serve(*options):
        path = fleet.file()
        process = stack.enter_context(
            coordinator(tmp_path / "state", *(options or ("--tls",)), file=path.read_text())
        )

        def run(command, *words):
            more = ["--state", str(process.folder), "--port", str(process.port)]
            return run_command([command, *words, *more])

        return path, run

    return serve


def test_robots_are_enrolled_and_connect_and_a_bad_one_holds_up_none(fleet, served, stack, capsys):
    one, two = Machine(stack), Machine(stack, uid=1000)
    fleet.add("arm1", one.robot)
    fleet.add("arm2", two.robot)
    fleet.add_unreachable("arm3")
    fleet.add("arm4", FakeRobot(uid=1000, sudo=False))
    fleet.add("arm5", FakeRobot())
    path, run = served()
    assert run("enrol", str(path), "--json") == 1
    shown = capsys.readouterr()
    found = {each["id"]: each for each in json.loads(shown.out[shown.out.index("[") :])}
    assert [each["connected"] for each in found.values()] == [True, True, False, False, False]
    assert found["arm3"]["error"]["code"] == "unreachable"
    assert found["arm4"]["error"]["code"] == "denied"
    assert found["arm5"]["error"]["message"] == "dorad-agent is not installed there"
    assert "3 of 5 machines failed: arm3, arm4, arm5" in shown.err
    assert two.robot.ran("sudo", "-n", "env", "LC_ALL=C.UTF-8", "dorad-agent", "enrol", "arm2")
    assert run("access", "--json") == 0
    grants = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["name"] for each in grants] == ["arm1", "arm2"]


def test_a_robot_that_is_enrolled_is_left_alone_unless_asked_for(fleet, served, stack, capsys):
    one = Machine(stack)
    fleet.add("arm1", one.robot)
    path, run = served()
    assert run("enrol", str(path), "arm1") == 0
    assert "enrolled, connected" in capsys.readouterr().out
    key = (one.folder / "identity/key.pem").read_text()
    assert run("enrol", str(path), "arm1") == 0
    assert "is enrolled already, connected: nothing to do" in capsys.readouterr().out
    assert (one.folder / "identity/key.pem").read_text() == key
    assert run("enrol", str(path), "arm1", "--again") == 0
    assert (one.folder / "identity/key.pem").read_text() != key
    assert run("revoke", "arm1") == 0
    assert "robot arm1 is revoked; 1 connection was closed" in capsys.readouterr().out
    assert run("enrol", str(path), "arm1") == 0


def test_a_revoked_robot_gives_up_its_place_for_the_machine_that_is_enrolled_next(
    fleet, served, stack, capsys
):
    one = Machine(stack)
    fleet.add("arm1", one.robot)
    path, run = served()
    assert run("enrol", str(path)) == 0

    def address():
        capsys.readouterr()
        run("status", "--json")
        return json.loads(capsys.readouterr().out)[0]["address"]

    assert address() == "127.0.0.1"
    assert run("revoke", "arm1") == 0
    assert address() == ""
    assert run("enrol", str(path)) == 0
    assert address() == "127.0.0.1"


def test_a_certificate_that_expired_30_days_ago_renews_itself(
    fleet, served, stack, monkeypatch, tmp_path
):
    one = Machine(stack)
    fleet.add("arm1", one.robot)
    path, run = served()
    assert run("enrol", str(path)) == 0
    one.end()
    one.agent = None
    key = serialization.load_pem_private_key((one.folder / "identity/key.pem").read_bytes(), None)
    past = time.time() - 395 * 86400
    with monkeypatch.context() as patch:
        patch.setattr("dorafleet.ca.authority.time.time", lambda: past)
        authority = open_authority(tmp_path / "state/ca")
        issued = authority.issue(csr_of(key), Identity("robot", "arm1"))
    chain = one.folder / "identity/chain.pem"
    chain.write_text(issued.chain)
    assert run("enrol", str(path)) == 0  # starts the agent, and waits until it is connected
    assert chain.read_text() != issued.chain
    names = x509.load_pem_x509_certificate(chain.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    _, dates = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    assert int(dates.rpartition("/")[2]) > time.time()


def test_a_second_machine_with_an_id_is_refused(fleet, served, stack, capsys):
    one, two = Machine(stack), Machine(stack)
    fleet.add("arm1", one.robot)
    path, run = served()
    assert run("enrol", str(path)) == 0
    fleet.add("arm1", two.robot)  # the file names another host now
    assert run("enrol", str(fleet.file())) == 1
    assert "robot `arm1` is enrolled already, with another key" in capsys.readouterr().err
    assert not (two.folder / "identity").exists()


def test_a_machine_that_is_not_in_the_file_is_a_usage_error(fleet, served, capsys):
    fleet.add_unreachable("arm1")
    path, run = served()
    assert run("enrol", str(path), "arm2") == 2
    assert "no machine `arm2`" in capsys.readouterr().err
    assert run("enrol", str(path), "--coordinator", "https://10.0.0.1") == 2
    assert "is not the address of a coordinator" in capsys.readouterr().err


def test_a_robot_that_prints_nonsense_fails_alone(fleet, served, stack, capsys):
    robot = FakeRobot(programs={"dorad-agent": lambda words, given: (0, b"\xff{{" * 100, b"")})
    fleet.add("arm1", robot)
    fleet.add("arm2", Machine(stack).robot)
    path, run = served()
    assert run("enrol", str(path)) == 1
    shown = capsys.readouterr()
    assert "`dorad-agent enrol` prints" in shown.err
    assert "arm2  ✓ enrolled, connected" in shown.out


def test_without_tls_the_command_says_what_robots_need(fleet, served, stack, capsys):
    one = Machine(stack)
    fleet.add("arm1", one.robot)
    path, run = served("--listen", "127.0.0.1")
    for more in ([], ["arm1", "--token"]):
        assert run("enrol", str(path), *more) == 1
        assert "robots need TLS" in capsys.readouterr().err
    assert not (one.folder / "identity").exists()


def test_a_robot_without_ssh_is_enrolled_by_the_printed_command_once(fleet, served, stack, capsys):
    fleet.add_unreachable("arm1")
    path, run = served()
    assert run("enrol", str(path), "--token") == 2
    assert run("enrol", str(path), "arm1", "--token") == 0
    shown = capsys.readouterr()
    assert "once and before" in shown.err
    command, token = shown.out.splitlines()
    join, start = command.split(" && ")
    assert start == "sudo systemctl enable --now dorad-agent.service"
    assert token not in command
    words = shlex.split(join)
    assert words[:2] == ["sudo", "dorad-agent"]
    one, two = Machine(stack), Machine(stack)
    code, _, errors = one.run(words[2:], token.encode())
    assert code == 0, errors
    one.systemctl(["enable", "--now", "dorad-agent.service"], b"")
    code, _, errors = two.run(words[2:], token.encode())
    assert code == 1
    assert b"the token for `arm1` was used already" in errors
    wait_until(lambda: one.run(["status"], b""), lambda done: done[0] == 0)
    assert run("enrol", str(path), "arm1", "--token") == 1
    assert "is enrolled already" in capsys.readouterr().err
    assert run("revoke", "arm1") == 0
    capsys.readouterr()
    assert run("enrol", str(path), "arm1", "--token") == 0
    command, token = capsys.readouterr().out.splitlines()
    words = shlex.split(command.split(" && ")[0])
    code, _, errors = one.run(words[2:], token.encode())
    assert code == 0, errors


def identity(robot):
    return RobotIdentity(robot, ["10.0.0.1"])


@pytest.mark.parametrize(
    ("found", "known", "again", "what"),
    [
        (None, "never", False, "enrol"),
        (None, "enrolled", False, "enrol"),
        (None, "revoked", True, "enrol"),
        (identity("arm1"), "enrolled", False, "nothing"),
        (identity("arm1"), "enrolled", True, "replace"),
        (identity("arm1"), "revoked", False, "replace"),
        (identity("arm1"), "never", True, "replace"),
        (identity("arm2"), "never", True, "replace"),
    ],
)
def test_what_is_done_depends_on_the_robot_and_the_coordinator(found, known, again, what):
    for exact in (False, True):
        assert decide("arm1", found, known, ["10.0.0.1:6013"], again=again, exact=exact) == what


@pytest.mark.parametrize(
    ("has", "wanted", "implied", "exact"),
    [
        (["10.0.0.1"], ["10.0.0.1:6013"], "nothing", "nothing"),
        (["10.0.0.1"], ["10.0.0.2"], "move", "move"),
        (["10.0.0.1"], ["10.0.0.1:6014"], "move", "move"),
        # A cluster file names one address, of several that a robot may have.
        (["10.0.0.1", "10.0.0.2"], ["10.0.0.2"], "nothing", "move"),
        (["10.0.0.1"], ["10.0.0.1", "10.0.0.2"], "move", "move"),
        (["[fd00::1]:6013"], ["[fd00::1]"], "nothing", "nothing"),
        (["what is that"], ["10.0.0.1"], "move", "move"),
    ],
)
def test_a_robot_that_lacks_the_address_moves(has, wanted, implied, exact):
    found = RobotIdentity("arm1", has)
    assert decide("arm1", found, "enrolled", wanted, again=False, exact=False) == implied
    assert decide("arm1", found, "enrolled", wanted, again=False, exact=True) == exact
    assert decide("arm1", found, "revoked", wanted, again=False, exact=True) == "replace"


def test_after_the_server_has_moved_robots_get_its_address_and_keep_their_key(
    fleet, stack, tmp_path, capsys, monkeypatch
):
    one = Machine(stack)
    fleet.add("arm1", one.robot)
    path = fleet.file()

    def enrol(process, *more):
        where = ["--state", str(process.folder), "--port", str(process.port)]
        code = run_command(["enrol", str(path), *where, *more])
        return code, capsys.readouterr()

    with coordinator(tmp_path / "state", "--tls", file=path.read_text()) as process:
        old = f"127.0.0.1:{process.port}"
        assert enrol(process)[0] == 0
    key = (one.folder / "identity/key.pem").read_text()
    with coordinator(tmp_path / "state", "--tls", file=path.read_text()) as process:
        new = f"127.0.0.1:{process.port}"
        assert new != old
        with monkeypatch.context() as patch:
            patch.setattr("dorafleet.robot.enrol.CONNECT_TIMEOUT_S", 1.0)
            code, shown = enrol(process, "--coordinator", old)
        assert code == 1
        assert f"its agent has not connected to {old} within 1 s" in shown.err
        assert "`--coordinator` names another one" in shown.err
        code, shown = enrol(process, "--coordinator", new)
        assert (code, f"moved to {new}, connected" in shown.out) == (0, True), shown
        assert (one.folder / "identity/key.pem").read_text() == key
        assert json.loads((one.folder / "identity/agent.json").read_text())["coordinators"] == [new]
        both = ["--coordinator", new, "--coordinator", old]
        assert f"moved to {new}, {old}, connected" in enrol(process, *both)[1].out
        # What the file says is one of them.
        assert "nothing to do" in enrol(process)[1].out


def test_an_agent_that_cannot_move_is_said_to_have_the_old_address(fleet, served, stack, capsys):
    one = Machine(stack)
    fleet.add("arm1", one.robot)
    path, run = served()
    assert run("enrol", str(path)) == 0
    robot = one.run
    one.robot.programs["dorad-agent"] = lambda words, given: (
        (2, b"", b"Error: No such command 'move'.\n") if words[0] == "move" else robot(words, given)
    )
    assert run("enrol", str(path), "--coordinator", "127.0.0.9") == 1
    err = capsys.readouterr().err
    assert "its agent keeps the old address: Error: No such command 'move'." in err
    assert "upgrade dorad there; or `--again`" in err


@pytest.mark.parametrize(
    ("found", "known", "words"),
    [
        (identity("arm2"), "enrolled", "it is enrolled as `arm2`"),
        (identity("arm2"), "revoked", "it is enrolled as `arm2`"),
        (identity("arm1"), "never", "enrolled by another coordinator: 10.0.0.1"),
    ],
)
def test_an_identity_that_does_not_fit_is_not_replaced_by_itself(found, known, words):
    with pytest.raises(SshError, match=words):
        decide("arm1", found, known, ["10.0.0.1"], again=False, exact=False)
