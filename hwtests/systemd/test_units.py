"""Nodes as units of systemd: their description, limits and end."""

import time

import pytest

from dorad.node.protocol import VERSION
from hwtests.robots import Robot
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

FLOW = """\
nodes:
  - id: talker
    path: talker.py
    inputs: {tick: dora/timer/millis/100}
    cpu_affinity: [0]
    resources: {memory_max: 200MB, cpu_quota: 50%, tasks_max: 50}
  - id: hider
    path: escape.py
    inputs: {tick: dora/timer/millis/100}
"""
BROKEN = """\
nodes:
  - id: %s
    path: talker.py
    inputs: {tick: dora/timer/millis/100}
    user: %s
"""
CONFIG = "/etc/dorad/dorad.toml"


@pytest.fixture
def running(robot: Robot) -> Robot:
    """A robot with the daemon and a dataflow."""
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot, FLOW)
    robot.exec("dora", "start", f"{load.FOLDER}/load.yml", "--name", "load", "--detach")
    wait_until(lambda: "line 3" in robot.exec("dora", "logs", "load"), "the talker prints")
    return robot


def shown(robot: Robot, unit: str, *names: str) -> dict[str, str]:
    found = robot.exec("systemctl", "show", f"--property={','.join(names)}", unit)
    return dict(line.split("=", 1) for line in found.split("\n") if "=" in line)


def test_a_node_is_a_unit_with_a_readable_name_and_description(running: Robot) -> None:
    status = running.exec("systemctl", "status", "dorad-load-talker-*", "--no-pager")
    assert "Node talker of dataflow load" in status
    assert "active (running)" in status
    assert "line 1" in status
    tree = running.exec("systemd-cgls", "--no-pager", "/dorad.slice")
    assert "dorad-load-hider-" in tree
    assert "hidden-from-dora" in tree


def test_a_node_has_the_limits_and_the_user_that_it_is_given(running: Robot) -> None:
    values = shown(
        running,
        "dorad-load-talker-*",
        "MemoryMax",
        "CPUQuotaPerSecUSec",
        "TasksMax",
        "User",
        "CPUAffinity",
    )
    assert values == {
        "MemoryMax": "209715200",
        "CPUQuotaPerSecUSec": "500ms",
        "TasksMax": "50",
        "User": "dorad-node",
        "CPUAffinity": "0",
    }


HELLO = """
import glob, json, socket
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(glob.glob("/run/dorad/*-d*.sock")[0])
hello = {"t": "hello", "node": "talker", "dynamic": False, "pid": 1, "version": %d}
sock.send(json.dumps(hello).encode())
print(json.loads(sock.recv(65536)).get("error"))
"""


@pytest.mark.parametrize("user", ["root", "dorad-node"])
def test_no_process_of_another_unit_attaches_as_a_node(running: Robot, user: str) -> None:
    """Not even as the user of the node. `nobody`, which no node runs as, cannot connect at all."""
    program = ("python3", "-c", HELLO % VERSION)
    output = running.exec("runuser", "-u", user, "--", *program)
    assert "is not one that the dataflow has started for node 'talker'" in output
    stranger = running.attempt("runuser", "-u", "nobody", "--", *program)
    assert "started for node" not in stranger.stdout
    assert stranger.returncode != 0


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_no_process_escapes_the_end_of_its_node(running: Robot, how: str) -> None:
    assert running.attempt("pgrep", "-f", "hidden-from-dora").returncode == 0
    if how == "stop":
        running.exec("dora", "stop", "load")
    else:
        running.sh("kill -9 $(systemctl show -P ExecMainPID 'dorad-load-hider-*')")
    wait_until(
        lambda: running.attempt("pgrep", "-f", "hidden-from-dora").returncode == 1,
        "the hidden process has ended",
    )


def test_the_exit_of_a_node_without_a_daemon_is_known(running: Robot) -> None:
    running.exec("systemctl", "stop", "dorad")
    running.sh("kill -SEGV $(systemctl show -P ExecMainPID 'dorad-load-talker-*')")
    running.exec("systemctl", "start", "dorad")
    wait_until(
        lambda: (
            "SIGSEGV" in running.attempt("dora", "logs", "load").stdout
            or "SIGSEGV" in running.exec("journalctl", "--no-pager")
        ),
        "the daemon tells of it",
    )


def test_a_node_that_cannot_be_started_has_a_reason(running: Robot) -> None:
    running.write(CONFIG, '[nodes]\nusers = ["*"]\n')
    running.exec("systemctl", "reload", "dorad")
    running.write(f"{load.FOLDER}/broken.yml", BROKEN % ("nobody_knows", "stranger"))
    done = running.attempt("dora", "start", f"{load.FOLDER}/broken.yml", "--attach")
    assert done.returncode == 1
    assert "nobody_knows could not be started" in done.stderr
    assert "its user does not exist" in done.stderr


def test_a_node_may_not_become_root_unless_that_is_allowed(running: Robot) -> None:
    running.write(f"{load.FOLDER}/broken.yml", BROKEN % ("greedy", "root"))
    done = running.attempt("dora", "start", f"{load.FOLDER}/broken.yml", "--attach")
    assert done.returncode == 1
    assert "may not run as user `root`" in done.stderr


def test_a_broken_configuration_changes_nothing_on_reload_and_fails_the_start(
    running: Robot,
) -> None:
    running.write(CONFIG, '[nodes]\nuser = "dorad-node"\n\n[daemon]\nlog_level = "lots"\n')
    running.exec("systemctl", "reload", "dorad", timeout=20)
    assert f"{CONFIG}:5:13: daemon.log_level" in running.exec(
        "systemctl", "show", "-P", "StatusText", "dorad"
    )
    assert running.attempt("systemctl", "restart", "dorad").returncode == 1
    assert f"{CONFIG}:5:13: daemon.log_level" in running.exec(
        "journalctl", "-u", "dorad", "--no-pager"
    )
    running.write(CONFIG, "")
    wait_until(lambda: "Running" in running.attempt("dora", "list").stdout, "all is well again")


def test_a_blocked_daemon_is_restarted_and_its_nodes_keep_running(running: Robot) -> None:
    pids = running.sh("systemctl show -P ExecMainPID 'dorad-load-*'")
    daemon = running.exec("systemctl", "show", "-P", "MainPID", "dorad")
    # To systemd, a stopped process looks like an event loop that is blocked.
    running.exec("kill", "-STOP", daemon.strip())
    begun = time.monotonic()
    wait_until(
        lambda: running.exec("systemctl", "show", "-P", "MainPID", "dorad") not in (daemon, "0\n"),
        "systemd has restarted it",
        timeout=60,
    )
    wait_until(lambda: "Running" in running.attempt("dora", "list").stdout, "it has taken over")
    print(f"a blocked daemon is replaced after {time.monotonic() - begun:.1f} s")
    assert running.sh("systemctl show -P ExecMainPID 'dorad-load-*'") == pids
    assert "Watchdog timeout" in running.exec("journalctl", "-u", "dorad", "--no-pager")


def test_nodes_outlive_dbus(running: Robot) -> None:
    pids = running.sh("systemctl show -P ExecMainPID 'dorad-load-*'")
    running.exec("systemctl", "kill", "--signal=KILL", "dbus")
    running.sh("for i in $(seq 50); do dora stop load && exit; sleep 0.2; done; exit 1")
    assert pids
    listed = ("systemctl", "list-units", "--plain", "--no-legend", "dorad-load-*")
    wait_until(lambda: running.exec(*listed) == "", "systemd has unloaded all units")
