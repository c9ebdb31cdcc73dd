"""Enrolment with a token, at the real coordinator."""

import base64
import grp
import os
import shlex
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from dorad.agent.identitystore import IdentityStore
from dorad.agent.join import authority_of, join
from dorad.control.client import Client
from dorad.control.errors import ControlError
from dorafleet.ca.authority import open_authority
from tests.agent.fleet import DEADLINE_S, Agent
from tests.harness.commands import Service, fails, run_command, succeeds
from tests.harness.ports import free_port


class Operator:
    """The operator's machine with its coordinator."""

    def __init__(self, folder):
        self.port = free_port()
        self.file = folder / "cluster.yml"
        self.file.write_text(
            f"coordinator: {{addr: 127.0.0.1, port: {self.port}}}\n"
            "machines:\n  - {id: arm1, host: 127.0.0.1}\n  - {id: arm2, host: 127.0.0.1}\n"
        )
        self.env = os.environ | {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
        words, log = ["serve", self.file, "--tls"], folder / "coordinator.log"
        self.serving = Service("dorafleet", words, log, env=self.env)
        self.serving.wait_until_printed("ready")

    def command_for(self, robot):
        """Return the words that the operator is told to run on a robot, and the token to type."""
        done = run_command(
            "dorafleet",
            ["enrol", self.file, robot, "--token", "--port", str(self.port)],
            env=self.env,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr
        command, token = done.stdout.splitlines()
        words = shlex.split(command.partition("&&")[0])
        assert words[:3] == ["sudo", "dorad-agent", "join"]
        assert token not in command
        return words[2:], token

    def end(self):
        self.serving.terminate()
        assert self.serving.wait(DEADLINE_S) == 0


@pytest.fixture
def operator(folder):
    found = Operator(folder)
    try:
        yield found
        found.end()
    finally:
        found.serving.kill()
        found.serving.wait()


@pytest.fixture
def agent(folder):
    found = Agent(folder, folder / "dorad.sock")
    yield found
    found.clear()


async def test_a_robot_joins_with_its_token_once(operator, agent, folder):
    words, token = operator.command_for("arm1")
    succeeds(agent.command(*words, stdin=token))
    agent.start()
    found = await agent.connection("connected")
    assert (found.robot, found.connection.coordinator) == ("arm1", f"127.0.0.1:{operator.port}")
    again = agent.command(*words, stdin=token)
    assert "enrolled already" in again.stderr
    other = Agent(folder / "other", folder / "dorad.sock")
    other.folder.parent.mkdir()
    fails(other.command(*words, stdin=token), 1, "was used already")
    assert {path.name for path in other.folder.iterdir()} <= {"lock"}


def test_a_command_that_is_run_on_another_robot_does_not_replace_that_one(operator, agent):
    words, token = operator.command_for("arm1")
    succeeds(agent.command(*words, stdin=token))
    words, token = operator.command_for("arm2")
    wrong = agent.command(*words, "--replace", stdin=token)
    assert wrong.returncode == 1
    assert "enrolled already as arm1 (run the command on arm2" in wrong.stderr
    succeeds(agent.command("leave"))
    succeeds(agent.command(*words, stdin=token))


def test_a_token_is_good_for_its_robot_only(operator, agent):
    words, token = operator.command_for("arm1")
    words[words.index("arm1")] = "arm2"
    fails(agent.command(*words, stdin=token), 1, "the token is for robot `arm1`")


def test_a_wrong_token_is_refused(operator, agent):
    words, _ = operator.command_for("arm1")
    done = agent.command(*words, stdin="0" * 64)
    assert done.returncode == 1
    assert "the token is wrong (copy the whole command, and the token, that" in done.stderr


@pytest.mark.parametrize("token", ["", "0" * 60, "nonsense", "\udcff"])
def test_a_text_that_is_no_token_is_reported_before_anything_is_asked(folder, token):
    authority = authority_of(
        base64.b64encode(ssl.PEM_cert_to_DER_cert(open_authority(folder / "ca").certificate))
    )
    with pytest.raises(ControlError, match="what was given is not a token"):
        join(IdentityStore(folder / "agent"), "arm1", ["127.0.0.1:9"], token, authority)
    assert not (folder / "agent").exists()


def test_a_coordinator_of_another_fleet_does_not_get_the_token(operator, agent, folder):
    words, token = operator.command_for("arm1")
    other = open_authority(folder / "other-ca").certificate
    words[words.index("--authority") + 1] = base64.b64encode(
        ssl.PEM_cert_to_DER_cert(other)
    ).decode()
    fails(agent.command(*words, stdin=token), 1, "certificate")
    # It was not used up.
    words, token = operator.command_for("arm1")
    succeeds(agent.command(*words, stdin=token))


def test_a_robot_joins_whose_agent_shares_its_identity_with_the_group_of_dorad(
    operator, folder, monkeypatch
):
    monkeypatch.setattr("dorad.agent.folder.GROUP", grp.getgrgid(os.getegid()).gr_name)
    words, token = operator.command_for("arm1")
    authority = words[words.index("--authority") + 1]
    identities = IdentityStore(folder)
    coordinators = [f"127.0.0.1:{operator.port}"]
    assert join(identities, "arm1", coordinators, token, authority_of(authority)).robot == "arm1"
    assert (folder / "identity/key.pem").stat().st_mode & 0o777 == 0o640


def test_a_join_whose_answer_was_lost_is_done_by_the_same_command(operator, folder, monkeypatch):
    words, token = operator.command_for("arm1")
    authority = words[words.index("--authority") + 1]
    identities = IdentityStore(folder)
    given = ([f"127.0.0.1:{operator.port}"], token, authority_of(authority))
    call = Client.call

    def lost(*arguments):
        call(*arguments)
        raise ControlError("unavailable", "the connection was lost")

    monkeypatch.setattr(Client, "call", lost)
    with pytest.raises(ControlError, match="was lost"):
        join(identities, "arm1", *given)
    monkeypatch.setattr(Client, "call", call)
    assert join(identities, "arm1", *given).robot == "arm1"
    assert not (folder / "pending").exists()


def test_a_damaged_authority_uses_up_no_token(operator, agent):
    words, token = operator.command_for("arm1")
    at = words.index("--authority") + 1
    damaged = bytearray(base64.b64decode(words[at]))
    damaged[-10] ^= 1  # of its own signature, which TLS does not check
    wrong = [*words[:at], base64.b64encode(damaged).decode(), *words[at + 1 :]]
    fails(agent.command(*wrong, stdin=token), 1, "`--authority` is damaged")
    succeeds(agent.command(*words, stdin=token))


def test_the_coordinator_that_is_away_is_reported(agent, folder):
    pem = open_authority(folder / "ca").certificate
    authority = base64.b64encode(ssl.PEM_cert_to_DER_cert(pem)).decode()
    words = ["join", f"127.0.0.1:{free_port()}", "--robot", "arm1"]
    done = agent.command(*words, "--authority", authority, stdin="0" * 64)
    assert done.returncode == 1
    assert "no coordinator is running" in done.stderr


@pytest.mark.parametrize("authority", ["???", "\udcff", "", base64.b64encode(b"x").decode()])
def test_an_authority_that_is_no_certificate_is_refused(agent, authority):
    words = ["join", f"127.0.0.1:{free_port()}", "--robot", "arm1"]
    done = agent.command(*words, "--authority", authority, stdin="0" * 64)
    assert done.returncode == 1
    assert "is not a certificate" in done.stderr


def test_a_token_is_taken_from_no_argument_where_every_user_could_read_it(operator, agent):
    words, token = operator.command_for("arm1")
    for more in (["--token", token], [f"--token={token}"]):
        done = agent.command(*words, *more)
        assert done.returncode == 2
        assert "can be read by every user of this machine" in done.stderr
        assert token not in done.stderr
        assert not (agent.folder / "identity").exists()
    done = agent.command(*words, "--token", "-", stdin=f"{token}\n")
    assert done.returncode == 0, done.stderr


def test_a_token_in_a_file_enrols_unless_others_may_read_it(operator, agent, folder):
    words, token = operator.command_for("arm1")
    file = folder / "arm1.token"
    file.write_text(f"{token}\n")
    file.chmod(0o640)
    fails(agent.command(*words, "--token-file", str(file)), 1, "others may read the token")
    file.chmod(0o600)
    succeeds(agent.command(*words, "--token-file", str(file)))


def test_a_token_comes_from_no_device_no_foreign_pipe_and_no_variable(
    operator, agent, folder, monkeypatch
):
    """A pipe that nobody writes into would never open; one of the shell has its writer."""
    words, token = operator.command_for("arm1")
    pipe = folder / "arm1.token"
    os.mkfifo(pipe, 0o600)
    for file in (pipe, Path("/dev/zero")):
        fails(agent.command(*words, "--token-file", str(file)), 1, "not a regular file")
    monkeypatch.setenv("DORAD_AGENT_TOKEN", token)
    fails(agent.command(*words), 1, "what was given is not a token")
    mine, other = os.pipe()
    os.write(other, f"{token}\n".encode())
    os.close(other)
    place = ["--state-dir", str(agent.folder)]
    command = [sys.executable, "-m", "dorad.agent.main", *place, *words]
    command += ["--token-file", f"/dev/fd/{mine}"]
    try:
        subprocess.run(command, pass_fds=[mine], timeout=DEADLINE_S, check=True)
    finally:
        os.close(mine)


def test_at_a_terminal_the_token_is_asked_for_and_not_shown(operator, agent):
    words, token = operator.command_for("arm1")
    main, side = os.openpty()
    command = [sys.executable, "-m", "dorad.agent.main", "--state-dir", str(agent.folder), *words]
    process = subprocess.Popen(
        command, stdin=side, stdout=side, stderr=side, start_new_session=True
    )
    os.close(side)
    shown = b""
    while b"Token: " not in shown:
        shown += os.read(main, 4096)
    arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    os.write(main, f"{token}\n".encode())
    assert process.wait(DEADLINE_S) == 0
    os.set_blocking(main, False)
    shown += os.read(main, 1 << 16)
    os.close(main)
    assert b"this robot is arm1" in shown
    assert token.encode() not in shown + arguments
