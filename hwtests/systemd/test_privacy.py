"""What other users of a robot can see of nodes, and as which user nodes run."""

import json

from hwtests.robots import Robot
from hwtests.robots.shell import wait_until
from hwtests.systemd import load

ODD = 'two\nlines, "quoted", a $HOME, a `run`, a \\ and a \\n; the end\\'
FLOW = f"""\
env: {{OF_ALL: hunter-of-all}}
nodes:
  - id: talker
    path: teller.py
    inputs: {{tick: dora/timer/millis/100}}
    env: {{OF_ONE: hunter-of-one, ODD: {json.dumps(ODD.replace("$", "$$"))}}}
"""
PRINTER = """\
import os
from dora import Node
for event in Node():
    if event["type"] == "INPUT":
        print({name: os.environ[name] for name in ("OF_ALL", "OF_ONE", "OF_RUN", "ODD", "USER")})
"""
STRANGER = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
LOOK = r"""
unit=$(systemctl list-units --plain --no-legend 'dorad-load-*' | cut -d' ' -f1)
systemctl show "$unit"
systemctl cat "$unit"
systemctl status "$unit"
systemd-analyze dump "$unit"
path=$(busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
    org.freedesktop.systemd1.Manager GetUnit s "$unit" | cut -d'"' -f2)
busctl introspect -l org.freedesktop.systemd1 "$path"
journalctl --no-pager
cat /proc/[0-9]*/environ
grep -ra hunter /run /var/lib/dorad /etc /tmp /dev/shm
find /run/dorad /var/lib/dorad -type f -perm /077
"""
"""Properties of units and files that a user can try to read."""


def test_variables_of_nodes_are_for_root_and_the_node_s_user(robot: Robot) -> None:
    robot.exec("systemctl", "enable", "--now", "dorad")
    load.install(robot, FLOW)
    robot.write(f"{load.FOLDER}/teller.py", PRINTER)
    robot.exec("chmod", "-R", "go-rwx", f"{load.FOLDER}/load.yml")
    started = ("dora", "start", f"{load.FOLDER}/load.yml", "--name", "load", "--detach")
    robot.exec(*started, "--env", "OF_RUN=hunter-of-run")
    wait_until(lambda: "OF_ONE" in robot.exec("dora", "logs", "load"), "the node speaks")
    output = robot.exec("dora", "logs", "load")
    # All variables arrive unchanged.
    expected = {
        "OF_ALL": "hunter-of-all",
        "OF_ONE": "hunter-of-one",
        "OF_RUN": "hunter-of-run",
        "ODD": ODD,
        "USER": "dorad-node",
    }
    assert repr(expected) in output

    seen = robot.attempt(*STRANGER, "sh", "-c", LOOK, timeout=120).stdout
    assert "Node talker of dataflow load" in seen
    assert "hunter" not in seen
    assert "/run/dorad" not in [line[: len("/run/dorad")] for line in seen.splitlines()]
    assert robot.exec("stat", "-c", "%a %U", "/run/dorad/environments").split() == ["700", "root"]
    assert robot.exec("ls", "/run/dorad/environments") == ""


def test_a_misspelt_user_keeps_nodes_from_running_until_a_reload(robot: Robot) -> None:
    load.install(robot, FLOW)
    robot.write(f"{load.FOLDER}/teller.py", PRINTER)
    robot.write("/etc/dorad/dorad.toml", '[nodes]\nuser = "dorad-nod"\n')
    robot.exec("systemctl", "enable", "--now", "dorad")
    file = f"{load.FOLDER}/load.yml"
    refused = robot.attempt("dora", "start", file, "--env", "OF_RUN=1", "--detach")
    place = "/etc/dorad/dorad.toml:2:8: nodes.user: there is no user `dorad-nod`"
    assert refused.returncode == 1
    assert f"{place} (did you mean `dorad-node`?)" in refused.stderr
    assert place in robot.exec("dora", "status")
    assert place in robot.exec("systemctl", "show", "-P", "StatusText", "dorad")
    doctor = robot.attempt("dora", "doctor")
    assert doctor.returncode == 1
    assert place in doctor.stdout
    assert robot.attempt("pgrep", "-f", "teller.py").returncode == 1

    robot.write("/etc/dorad/dorad.toml", '[nodes]\nuser = "dorad-node"\n')
    robot.exec("systemctl", "reload", "dorad")
    robot.exec("dora", "start", file, "--name", "load", "--env", "OF_RUN=1", "--detach")
    wait_until(lambda: "dorad-node" in robot.exec("dora", "logs", "load"), "the node speaks")
    assert place not in robot.exec("dora", "status")
