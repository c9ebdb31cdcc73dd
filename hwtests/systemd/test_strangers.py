"""Attacks of local users over D-Bus and systemd's notify socket do not disturb the daemon."""

import time

import pytest

from hwtests.robots import Robot
from hwtests.robots.effort import times
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

FLOW = """\
nodes:
  - id: talker
    path: talker.py
    inputs: {tick: dora/timer/millis/100}
"""
POLICY = "/usr/share/dbus-1/system.d/org.dorad.conf"
AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
PYTHON = "/usr/lib/dorad/bin/python"
FLOOD = times(20_000, 1_000_000)


@pytest.fixture(params=["with the policy", "without it"])
def running(robot: Robot, request: pytest.FixtureRequest) -> Robot:
    """A robot with a dataflow, with and without the bus policy that protects the daemon."""
    if request.param == "without it":
        robot.exec("rm", POLICY)
        robot.exec("systemctl", "reload", "dbus")
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot, FLOW)
    robot.exec("chmod", "-R", "a+rX", load.FOLDER)
    robot.exec("dora", "start", f"{load.FOLDER}/load.yml", "--name", "load", "--detach")
    wait_until(lambda: "line 3" in robot.exec("dora", "logs", "load"), "the talker prints")
    return robot


def daemon(robot: Robot) -> str:
    return robot.exec("systemctl", "show", "-P", "MainPID", "dorad").strip()


def unique_name(robot: Robot) -> str:
    listed = robot.exec("busctl", "--system", "--no-legend", "--no-pager", "list").splitlines()
    (name,) = [
        line.split()[0]
        for line in listed
        if line.split()[1:2] == [daemon(robot)] and line[0] == ":"
    ]
    return name


def stranger(robot: Robot, what: str, argument: str) -> int:
    """Run an attack; return the number of messages that the bus refused."""
    command = (PYTHON, f"{load.FOLDER}/stranger.py", what, unique_name(robot), argument)
    return int(robot.exec(*AS_NOBODY, *command, timeout=300))


def descriptors(robot: Robot) -> int:
    return int(robot.sh(f"ls /proc/{daemon(robot)}/fd | wc -l"))


def node(robot: Robot) -> str:
    return robot.sh("systemctl show --property=Id,ExecMainPID,ActiveState 'dorad-load-*'")


def alive(robot: Robot) -> None:
    """Check that the dataflow runs and the daemon still receives signals of systemd."""
    assert robot.exec("dora", "list").count("Running") == 1
    robot.exec("dora", "node", "restart", "talker")
    robot.exec("dora", "stop", "load")


def test_forged_signals_end_no_node(running: Robot) -> None:
    before = node(running)
    unit = running.exec("systemctl", "show", "-P", "Id", "dorad-load-*").strip()
    refused = stranger(running, "forge", unit)
    print(f"{refused} of 4 forged signals were refused by the bus")
    assert running.attempt("test", "-e", POLICY).returncode or refused == 4
    lines = running.exec("dora", "logs", "load").count("line")
    wait_until(
        lambda: running.exec("dora", "logs", "load").count("line") > lines, "the dataflow continues"
    )
    assert node(running) == before
    assert "ExecMainPID=0" not in before
    alive(running)


def test_descriptors_of_other_users_are_closed(running: Robot) -> None:
    before = descriptors(running)
    stranger(running, "descriptors", "2000")
    running.exec("dora", "list")
    assert descriptors(running) <= before + 2
    alive(running)


def test_a_flood_of_messages_does_not_end_the_daemon(running: Robot) -> None:
    pid, before = daemon(running), node(running)
    begun = time.monotonic()
    refused = stranger(running, "flood", str(FLOOD))
    print(f"{FLOOD} messages in {time.monotonic() - begun:.1f} s, {refused} refused")
    assert running.attempt("test", "-e", POLICY).returncode or refused == FLOOD
    begun = time.monotonic()
    running.exec("dora", "list")
    print(f"an answer after {time.monotonic() - begun:.2f} s")
    assert daemon(running) == pid
    assert node(running) == before
    alive(running)


def test_systemd_accepts_notifications_of_the_daemon_only_from_the_daemon(running: Robot) -> None:
    pid = daemon(running)
    stored = running.exec("systemctl", "show", "-P", "NFileDescriptorStore", "dorad")
    notify = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        "[s.sendto(t, '/run/systemd/notify') for t in (b'STOPPING=1', b'STATUS=gone',"
        " b'MAINPID=1', b'FDSTOREREMOVE=1', b'WATCHDOG=trigger')]"
    )
    running.exec(*AS_NOBODY, PYTHON, "-c", notify)
    group = running.exec("systemctl", "show", "-P", "ControlGroup", "dorad-load-*").strip()
    enter = f"echo $$ >/sys/fs/cgroup{group}/cgroup.procs; "
    user = "setpriv --reuid=dorad-node --regid=dorad-node --clear-groups"
    running.sh(f'{enter} exec {user} {PYTHON} -c "{notify}"')
    running.exec("dora", "list")
    assert daemon(running) == pid
    assert "gone" not in running.exec("systemctl", "show", "-P", "StatusText", "dorad")
    assert running.exec("systemctl", "show", "-P", "NFileDescriptorStore", "dorad") == stored
    alive(running)


def test_a_flood_on_the_notify_socket_does_not_end_the_daemon(running: Robot) -> None:
    pid, before = daemon(running), node(running)
    spin = (
        "import socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
        "s.connect('/run/systemd/notify'); s.setblocking(False); end = time.time() + 8\n"
        "while time.time() < end:\n"
        " try: s.send(b'STATUS=x')\n"
        " except OSError: pass\n"
    )
    running.write("/tmp/spin.py", spin)
    running.exec("chmod", "a+r", "/tmp/spin.py")
    user = " ".join(AS_NOBODY)
    script = f"for n in 1 2 3 4; do {user} {PYTHON} /tmp/spin.py & done; wait"
    running.sh(script, timeout=120)
    output = running.exec("journalctl", "-b", "-u", "dorad", "--no-pager")
    print(f"{output.count('systemd was not reported')} signs of life did not get through")
    assert "Watchdog timeout" not in output
    assert daemon(running) == pid
    assert node(running) == before
    alive(running)
