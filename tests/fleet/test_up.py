"""The life of a fleet by its commands: a real coordinator, real SSH, real agents."""

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from dorafleet.cli.labels import parse_changes
from tests.cli.dora import dora
from tests.fleet.fakerobot import DEADLINE_S, FakeRobot
from tests.fleet.test_cli import DORAFLEET, until_or_ended
from tests.fleet.test_enrol import Machine
from tests.harness.commands import fails
from tests.harness.commands import run_command as run_program

pytestmark = pytest.mark.long


def watched(*words):
    """Return what a command shows at a terminal until it is interrupted after its first table."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "200"}
    ) as process:
        os.close(theirs)
        shown = b""
        while b"Problem" not in shown or b"arm2" not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal has gone
            while more := os.read(ours, 65536):
                shown += more
        assert process.wait(DEADLINE_S) == 0
    os.close(ours)
    return shown.decode(errors="replace")


def completed(site, *words):
    """Return what a shell offers for the last of these words."""
    env = {"_DORAFLEET_COMPLETE": "bash_complete", "_DORA_WORDS": "\n".join(words)}
    done = run_program("dorafleet", (), env={**os.environ, **env}, timeout=DEADLINE_S)
    assert done.stderr == ""
    return done.stdout.split()


def test_a_fleet_goes_up_is_labelled_and_goes_down(site, stack):
    one, two = Machine(stack), Machine(stack)
    site.fleet.add("arm1", one.robot)
    site.fleet.add("arm2", two.robot)
    code, out, err = site.run("up", site.file())
    assert code == 0, err
    assert out.splitlines()[0].startswith("coordinator started (pid ")
    assert "arm1  ✓ enrolled, connected" in out

    code, out, _ = site.run("up", site.file(), "--json")
    again = json.loads(out)
    assert (code, again["coordinator"]["started"]) == (0, False)
    assert [each["changed"] for each in again["machines"]] == [False, False]

    _, robots = site.until("status", "--json", holds=lambda found: len(found) == 2)
    assert [(each["id"], each["state"]) for each in robots] == [
        ("arm1", "connected"),
        ("arm2", "connected"),
    ]
    _, out, _ = site.run("status", site.file(), "--only", "arm2")
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["Machine", "Host", "State", "Seen", "Skew"]
    assert [line.split()[0] for line in lines[1:]] == ["arm2"]

    bin_ = Path(sys.executable).parent
    path = f"{bin_}:{os.environ['PATH']}"
    through_dora = dora("cluster", "status", "--json", env={"PATH": path})
    assert [each["id"] for each in json.loads(through_dora.stdout)] == ["arm1", "arm2"]
    assert "arm2" in watched(bin_ / "dorafleet", "status", "--watch")

    assert site.run("labels", "arm1", "zone=hall", "gpu=yes")[:2] == (0, "gpu=yes\nzone=hall\n")
    assert site.run("labels", "arm1", "gpu-")[:2] == (0, "zone=hall\n")
    code, out, _ = site.run("labels", "arm1", "--json")
    assert json.loads(out) == {"zone": "hall"}
    code, _, err = site.run("labels", "arm9")
    assert (code, "there is no robot `arm9`" in err) == (1, True)

    # A busy coordinator that does not answer within a moment completes nothing.
    for words, offered in (
        (("labels", ""), ["arm1", "arm2"]),
        (("labels", "arm1", ""), ["zone=hall", "zone-"]),
        (("labels", "arm2", "z"), ["zone=hall"]),
        (("revoke", "arm2"), ["arm2"]),
        (("enrol", site.file(), "arm1", "a"), ["arm1", "arm2"]),
    ):
        until_or_ended(lambda w=words, o=offered: completed(site, *w) == o, one.agent)
    assert completed(site, "restart", site.file(), "") == []

    code, out, err = site.run("down", "--json")
    assert code == 0, err
    assert json.loads(out) == {"ended": True, "dataflows": []}
    code, _, err = site.run("status")
    assert (code, "no coordinator is running at 127.0.0.1" in err) == (1, True)


def test_machines_that_do_not_connect_are_named(site, stack):
    site.fleet.add("arm1", Machine(stack).robot)
    site.fleet.add_unreachable("arm2")
    site.fleet.add("arm3", FakeRobot())
    code, out, err = site.run("up", site.file(), "--json")
    assert code == 1
    assert "2 of 3 machines are not connected: arm2, arm3" in err
    found = {each["id"]: each for each in json.loads(out)["machines"]}
    assert [each["connected"] for each in found.values()] == [True, False, False]
    code, robots = site.until(
        "status", "--json", holds=lambda found: found[0]["state"] == "connected"
    )
    assert code == 1
    assert [each["well"] for each in robots][1:] == [False, False]


def test_a_robot_that_is_gone_is_shown_and_comes_back(site, stack):
    machine = Machine(stack)
    site.fleet.add("arm1", machine.robot)
    assert site.run("up", site.file())[0] == 0
    machine.end()
    code, _ = site.until("status", "--json", holds=lambda found: found[0]["state"] == "unreachable")
    assert code == 1
    checks = json.loads(site.run("doctor", "--json")[1])["checks"]
    (about,) = [check for check in checks if check["name"] == "arm1"]
    assert (about["level"], "unreachable" in about["text"]) == ("FAIL", True)
    assert site.run("revoke", "arm1")[0] == 0
    (robot,) = json.loads(site.run("status", "--json")[1])
    assert robot["state"] == "refused"
    assert "was revoked" in robot["reason"]


def test_a_machine_is_taken_out_of_the_fleet(site, stack):
    one, two = Machine(stack), Machine(stack, uid=1000)
    site.fleet.add("arm1", one.robot)
    site.fleet.add("arm2", two.robot)
    assert site.run("up", site.file())[0] == 0
    site.fleet.add_unreachable("arm3")
    path = site.file()
    code, out, err = site.run("uninstall", path, "--only", "arm2,arm3")
    assert code == 1
    assert "arm2  ✓ its agent is stopped, its certificate revoked; its dataflows keep" in out
    assert "1 of 2 machines failed: arm3" in err
    assert two.robot.ran("sudo", "-n", "systemctl", "disable", "--now", "dorad-agent.service")
    assert two.agent.poll() is not None
    grants = [json.loads(line) for line in site.run("access", "--json")[1].splitlines()]
    assert [(each["name"], each["revoked"]) for each in grants] == [("arm1", False), ("arm2", True)]
    assert one.agent.poll() is None
    checks = json.loads(site.run("doctor", "--json")[1])["checks"]
    assert ("WARN", "is revoked") in [(each["level"], each["text"]) for each in checks]


def test_a_cluster_file_is_imported_while_the_fleet_runs(site, stack):
    one, two = Machine(stack), Machine(stack)
    site.fleet.add("arm1", one.robot)
    assert site.run("up", site.file())[0] == 0
    site.fleet.add("arm2", two.robot)
    code, _, err = site.run("enrol", site.file(), "arm2", "--token")
    assert (code, "not in the fleet: arm2" in err, "dorafleet up FILE" in err) == (1, True, True)
    code, out, err = site.run("up", site.file(), "--dry-run")
    assert (code, out) == (0, "arm2: would be added\n"), err
    code, out, err = site.run("up", site.file())
    assert code == 0, err
    assert out.splitlines()[0].startswith("coordinator is running already")
    assert out.splitlines()[1] == "arm2: added"
    site.until("status", "--json", holds=lambda found: {each["state"] for each in found}
               == {"connected"} and len(found) == 2)  # fmt: skip
    assert one.agent.poll() is None

    del site.fleet.ports["arm2"]
    code, out, err = site.run("up", site.file())
    assert (code, "not in the file, and still in the fleet: arm2 (--remove" in err) == (0, True)
    drift = site.run("drift")[1]
    assert "not in " in drift
    assert "cluster file" in drift
    code, out, err = site.run("up", site.file(), "--remove", "--json")
    assert (code, json.loads(out)["fleet"]["removed"]) == (0, ["arm2"]), err
    assert [each["id"] for each in json.loads(site.run("status", "--json")[1])] == ["arm1"]
    grants = [json.loads(line) for line in site.run("access", "--json")[1].splitlines()]
    assert [(each["name"], each["revoked"]) for each in grants] == [("arm1", False), ("arm2", True)]
    assert two.agent.poll() is None  # what the robot runs goes on


def test_a_robot_is_added_and_removed_by_a_command(site, stack):
    one, two = Machine(stack), Machine(stack)
    site.fleet.add("arm1", one.robot)
    assert site.run("up", site.file())[0] == 0
    site.fleet.add("arm2", two.robot)
    words = ("root@127.0.0.1", "--ssh-port", str(site.fleet.ports["arm2"]))
    code, out, err = site.run("robot", "add", "arm2", *words, "--label", "zone=lab")
    assert code == 0, err
    assert out.splitlines()[0] == "arm2: added"
    assert "arm2  ✓ enrolled, connected" in out
    assert site.run("labels", "arm2")[1] == "zone=lab\n"
    until_or_ended(lambda: completed(site, "robot", "remove", "arm2") == ["arm2"], one.agent)
    code, _, err = site.run("robot", "add", "arm2", *words)
    assert (code, "in the fleet with other keys: label zone: lab -> none" in err) == (1, True)
    code, out, err = site.run("robot", "add", "arm2", *words, "--change", "--json")
    assert (code, json.loads(out)["changed"]) == (0, {"arm2": ["label zone: lab -> none"]}), err
    code, _, err = site.run("robot", "add", "arm 3", "h", "--no-enrol")
    assert (code, "is not allowed in a machine's id" in err) == (1, True)

    code, out, err = site.run("robot", "remove", "arm2")
    assert (code, out) == (0, "arm2: removed\n"), err
    assert [each["id"] for each in json.loads(site.run("status", "--json")[1])] == ["arm1"]
    code, _, err = site.run("robot", "remove", "arm2")
    assert (code, "there is no robot `arm2`" in err) == (1, True)
    audit = site.run("audit")[1]
    assert "robot.add: added arm2" in audit
    assert "robot.remove arm2" in audit
    code, out, err = site.run("robot", "add", "arm2", "10.0.0.9", "--token")
    assert (code, "dorad-agent join" in out) == (0, True), err


def test_an_operator_with_settings_needs_no_options(site, tmp_path, monkeypatch):
    site.fleet.add_unreachable("arm1")
    assert site.run("up", site.file())[0] == 1  # the coordinator runs nevertheless
    home = tmp_path / "ann"
    (home / "config/dora").mkdir(parents=True)
    bundle = home / "config/dora/ann.pem"
    code, _, err = site.run("operator", "add", "ann", "--role", "viewer", "--output", str(bundle))
    assert code == 0, err
    code, token, _ = site.run("token", "create", "panel", "--role", "viewer", "--days", "1")
    (home / "config/dora/panel.token").write_text(token)
    (home / "config/dora/panel.token").chmod(0o600)
    for name in ("DORA_COORDINATOR_ADDR", "DORA_COORDINATOR_PORT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))  # not the coordinator's user
    for how in ("certificate: ann.pem", "token: panel.token"):
        settings = f"coordinator: {{addr: 127.0.0.1, port: {site.port}, ca: ann.pem, {how}}}\n"
        (home / "config/dora/config.yml").write_text(settings)
        listed = dora("list")
        assert (listed.returncode, listed.stderr) == (0, ""), how
        assert site.run("status")[1].splitlines()[1].startswith("arm1 "), how
        fails(dora("stop", "demo"), 1, "viewer")
    # It goes to the coordinator of the settings, which asks who may enrol.
    code, _, err = site.run("up", site.file())
    assert (code, "an admin" in err or "viewer" in err) == (1, True), err
    # Only an admin may see certificates.
    checks = json.loads(site.run("doctor", "--json")[1])["checks"]
    assert [each["level"] for each in checks if each["name"] == "certificates"] == ["WARN"]


def test_the_coordinator_of_another_machine_is_not_started_here(site, tmp_path):
    site.fleet.add("arm1", FakeRobot())
    path = tmp_path / "far.yml"
    path.write_text(
        f"coordinator: {{addr: 192.0.2.7, port: {site.port}}}\nmachines: [{{id: a, host: b}}]\n"
    )
    code, _, err = site.run("up", str(path))
    assert code == 1
    assert "192.0.2.7, which is not an address of this machine" in err


def test_a_coordinator_that_cannot_start_says_why(site):
    site.fleet.add("arm1", FakeRobot())
    path = site.file()
    site.state.mkdir(mode=0o700)
    (site.state / "coordinator.db").write_bytes(b"nonsense" * 1000)
    code, _, err = site.run("up", path)
    assert code == 1
    assert "the coordinator exited at once" in err
    assert "coordinator.db" in err


@pytest.mark.parametrize("words", [["gpu"], ["=x"], ["-"], ["a=1", "a-"]])
def test_what_is_no_change_of_a_label_is_a_usage_error(site, words):
    assert site.run("labels", "arm1", *words)[0] == 2


def test_changes_of_labels_are_read():
    assert parse_changes(["a=1", "b-", "c=x=y", "d="]) == {"a": "1", "b": None, "c": "x=y", "d": ""}


def test_ctrl_c_while_machines_are_enrolled_leaves_what_the_next_up_takes(site, stack):
    slow = site.fleet.add("arm1", FakeRobot(hanging={"cat"}))
    with subprocess.Popen(
        [*DORAFLEET, "up", site.file()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until_or_ended(lambda: slow.commands, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert out.startswith("coordinator started (pid ")
    assert "Traceback" not in err
    slow.hanging.clear()
    slow.programs.update(Machine(stack).robot.programs)
    code, out, err = site.run("up", site.file(), "--json")
    assert code == 0, err
    assert json.loads(out)["coordinator"]["started"] is False
