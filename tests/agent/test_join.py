"""Enrolment with a token, at the real coordinator."""

from __future__ import annotations

import base64
import grp
import os
import shlex
import ssl

import pytest

from dorad.agent.identity import IdentityStore
from dorad.agent.join import authority_of, join
from dorad.control.client import Client
from dorad.control.errors import ControlError
from dorafleet.ca.authority import open_authority
from tests.agent.fleet import DEADLINE_S, Agent
from tests.harness.commands import Service, run_command
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
        """Return the words of the command that the operator is told to run on a robot."""
        done = run_command(
            "dorafleet",
            ["enrol", self.file, robot, "--token", "--port", str(self.port)],
            env=self.env,
            timeout=DEADLINE_S,
        )
        assert done.returncode == 0, done.stderr
        words = shlex.split(done.stdout.partition("&&")[0])
        assert words[:3] == ["sudo", "dorad-agent", "join"]
        return words[2:]

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
    words = operator.command_for("arm1")
    done = agent.command(*words)
    assert done.returncode == 0, done.stderr
    agent.start()
    found = await agent.connection("connected")
    assert (found.robot, found.connection.coordinator) == ("arm1", f"127.0.0.1:{operator.port}")
    again = agent.command(*words)
    assert "enrolled already" in again.stderr
    other = Agent(folder / "other", folder / "dorad.sock")
    other.folder.parent.mkdir()
    used = other.command(*words)
    assert used.returncode == 1
    assert "was used already" in used.stderr
    assert {path.name for path in other.folder.iterdir()} <= {"lock"}


def test_a_command_that_is_run_on_another_robot_does_not_replace_that_one(operator, agent):
    joined = agent.command(*operator.command_for("arm1"))
    assert joined.returncode == 0, joined.stderr
    words = operator.command_for("arm2")
    wrong = agent.command(*words, "--replace")
    assert wrong.returncode == 1
    assert "enrolled already as arm1 (run the command on arm2" in wrong.stderr
    left = agent.command("leave")
    assert left.returncode == 0, left.stderr
    right = agent.command(*words)
    assert right.returncode == 0, right.stderr


def test_a_token_is_good_for_its_robot_only(operator, agent):
    words = operator.command_for("arm1")
    words[words.index("arm1")] = "arm2"
    done = agent.command(*words)
    assert done.returncode == 1
    assert "the token is for robot `arm1`" in done.stderr


def test_a_wrong_token_is_refused(operator, agent):
    words = operator.command_for("arm1")
    words[words.index("--token") + 1] = "0" * 64
    done = agent.command(*words)
    assert done.returncode == 1
    assert "the token is wrong (copy the whole command that `dorafleet enrol" in done.stderr


@pytest.mark.parametrize("token", ["", "0" * 60, "nonsense", "\udcff"])
def test_a_text_that_is_no_token_is_reported_before_anything_is_asked(folder, token):
    authority = authority_of(
        base64.b64encode(ssl.PEM_cert_to_DER_cert(open_authority(folder / "ca").certificate))
    )
    with pytest.raises(ControlError, match="`--token` is not a token"):
        join(IdentityStore(folder / "agent"), "arm1", ["127.0.0.1:9"], token, authority)
    assert not (folder / "agent").exists()


def test_a_coordinator_of_another_fleet_does_not_get_the_token(operator, agent, folder):
    words = operator.command_for("arm1")
    other = open_authority(folder / "other-ca").certificate
    words[words.index("--authority") + 1] = base64.b64encode(
        ssl.PEM_cert_to_DER_cert(other)
    ).decode()
    done = agent.command(*words)
    assert done.returncode == 1
    assert "certificate" in done.stderr
    # It was not used up.
    done = agent.command(*operator.command_for("arm1"))
    assert done.returncode == 0, done.stderr


def test_a_robot_joins_whose_agent_shares_its_identity_with_the_group_of_dorad(
    operator, folder, monkeypatch
):
    monkeypatch.setattr("dorad.agent.folder.GROUP", grp.getgrgid(os.getegid()).gr_name)
    words = operator.command_for("arm1")
    token, authority = words[words.index("--token") + 1], words[words.index("--authority") + 1]
    identities = IdentityStore(folder)
    coordinators = [f"127.0.0.1:{operator.port}"]
    assert join(identities, "arm1", coordinators, token, authority_of(authority)).robot == "arm1"
    assert (folder / "identity/key.pem").stat().st_mode & 0o777 == 0o640


def test_a_join_whose_answer_was_lost_is_done_by_the_same_command(operator, folder, monkeypatch):
    words = operator.command_for("arm1")
    token, authority = words[words.index("--token") + 1], words[words.index("--authority") + 1]
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
    words = operator.command_for("arm1")
    at = words.index("--authority") + 1
    damaged = bytearray(base64.b64decode(words[at]))
    damaged[-10] ^= 1  # of its own signature, which TLS does not check
    done = agent.command(*words[:at], base64.b64encode(damaged).decode(), *words[at + 1 :])
    assert done.returncode == 1
    assert "`--authority` is damaged" in done.stderr
    done = agent.command(*words)
    assert done.returncode == 0, done.stderr


def test_the_coordinator_that_is_away_is_reported(agent, folder):
    pem = open_authority(folder / "ca").certificate
    authority = base64.b64encode(ssl.PEM_cert_to_DER_cert(pem)).decode()
    words = ["join", f"127.0.0.1:{free_port()}", "--robot", "arm1", "--token", "0" * 64]
    done = agent.command(*words, "--authority", authority)
    assert done.returncode == 1
    assert "no coordinator is running" in done.stderr


@pytest.mark.parametrize("authority", ["???", "\udcff", "", base64.b64encode(b"x").decode()])
def test_an_authority_that_is_no_certificate_is_refused(agent, authority):
    words = ["join", f"127.0.0.1:{free_port()}", "--robot", "arm1", "--token", "0" * 64]
    done = agent.command(*words, "--authority", authority)
    assert done.returncode == 1
    assert "is not a certificate" in done.stderr
