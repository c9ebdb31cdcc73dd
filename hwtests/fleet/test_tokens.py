"""Robots that are enrolled with one-use tokens, instead of over SSH."""

import base64
import shlex
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dorafleet.ca.authority import open_authority
from hwtests.fleet.enrolled import CLUSTER, UNIT, EnrolledFleet
from hwtests.fleet.flows import Flow
from hwtests.fleet.test_certificates import coordinator_at, serial
from hwtests.robots import RobotError
from hwtests.robots.effort import only_long
from hwtests.robots.shell import wait_until

FOLDER = "/var/lib/dorad-agent"
LIST = f"cd {FOLDER}; find . -type f -not -name '*.db*' -exec sha256sum {{}} + | sort"
"""Identity and keys; the database of shares changes by itself."""
HOUR_DAYS = 1 / 24


class Joining:
    """Tries to enrol one robot with tokens."""

    def __init__(self, robots: EnrolledFleet, machine: str) -> None:
        self._robots = robots
        self._machine = machine
        self.robot = robots.robots[machine]

    def command(self, **changed: str) -> list[str]:
        """Return the command that the operator is told to run there, with other options."""
        printed = self._robots.dorafleet("enrol", CLUSTER, self._machine, "--token")
        command, token = printed.splitlines()
        words = shlex.split(command.partition("&&")[0])
        assert words[:3] == ["sudo", "dorad-agent", "join"]
        assert token not in command
        return changed_in(typing(words[1:], token), **changed)

    def refused(self, words: list[str]) -> str:
        """Run a command that must fail and change nothing; return the error."""
        before = self.robot.sh(LIST)
        done = self.robot.attempt(*words)
        print(f"{self._machine}: {done.stderr.strip()}")
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert self.robot.sh(LIST) == before
        return done.stderr


@contextmanager
def left(robots: EnrolledFleet, machine: str) -> Iterator[None]:
    """Let a robot leave the fleet, so that the block can enrol it; a block that fails has not."""
    robots.robots[machine].exec("dorad-agent", "leave")
    wait_until(lambda: robots.states()[machine] != "connected", f"{machine} has left")
    try:
        yield
    except (RobotError, AssertionError):
        robots.attempt("enrol", CLUSTER, machine, "--again")
        raise


def typing(words: list[str], token: str) -> list[str]:
    """Return a command of a shell that gives `words` a token on standard input."""
    return ["sh", "-c", 'token=$1; shift; printf "%s\\n" "$token" | "$@"', "sh", token, *words]


def changed_in(words: list[str], token: str | None = None, **changed: str) -> list[str]:
    """Return a command with another token, or other values of options."""
    words = [*words]
    if token is not None:
        words[words.index("dorad-agent") - 1] = token
    for option, value in changed.items():
        words[words.index(f"--{option}") + 1] = value
    return words


@only_long
@pytest.mark.timeout(600)
def test_a_token_enrols_its_robot_once_and_each_refusal_leaves_everything_as_it_was(
    robots: EnrolledFleet, tmp_path: Path
) -> None:
    third, second = Joining(robots, "arm3"), Joining(robots, "arm2")
    flow = Flow("beside", policy="backpressure")
    with robots.running(flow), left(robots, "arm3"):
        before = robots.pids(flow)
        assert "arm9" in robots.attempt("enrol", CLUSTER, "arm9", "--token").stderr
        # The coordinator still has a certificate of it: another machine cannot take its id.
        enrolled = robots.attempt("enrol", CLUSTER, "arm3", "--token")
        assert "`arm3` is enrolled already" in enrolled.stderr
        robots.dorafleet("revoke", "arm3")
        # After a revocation it replaces what the robot has.
        good = third.command()
        plain = [word for word in good if word != "--replace"]
        assert plain != good

        assert "the token is for robot `arm3`" in third.refused(changed_in(good, robot="arm2"))
        assert "the token is wrong" in third.refused(changed_in(good, token="0" * 64))
        # Another authority, and one of another fleet: the coordinator does not get the token.
        assert "is not a certificate" in third.refused(changed_in(good, authority="AAA"))
        text = good[good.index("--authority") + 1]
        damaged = bytearray(base64.b64decode(text))
        damaged[-10] ^= 1
        text = base64.b64encode(damaged).decode()
        assert "is damaged" in third.refused(changed_in(good, authority=text))
        foreign = open_authority(tmp_path / "ca").certificate
        text = base64.b64encode(ssl.PEM_cert_to_DER_cert(foreign)).decode()
        assert "certificate" in third.refused(changed_in(good, authority=text))
        # A robot of the fleet keeps its place, whatever token it tries.
        own = serial(robots, "arm2")
        assert "enrolled already as arm2" in second.refused(plain)
        assert "the token is for" in second.refused(changed_in(good, robot="arm2"))
        if robots.clocks:
            with coordinator_at(robots, HOUR_DAYS):
                assert "has expired" in third.refused(good)
        # After all that it is still good, once.
        third.robot.exec(*good)
        # Its agent also makes a key for secrets once it is connected.
        wait_until(lambda: "secrets/key" in third.robot.sh(LIST), "arm3 is connected")
        assert "enrolled already" in third.refused(plain)
        assert "was used already" in third.refused(good)
        assert "enrolled already as arm2" in second.refused(good)
        third.robot.exec("systemctl", "restart", "dorad-agent")
        robots.wait_connected()

        assert serial(robots, "arm2") == own
        assert robots.pids(flow) == before
        robots.flows_on(flow)
        assert robots.report(flow).missing == 0
        assert robots.dorafleet("audit", "verify").startswith("ok")
        journal = robots.server.exec("journalctl", "-u", UNIT, "--no-pager", "--lines=500")
        assert "Traceback" not in journal
    wait_until(lambda: all(each["well"] for each in robots.machines().values()), "all are well")
