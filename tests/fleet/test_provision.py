"""A robot that was installed again gets everything back by one command: real sshd, agent, dorad."""

import json
import os
import shutil
import signal
from contextlib import suppress

import pytest

from dorad.control.client import Client
from tests.fleet.sshd import SSHD, Host
from tests.harness.daemon import daemon, emptied
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

SYSTEMCTL = """\
#!{python}
# The units of this robot: the agent is a process, whose dorad runs already.
import os, subprocess, sys
from pathlib import Path
folder = Path("{folder}")
pid = folder / "agent.pid"
words = sys.argv[1:]
if words == ["enable", "--now", "dorad-agent.service"]:
    if not pid.exists():
        agent = subprocess.Popen(
            [folder / "bin/dorad-agent", "run", "--socket", (folder / "socket").read_text()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=(folder / "agent.log").open("ab"), start_new_session=True,
        )
        pid.write_text(str(agent.pid))
elif words[0] in ("is-active", "is-enabled"):
    print("active" if words[0] == "is-active" else "enabled")
else:
    sys.exit(1)
"""

CAT = """\
#!/bin/sh
case "$1" in
    /var/lib/dorad-agent/*) exec /bin/cat "{folder}/state/${{1#/var/lib/dorad-agent/}}" ;;
esac
exec /bin/cat "$@"
"""

FLOW = """\
nodes:
  - id: tick
    path: tick.py
    inputs: {tick: dora/timer/millis/100}
"""
TICK = """\
from dora import Node
for event in Node():
    pass
"""


class Robot(Host):
    """A robot with sshd, whose agent starts with its unit."""

    def end_agent(self) -> None:
        pid = self.folder / "agent.pid"
        if pid.exists():
            with suppress(ProcessLookupError):
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            pid.unlink()

    def install_again(self) -> None:
        """Lose everything that dorad had here."""
        self.end_agent()
        with Client((self.folder / "socket").read_text()) as client:
            for each in client.list():
                if each.active:
                    client.stop(each.uuid, force=True)
            client.clean()
        shutil.rmtree(self.state)


@pytest.fixture
def robot(site, stack, tmp_path, keys):
    if SSHD is None:
        pytest.skip("there is no sshd: apt install openssh-server")
    dorad = stack.enter_context(daemon())
    stack.enter_context(emptied(dorad))
    found = Robot(tmp_path / "arm1", "arm1")
    found.start(keys[1], keys[0])
    stack.callback(found.stop)
    stack.callback(found.end_agent)
    (found.folder / "socket").write_text(str(dorad.paths.control))
    found.script("bin/systemctl", SYSTEMCTL)
    found.script("bin/cat", CAT)
    site.fleet.ports["arm1"] = found.port
    site.fleet.trust("arm1", keys[1])
    return found


def run(site, *words):
    code, out, err = site.run(*words)
    assert code == 0, (words, out, err)
    return out


def rolled_out(site, folder, monkeypatch):
    """Let the robot run a release; return the cluster file and the key that has signed."""
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    key = folder / "home/.ssh/id_ed25519"
    key.chmod(0o600)
    file = site.file()
    flow = folder / "flow"
    flow.mkdir()
    (flow / "dataflow.yml").write_text(FLOW)
    (flow / "tick.py").write_text(TICK)
    run(site, "up", file)
    run(site, "release", "build", str(flow / "dataflow.yml"), "--name", "pick", "--key", str(key))
    run(site, "release", "trust", file, "--key", str(key))
    quick = ("--min-healthy-time", "1s", "--soak-time", "0s")
    run(site, "rollout", "start", "pick", "--cluster", file, *quick)
    return file, str(key)


def test_a_robot_that_was_installed_again_is_back_after_one_command(
    site, robot, tmp_path, monkeypatch
):
    file, key = rolled_out(site, tmp_path, monkeypatch)
    run(site, "drift")
    before = (robot.state / "identity/key.pem").read_text()

    robot.install_again()
    code, out, err = site.run("provision", file, "arm1")
    assert code == 1
    assert "is none of your keys (if robots shall trust it, name its file with --key)" in err
    out = run(site, "provision", file, "arm1", "--key", key)
    assert "arm1  ✓ in its desired state, with 1 release" in out
    run(site, "drift")
    assert (robot.state / "identity/key.pem").read_text() != before
    _, found = site.until("status", "--json", holds=lambda each: each[0]["releases"])
    assert [each["phase"] for each in found[0]["releases"]] == ["confirmed"]
    # It can be repeated, and changes nothing.
    same = (robot.state / "identity/key.pem").read_text()
    run(site, "provision", file, "arm1", "--key", key)
    assert (robot.state / "identity/key.pem").read_text() == same


def test_what_was_enrolled_again_without_files_is_named_with_the_command(
    site, robot, tmp_path, monkeypatch
):
    """It was `dorafleet rollout follow`, which ends at once after the end of the rollout."""
    file, key = rolled_out(site, tmp_path, monkeypatch)
    robot.install_again()
    run(site, "enrol", file, "arm1", "--again")

    def way_back(out):
        return [json.loads(line)["way_back"] for line in out.splitlines()]

    wanted = ["dorafleet provision FILE arm1"]
    code, _, _ = wait_until(
        lambda: site.run("drift", "--json"), lambda done: way_back(done[1]) == wanted
    )
    assert code == 1
    run(site, "provision", file, "arm1", "--key", key)
    run(site, "drift")
