"""Lines of nodes in the journal of a robot: each once, through every restart."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from hwtests.robots import Robot
from hwtests.robots.effort import only_long, times
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

PRINTER = """\
nodes:
  - id: printer
    path: printer.py
"""
FAILING = """\
nodes:
  - id: camera
    path: failing.py
  - id: printer
    path: printer.py
    env: {PRINT_PER_S: 10}
"""
BURST = """\
nodes:
  - id: printer
    path: printer.py
    env: {PRINT_BURST: 100000}
"""
CPU = """\
systemctl show --property=CPUUsageNSec --value dorad systemd-journald | tr '\\n' ' '"""


@pytest.fixture
def daemon(robot: Robot) -> Robot:
    """A robot whose daemon runs."""
    robot.exec("systemctl", "enable", "--now", "dorad")
    return robot


def start(robot: Robot, flow: str) -> None:
    load.install(robot, flow)
    robot.exec("dora", "start", f"{load.FOLDER}/load.yml", "--name", load.NAME, "--detach")


def entries(robot: Robot, *matches: str) -> list[dict[str, Any]]:
    robot.exec("journalctl", "--sync")
    text = robot.exec("journalctl", "--output=json", "--all", *matches, timeout=120)
    return [json.loads(line) for line in text.splitlines()]


def numbers(robot: Robot) -> list[int]:
    """Return the numbers of the lines in the journal, in its order."""
    found = entries(robot, "DORA_NODE=printer", "DORA_STREAM=stdout")
    return [int(entry["MESSAGE"].split()[1]) for entry in found]


def wait_until_printed(robot: Robot, lines: int) -> None:
    wait_until(lambda: len(numbers(robot)) > lines, f"more than {lines} lines are printed")


def test_journalctl_alone_finds_the_lines_of_a_node(daemon: Robot) -> None:
    start(daemon, FAILING)
    wait_until(
        lambda: "RuntimeError" in daemon.exec("journalctl", "DORA_NODE=camera"), "camera fails"
    )
    found = {entry["MESSAGE"]: entry for entry in entries(daemon, "DORA_NODE=camera")}
    assert found["plain text"]["PRIORITY"] == "6"
    warning = found["lens is hot"]
    assert (warning["PRIORITY"], warning["DORA_LEVEL"]) == ("4", "warn")
    assert warning["DORA_DATAFLOW_NAME"] == load.NAME
    assert json.loads(warning["DORA_FIELDS"]) == {"degrees": 71}
    assert warning["SYSLOG_IDENTIFIER"] == "camera"
    (traceback,) = (message for message in found if message.startswith("Traceback"))
    assert traceback.count("Traceback (most recent call last):") == 2
    assert traceback.endswith("RuntimeError: no camera")
    assert found[traceback]["PRIORITY"] == "4"
    show = ("systemctl", "status", "--no-pager", "dorad-load-printer-*")
    wait_until(lambda: "line " in daemon.attempt(*show).stdout, "systemctl shows a line")


def test_dora_logs_reads_the_journal_with_all_its_options(daemon: Robot) -> None:
    start(daemon, FAILING)
    wait_until(lambda: "no camera" in daemon.exec("dora", "logs", load.NAME), "camera has failed")
    logs = ("dora", "logs", load.NAME)
    lines = daemon.exec(*logs, "--node", "camera", "--log-format", "compact").splitlines()
    assert any(line.endswith("WARN camera: lens is hot") for line in lines)
    assert any(line.endswith("camera: RuntimeError: no camera") for line in lines)
    assert "plain text" not in daemon.exec(*logs, "--level", "warn")
    assert "plain text" in daemon.exec(*logs, "--grep", "PLAIN")
    assert len(daemon.exec(*logs, "-n", "camera", "--tail", "2").splitlines()) == 2
    assert daemon.exec(*logs, "--since", "1h", "--until", "30m") == ""
    whole = daemon.exec(*logs, "--node", "camera", "--log-format", "json")
    # With exit code 1: one of its nodes has failed.
    assert daemon.attempt("dora", "stop", load.NAME).returncode == 1
    assert daemon.exec(*logs, "--node", "camera", "--log-format", "json") == whole
    daemon.exec("systemctl", "stop", "dorad")
    local = daemon.exec(*logs, "--node", "camera", "--log-format", "json", "--local")
    assert [json.loads(line) for line in local.splitlines()] == [
        json.loads(line) for line in whole.splitlines()
    ]
    assert daemon.exec("find", "/var/lib/dorad/out", "-name", "log_*.jsonl") == ""


def test_following_continues_exactly_where_the_history_ends(daemon: Robot) -> None:
    start(daemon, PRINTER)
    wait_until(lambda: numbers(daemon), "lines arrive")
    command = f"timeout 5 dora logs {load.NAME} -f --node printer --log-format json || true"
    text = daemon.sh(command)
    found = [int(json.loads(line)["message"].split()[1]) for line in text.splitlines()[:-1]]
    assert found == list(range(len(found)))


def test_a_node_that_was_replaced_prints_on(daemon: Robot) -> None:
    start(daemon, PRINTER)
    wait_until(lambda: numbers(daemon), "lines arrive")
    daemon.write(f"{load.FOLDER}/next.yml", "id: printer\npath: printer.py\n")
    for _ in range(2):
        replace = ("dora", "node", "replace", "printer", "--dataflow", load.NAME)
        daemon.exec(*replace, "--from-yaml", f"{load.FOLDER}/next.yml")
        wait_until_printed(daemon, len(numbers(daemon)) + 20)
        assert "line " in daemon.exec("dora", "logs", load.NAME, "--node", "printer", "--tail", "1")


ROUNDS = times(4, 10)


def kill_daemon(robot: Robot) -> None:
    robot.exec("systemctl", "kill", "--signal=KILL", "dorad")


def restart_daemon(robot: Robot) -> None:
    robot.exec("systemctl", "restart", "dorad")


def kill_journal(robot: Robot) -> None:
    # systemd would give up after the fifth start in ten seconds.
    robot.exec("systemctl", "reset-failed", "systemd-journald")
    robot.exec("systemctl", "kill", "--signal=KILL", "systemd-journald")


def restart_journal(robot: Robot) -> None:
    robot.exec("systemctl", "reset-failed", "systemd-journald")
    robot.exec("systemctl", "restart", "systemd-journald")


@pytest.mark.parametrize(
    "disturb",
    [
        kill_daemon,
        kill_journal,
        pytest.param(restart_daemon, marks=only_long),
        pytest.param(restart_journal, marks=only_long),
    ],
)
def test_each_of_1000_lines_a_second_is_in_the_journal_once(
    daemon: Robot, disturb: Callable[[Robot], None]
) -> None:
    start(daemon, PRINTER)
    wait_until(lambda: numbers(daemon), "lines arrive")
    for _ in range(ROUNDS):
        disturb(daemon)
        time.sleep(1.3)
    # systemd may still be about to start it again.
    wait_until(lambda: daemon.attempt("dora", "list").returncode == 0, "dorad answers")
    daemon.exec("dora", "stop", load.NAME, timeout=120)
    found = numbers(daemon)
    missing = set(range(max(found))) - set(found)
    print(f"\n{ROUNDS} x {disturb.__name__}: {len(found)} lines, {len(missing)} missing,"
          f" {len(found) - len(set(found))} twice")  # fmt: skip
    assert found == sorted(set(found))
    # A killed journald loses at most one line: one that it has read and not written.
    assert len(missing) <= (ROUNDS if disturb is kill_journal else 0)
    assert daemon.exec("find", "/var/lib/dorad/out", "-name", "log_*.jsonl") == ""


def test_a_burst_of_lines_is_slowed_down_and_no_line_is_lost(daemon: Robot) -> None:
    before = [int(word) for word in daemon.exec("sh", "-c", CPU).split()]
    begun = time.time()
    start(daemon, BURST)
    last = ("DORA_NODE=printer", "--lines=1")
    wait_until(lambda: "line 99999 " in str(entries(daemon, *last)), "all are there", timeout=120)
    seconds = time.time() - begun
    after = [int(word) for word in daemon.exec("sh", "-c", CPU).split()]
    dorad, journald = ((b - a) / 1e9 for a, b in zip(before, after, strict=True))
    found = entries(daemon, "DORA_NODE=printer", "DORA_STREAM=stdout")
    stamps = [int(entry["__REALTIME_TIMESTAMP"]) for entry in found]
    rate = 1e6 * len(stamps) / (stamps[-1] - stamps[0])
    print(f"\n{len(found)} entries at {rate:.0f}/s; in {seconds:.1f} s dorad took {dorad:.1f} s"
          f" of a core, journald {journald:.1f} s")  # fmt: skip
    assert [int(entry["MESSAGE"].split()[1]) for entry in found] == list(range(100_000))
