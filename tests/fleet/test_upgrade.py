"""Rolling upgrades of the package: what a robot does by itself, and the order of the robots."""

import json
import subprocess
from pathlib import Path

import pytest

from dorad.cli.node_view import as_json, columns_for
from dorad.control.messages import NodeInfo, NodeMetrics
from dorafleet.cli.main import run_command
from dorafleet.robot import commands, upgrade_there
from dorafleet.robot.upgrade_there import DEFAULTS, Robot, UpgradeError, resume, upgrade
from tests.fleet.fakerobot import FakeRobot

QUICK = DEFAULTS | {"min_healthy_time": 0.0, "healthy_deadline": 0.3}


class PowerCutError(Exception):
    """The machine is off."""


class There(Robot):
    """The programs of a robot. Package files contain `version kind`, such as `2.0 good`."""

    def __init__(self):
        self.installed = "1.0 good"
        self.log = []
        self.pid = 10
        self.cut_at = ""
        """The program at whose call the power is cut."""

    def run(self, *words, timeout=15.0):
        self.log.append(words)
        if words[0] == self.cut_at:
            self.cut_at = ""
            raise PowerCutError
        answer = getattr(self, words[0].replace("-", "_"), lambda words: "")
        try:
            return subprocess.CompletedProcess(words, 0, answer(words), "")
        except RuntimeError as error:
            return subprocess.CompletedProcess(words, 1, "", f"{error}\n")

    @property
    def kind(self):
        return self.installed.split()[1]

    def dpkg_query(self, words):
        return self.installed.split()[0]

    def dpkg_deb(self, words):
        return f"Package: dorad\nVersion: {Path(words[2]).read_text().split()[0]}\n"

    def apt_get(self, words):
        content = Path(words[-1]).read_text()
        if content.endswith("broken"):
            raise RuntimeError("E: Sub-process /usr/bin/dpkg returned an error code (1)")
        self.installed = content
        if content.endswith("kills-nodes"):
            self.pid = None

    def dora(self, words):
        if self.kind == "silent":
            raise RuntimeError("error: no daemon is running")
        if words[1] == "status":
            return "{}"
        if self.kind == "restarts-nodes":
            self.pid += 1
        status = "running" if self.pid else "failed"
        node = NodeInfo("u-1", "pick", "arm", status, self.pid, 0, NodeMetrics())
        # As `dora node list` itself prints it.
        return json.dumps(as_json(node, columns_for([node], of_all=True))) + "\n"


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.setattr(upgrade_there, "UNIT", tmp_path / "resume.service")
    monkeypatch.setattr(upgrade_there, "POLL_S", 0.01)
    monkeypatch.setattr(upgrade_there, "AGENT", tmp_path / "agent")
    (tmp_path / "agent").mkdir()
    return There()


def deb(tmp_path, content):
    path = tmp_path / f"{content.replace(' ', '_')}.deb"
    path.write_text(content)
    return path


def run(there, tmp_path, content, previous="1.0 good", **settings):
    back = previous and deb(tmp_path, previous)
    return upgrade(there, tmp_path / "kept", deb(tmp_path, content), back, QUICK | settings)


def test_a_good_package_is_kept_for_the_next_upgrade(there, tmp_path):
    assert run(there, tmp_path, "2.0 good")["outcome"] == "upgraded"
    assert there.installed == "2.0 good"
    kept = {path.name: path.read_text() for path in (tmp_path / "kept").glob("*.deb")}
    assert kept == {"previous.deb": "1.0 good", "current.deb": "2.0 good"}
    # The next one needs no file to go back to.
    assert run(there, tmp_path, "3.0 silent", previous=None)["outcome"] == "reverted"
    assert there.installed == "2.0 good"
    assert not (tmp_path / "kept/journal.json").exists()
    assert not (tmp_path / "resume.service").exists()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("silent", "dorad does not answer"),
        ("broken", "returned an error code"),
        ("kills-nodes", "node pick/arm is failed"),
    ],
)
def test_a_package_that_is_not_well_is_taken_back(there, tmp_path, kind, reason):
    result = run(there, tmp_path, f"2.0 {kind}")
    assert (result["outcome"], result["version"]) == ("reverted", "1.0")
    assert reason in result["reason"]
    assert there.installed == "1.0 good"


@pytest.mark.parametrize("stale", [False, True])
def test_a_robot_that_goes_back_gets_the_agent_s_file_of_the_version_before(
    there, tmp_path, monkeypatch, stale
):
    """The new version's agent has converted the file, and the old one would not start with it."""
    agent = tmp_path / "agent"
    (agent / "shares.db").write_text("as before")
    if stale:
        (agent / "shares.db.v1").write_text("of an earlier upgrade")

    def install(package):
        there.apt_get([package])
        if there.installed.startswith("2.0"):
            (agent / "shares.db.v2").write_text((agent / "shares.db").read_text())
            (agent / "shares.db").write_text("converted")
            (agent / "shares.db-wal").write_text("of the converted one")
        return ""

    monkeypatch.setattr(there, "install", install)
    assert run(there, tmp_path, "2.0 silent")["outcome"] == "reverted"
    kept = {each.name: each.read_text() for each in agent.iterdir()}
    earlier = {"shares.db.v1": "of an earlier upgrade"} if stale else {}
    assert kept == {"shares.db": "as before", **earlier}
    words = [word for word in there.log if word[0] == "systemctl" and "dorad-agent.service" in word]
    assert [each[1] for each in words] == ["stop", "is-enabled", "restart"]
    # Of an upgrade that stays, the copy stays, too.
    run(there, tmp_path, "2.0 good")
    assert (agent / "shares.db").read_text() == "converted"
    assert (agent / "shares.db.v2").read_text() == "as before"


def test_nodes_that_are_started_again_and_again_are_not_well(there, tmp_path):
    result = run(there, tmp_path, "2.0 restarts-nodes", min_healthy_time=0.2)
    assert result["outcome"] == "reverted"
    assert "not steady" in result["reason"]


def test_nothing_changes_without_a_way_back_unless_that_is_accepted(there, tmp_path):
    for previous in (None, "0.9 good"):
        with pytest.raises(UpgradeError, match="installed version"):
            run(there, tmp_path, "2.0 good", previous=previous)
    assert not any(words[0] == "apt-get" for words in there.log)
    assert run(there, tmp_path, "2.0 good", None, no_way_back=True)["outcome"] == "upgraded"
    result = run(there, tmp_path, "2.1 silent", None, no_way_back=True)
    assert result["outcome"] == "reverted"


@pytest.mark.parametrize(("kind", "installed"), [("good", "2.0 good"), ("silent", "1.0 good")])
@pytest.mark.parametrize("moment", ["systemctl", "dpkg", "apt-get", "dora"])
def test_after_a_power_cut_an_upgrade_is_finished_or_undone(
    there, tmp_path, kind, installed, moment
):
    real = there.install

    def install(package):
        there.cut_at = moment
        return real(package)

    if moment == "systemctl":
        there.cut_at = moment
    else:
        there.install = install
    with pytest.raises(PowerCutError):
        run(there, tmp_path, f"2.0 {kind}")
    there.install = real
    with pytest.raises(UpgradeError, match="interrupted"):
        run(there, tmp_path, "3.0 good")
    result = resume(there, tmp_path / "kept")
    assert there.installed == installed
    assert result["outcome"] == ("upgraded" if kind == "good" else "reverted")
    assert resume(there, tmp_path / "kept") == {"outcome": "nothing"}


def answering(result, log=None):
    """Return the program systemd-run of a robot whose upgrade has this result."""

    def program(words, given):
        if log is not None:
            log.append(words)
        return 0, json.dumps(result).encode() + b"\n", b""

    return {"systemd-run": program}


def robots(fleet, *results):
    made = []
    for number, result in enumerate(results, start=1):
        robot = FakeRobot(version="0.9.0", service="active", enabled=True)
        robot.programs = answering(result)
        made.append(fleet.add(f"arm{number}", robot))
    return made


GOOD = {"outcome": "upgraded", "before": "0.9.0", "version": "1.0.0"}
BACK = {"outcome": "reverted", "before": "0.9.0", "version": "0.9.0", "reason": "no answer"}


def upgraded(robot):
    return any("upgrade.py" in path for path in robot.files)


def test_all_machines_are_upgraded_canary_first(fleet, packages, capsys):
    made = robots(fleet, GOOD, GOOD, GOOD)
    command = ["upgrade", str(fleet.file()), str(packages["good"]), "--max-parallel", "2"]
    assert run_command(command) == 0
    assert capsys.readouterr().out.count("0.9.0 → 1.0.0, healthy") == 3
    assert all(map(upgraded, made))
    assert made[0].files["/var/tmp/dorafleet.abc/new.deb"] == packages["good"].read_bytes()


def test_a_canary_that_goes_back_ends_the_upgrade(fleet, packages, capsys):
    made = robots(fleet, BACK, GOOD, GOOD)
    assert run_command(["upgrade", str(fleet.file()), str(packages["good"])]) == 1
    shown = capsys.readouterr()
    assert "went back to 0.9.0: no answer" in shown.out + shown.err
    assert "3 of 3 machines do not have it" in shown.err
    assert [upgraded(robot) for robot in made] == [True, False, False]


def test_too_many_failures_end_the_upgrade(fleet, packages, capsys):
    made = robots(fleet, GOOD, BACK, GOOD, GOOD)
    words = ["--failure-threshold", "0", "--max-parallel", "1"]
    assert run_command(["upgrade", str(fleet.file()), str(packages["good"]), *words]) == 1
    assert "1 failed (arm2), 0 are accepted" in capsys.readouterr().err
    assert [upgraded(robot) for robot in made] == [True, True, False, False]


def test_a_robot_that_prints_something_else_is_an_error_and_not_a_traceback(
    fleet, packages, capsys
):
    robots(fleet, ["nonsense"])
    assert run_command(["upgrade", str(fleet.file()), str(packages["good"])]) == 1
    shown = capsys.readouterr()
    assert "the upgrade prints" in shown.out + shown.err
    assert "Traceback" not in shown.err


DEEP = b'{"outcome":' + b"[" * 100_000


def test_a_canary_that_answers_with_nonsense_has_failed(fleet, packages, capsys):
    made = robots(fleet, GOOD, GOOD, GOOD)
    made[0].programs = {"systemd-run": lambda words, given: (0, DEEP, b"")}
    words = ["--canary", "2", "--failure-threshold", "2"]
    assert run_command(["upgrade", str(fleet.file()), str(packages["good"]), *words]) == 1
    shown = capsys.readouterr()
    assert "of the canaries 1 failed (arm1), 0 are accepted" in shown.err
    assert "unexpected" not in shown.err
    assert [upgraded(robot) for robot in made] == [True, True, False]


def test_a_robot_s_reason_does_not_fill_the_screen(fleet, packages, capsys):
    robots(fleet, BACK | {"reason": "x" * 500_000, "version": "1" * 100_000})
    assert run_command(["upgrade", str(fleet.file()), str(packages["good"])]) == 1
    shown = capsys.readouterr()
    assert "went back to 111" in shown.out + shown.err
    assert len(shown.out + shown.err) < 5000


@pytest.mark.parametrize(
    "words", [["--canary", "many"], ["--max-parallel", "0"], ["--min-healthy-time", "10m"]]
)
def test_values_that_cannot_be_are_usage_errors(fleet, packages, words):
    robots(fleet, GOOD)
    assert run_command(["upgrade", str(fleet.file()), str(packages["good"]), *words]) == 2


@pytest.mark.parametrize("code", [0, 100])
def test_an_installed_package_is_kept_for_the_way_back_of_the_next_upgrade(tmp_path, code):
    folder, kept, programs = (tmp_path / name for name in ("sent", "kept", "bin"))
    for each in (folder, programs):
        each.mkdir()
    (folder / "dorad.deb").write_text("package")
    apt_get = programs / "apt-get"
    apt_get.write_text(f"#!/bin/sh\nexit {code}\n")
    apt_get.chmod(0o755)
    words = ("sh", "-c", commands.INSTALL, "sh", folder, "dorad.deb", "1", kept, "")
    done = subprocess.run(words, env={"PATH": f"{programs}:/usr/bin:/bin"}, check=False)
    assert done.returncode == code
    assert not folder.exists()
    assert [each.name for each in kept.glob("*")] == ([] if code else ["current.deb"])
