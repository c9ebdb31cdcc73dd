"""What nodes and subscriptions may not do on a robot, and what nodes may."""

import json

import pytest

from hwtests.robots import Robot
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

FLOW = """\
nodes:
  - id: probe
    path: probe.py
    inputs: {tick: dora/timer/millis/100}
    outputs: [data]
    realtime: {policy: fifo, priority: 20, lock_memory: true}
    cpu_affinity: [0]
  - id: sink
    path: probe.py
    inputs: {data: probe/data}
"""
PROBE = """\
import ctypes, errno, json, os, pathlib, socket, subprocess, tempfile
import pyarrow as pa
from dora import Node

def tried(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"

def unshare():
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) != 0:
        raise OSError(ctypes.get_errno(), "unshare")

def make_setuid():
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o4755)

status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
found = {
    "tmp": tried(lambda: pathlib.Path("/tmp/probe").write_text("x")),
    "dev": tried(lambda: os.listdir("/dev/shm")),
    "inet": tried(lambda: socket.socket(socket.AF_INET).close()),
    "can": tried(lambda: socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()),
    "child": subprocess.run(["/bin/true"]).returncode,
    "namespace": tried(unshare),
    "vsock": tried(lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()),
    "setuid": tried(make_setuid),
    "no_new_privs": status["NoNewPrivs"].strip(),
    "bounding": int(status["CapBnd"], 16),
}
node = Node()
found["policy"] = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
found["locked"] = int(open("/proc/self/status").read().split("VmLck:")[1].split()[0]) > 0
print("probed", json.dumps(found))
for event in node:
    if event["type"] == "INPUT" and event["id"] == "tick":
        node.send_output("data", pa.array([1]))
"""
LOCK = 1 << 14
"""CAP_IPC_LOCK."""


@pytest.fixture
def running(robot: Robot) -> Robot:
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot, FLOW)
    robot.write(f"{load.FOLDER}/probe.py", PROBE)
    start(robot)
    return robot


def start(robot: Robot) -> None:
    robot.exec("dora", "start", f"{load.FOLDER}/load.yml", "--name", "load", "--detach")
    wait_until(lambda: probed(robot, "sink"), "both nodes have probed")


def probed(robot: Robot, node: str) -> dict[str, object]:
    printed = robot.exec("journalctl", f"DORA_NODE={node}", "--output=cat", "--no-pager")
    lines = [line for line in printed.splitlines() if line.startswith("probed ")]
    return dict(json.loads(lines[-1].removeprefix("probed "))) if lines else {}


def unit(robot: Robot, node: str) -> str:
    pattern = f"dorad-*-{node}-*"
    found = robot.exec("systemctl", "list-units", "--plain", "--no-legend", pattern).split()
    return found[0] if found else ""


def test_a_node_keeps_what_robots_need_and_loses_the_rest(running: Robot) -> None:
    for node in ("probe", "sink"):
        name = unit(running, node)
        running.exec("systemd-analyze", "security", "--threshold=50", "--no-pager", name)
        judged = running.exec("systemd-analyze", "security", "--no-pager", name)
        print(node, judged.strip().splitlines()[-1])
    found = probed(running, "probe")
    assert {key: found[key] for key in ("tmp", "dev", "inet", "child")} == {
        "tmp": "ok",
        "dev": "ok",
        "inet": "ok",
        "child": 0,
    }
    # A kernel without CAN says so; the sandbox would say EAFNOSUPPORT as well, but of VSOCK, too.
    assert found["vsock"] == "EAFNOSUPPORT"
    assert (found["namespace"], found["setuid"]) == ("EPERM", "EPERM")
    assert (found["no_new_privs"], found["bounding"]) == ("1", LOCK)
    assert (found["policy"], found["locked"]) == (1, True)
    assert probed(running, "sink")["bounding"] == 0


def test_the_configuration_lets_a_node_out_of_the_sandbox(running: Robot) -> None:
    config = '[nodes]\nsandbox_exceptions = ["load/probe"]\n'
    running.write("/etc/dorad/dorad.toml", config)
    running.exec("systemctl", "reload", "dorad")
    running.exec("dora", "stop", "load")
    running.exec("journalctl", "--rotate")
    start(running)
    wait_until(lambda: probed(running, "probe")["no_new_privs"] == "0", "it is out of the sandbox")
    assert probed(running, "sink")["no_new_privs"] == "1"


def test_a_subscription_has_its_own_user_that_reaches_nothing(running: Robot) -> None:
    echo = "dora topic echo -d load probe/data --format json"
    running.sh(f"setsid {echo} >/root/echoed 2>&1 & ")
    wait_until(lambda: "[1]" in running.exec("cat", "/root/echoed"), "messages are shown")
    name = unit(running, ".observer")
    running.exec("systemd-analyze", "security", "--threshold=15", "--no-pager", name)
    pid = running.exec("systemctl", "show", "-P", "MainPID", name).strip()
    status = running.exec("cat", f"/proc/{pid}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uids = set(fields["Uid"].split())
    nodes = running.exec("id", "-u", "dorad-node").strip()
    assert not uids & {"0", nodes}
    assert {int(fields[kind], 16) for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    inside = ("nsenter", f"--target={pid}", "--mount", f"--setuid={uids.pop()}", "sh", "-c")
    reachable = running.attempt(*inside, "ls /run/dorad /var/lib/dorad /dev/shm /root /home /tmp")
    assert reachable.stdout.split() == ["/tmp:"]
    network = running.exec("readlink", f"/proc/{pid}/ns/net", "/proc/1/ns/net").split()
    assert network[0] != network[1]

    running.exec("dora", "topic", "pub", "-d", "load", "probe/data", "[1, 2]", "--count", "1")
    running.exec("kill", "-KILL", running.exec("pgrep", "--full", "topic echo -d load").strip())
    wait_until(lambda: unit(running, ".observer") != name, "its unit is gone with the client")
