"""Any output of one robot affects only that robot; the others are queried and shown."""

import json
import time

import asyncssh
import pytest

from dorafleet.cli.main import run_command
from dorafleet.inventory.model import Machine
from dorafleet.robot.install import READY_TIMEOUT_S
from dorafleet.ssh.connection import OUTPUT_LIMIT, connect
from dorafleet.ssh.errors import MAX_MESSAGE, Code, SshError
from dorafleet.ssh.fanout import run_on_each
from tests.fleet.fakerobot import FLOW, FakeRobot

pytestmark = pytest.mark.long

DEEP = "[" * 100_000
DIGITS = "9" * 5000
SURROGATE = "\\ud800"
FLOOD = "x" * 4_000_000


def line(**changes):
    return json.dumps(FLOW | changes)


def healthy(**more):
    return FakeRobot(version="1.0.0", service="active", enabled=True, **more)


NONSENSE = {
    "a deep list of dataflows": {"dora list": (0, DEEP, "")},
    "a deep object": {"dora list": (0, '{"a":' * 50_000, "")},
    "a deep status": {"dora status": (0, DEEP, "")},
    "infinitely many nodes": {"dora list": (0, line().replace("3", "Infinity"), "")},
    "1e400 nodes": {"dora list": (0, line().replace("3", "1e400"), "")},
    "a number of 5000 digits": {"dora list": (0, line().replace("3", DIGITS), "")},
    "NaN": {"dora list": (0, line().replace("3", "NaN"), "")},
    "a name that is a lone surrogate": {"dora list": (0, line().replace("arm", SURROGATE), "")},
    "a status with a lone surrogate": {
        "dora status": (0, f'{{"daemon": {{"status": "{SURROGATE}"}}}}', "")
    },
    "bytes that are not UTF-8": {"dora": (0, bytes(range(128, 256)) * 100, "")},
    "null": {"dora": (0, "null", "")},
    "lists instead of text": {"dora list": (0, line(name=["a"], uuid={}), "")},
    "a version that is a number": {
        "dora status": (0, '{"daemon": {"status": "running", "version": 7}}', "")
    },
    "an empty line": {"dora list": (0, "\n", "")},
    "megabytes": {"dora list": (0, FLOOD, "")},
    "megabytes of errors": {"dora list": (1, "", FLOOD)},
    "100,000 dataflows": {"dora list": (0, "{}\n" * 100_000, "")},
    "a service of a megabyte": {"systemctl": (0, "x" * 1_000_000, "")},
    "a version of a megabyte": {"dpkg-query": (0, "installed " + "1" * 1_000_000, "")},
    "megabytes on one line of errors": {"dora status": (1, "", "x" * 1_000_000)},
}


@pytest.mark.parametrize("answers", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_a_nonsense_answer_is_the_failure_of_one_machine(fleet, capsys, answers, options):
    fleet.add("arm1", healthy())
    fleet.add("bad", healthy(answers=answers))
    fleet.add("arm2", healthy())
    run_command(["status", str(fleet.file()), *options])
    shown = capsys.readouterr()
    assert shown.err == ""
    if options:
        one, bad, two = json.loads(shown.out)
        assert (one["dataflows"], two["dataflows"]) == ([FLOW], [FLOW])
        assert bad["id"] == "bad"
        text = json.dumps(bad)
    else:
        _, one, bad, two = shown.out.splitlines()
        assert one.split()[:5] == ["arm1", "127.0.0.1", "1.0.0", "active", "arm"]
        assert two.split()[:5] == ["arm2", "127.0.0.1", "1.0.0", "active", "arm"]
        text = bad
    assert len(text) < 3000, "one robot does not fill the screen"


@pytest.mark.parametrize("who", [DIGITS, "-1", "", "٣" * 20, FLOOD, "root", "0 0"])
def test_a_robot_without_a_valid_user_id_is_not_changed(fleet, packages, capsys, who):
    fleet.add("bad", FakeRobot(answers={"id": (0, who, "")}))
    fleet.add("arm", healthy())
    command = ["install", str(fleet.file()), str(packages["good"])]
    assert run_command(command) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("arm ")
    assert "1 of 2 machines failed: bad" in shown.err
    assert len(shown.err) < 3 * MAX_MESSAGE


@pytest.mark.parametrize("answers", ["null", DEEP, "ready\n"], ids=["null", "deep", "a word"])
def test_installing_does_not_wait_for_a_robot_that_answers_nonsense(
    fleet, packages, capsys, answers
):
    fleet.add("bad", healthy(answers={"dora status": (0, answers, "")}))
    begun = time.monotonic()
    assert run_command(["install", str(fleet.file()), str(packages["good"])]) == 1
    assert time.monotonic() - begun < READY_TIMEOUT_S
    assert "installed, but `dora status` prints: " in capsys.readouterr().err


def test_what_a_robot_says_about_a_key_does_not_fill_the_screen(fleet, tmp_path, capsys):
    key = tmp_path / "ada.pub"
    asyncssh.generate_private_key("ssh-ed25519", comment="ada@lab").write_public_key(key)
    fleet.add("bad", FakeRobot(answers={"dorad-agent": (0, "x" * 900_000, "")}))
    fleet.add("arm", FakeRobot(answers={"dorad-agent": (0, "trusted", "")}))
    assert run_command(["release", "trust", str(fleet.file()), "--key", str(key)]) == 0
    shown = capsys.readouterr()
    assert "✓ trusted" in shown.out
    assert len(shown.out + shown.err) < 3000


def target(fleet, name):
    return Machine(name, "127.0.0.1", "root", fleet.ports[name])


@pytest.mark.parametrize("closing", [True, False], ids=["closing", "never closing"])
@pytest.mark.parametrize("kind", ["flooding", "dripping", "hanging"])
async def test_an_endless_command_is_bounded_in_bytes_and_time(fleet, kind, closing):
    """Also if the robot keeps the connection open and ignores that the command is closed."""
    fleet.add("bad", FakeRobot(**{kind: {"yes"}}, never_closing=not closing))
    begun = time.monotonic()
    async with connect(target(fleet, "bad")) as connection:
        with pytest.raises(SshError) as caught:
            await connection.run(["yes"], timeout=1.0)
    assert caught.value.code in (Code.TIMEOUT, Code.TOO_MUCH_OUTPUT)
    assert time.monotonic() - begun < 40


async def test_an_unexpected_error_is_one_machines_outcome(fleet):
    fleet.add("one", FakeRobot())
    fleet.add("two", FakeRobot())

    async def work(machine):
        if machine.id == "one":
            raise RecursionError("too deep")
        return "done"

    one, two = await run_on_each([target(fleet, "one"), target(fleet, "two")], work, parallel=2)
    assert one.error is not None
    assert one.error.code is Code.UNEXPECTED
    assert "RecursionError: too deep" in str(one.error)
    assert two.result == "done"


async def test_a_whole_mebibyte_may_still_be_printed(fleet):
    fleet.add("arm", FakeRobot(answers={"cat": (0, "x" * OUTPUT_LIMIT, "")}))
    async with connect(target(fleet, "arm")) as connection:
        assert len(await connection.check(["cat"])) == OUTPUT_LIMIT
