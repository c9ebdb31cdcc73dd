"""The `dorafleet` command against a fleet: its output, its commands on robots, its exit codes."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from dorafleet.cli.main import COMMANDS, run_command
from tests.fleet.fakerobot import DEADLINE_S, FLOW, FakeRobot
from tests.harness.waiting import wait_until

DORAFLEET = (sys.executable, "-m", "dorafleet.cli")
PYTHON = "import sys; from dorafleet.cli.main import run_command; "


def healthy(**more):
    return FakeRobot(version="1.0.0", service="active", enabled=True, **more)


def until_or_ended(holds, process):
    """Wait until `holds()` while a process runs; fail if it ends before."""
    wait_until(lambda: process.poll() is not None or holds())
    assert process.poll() is None


def test_check_prints_ok_or_all_problems(fleet, capsys):
    fleet.add_unreachable("arm1")
    path = fleet.file()
    assert run_command(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok, 1 machine\n"
    path.write_text(path.read_text().replace("host:", "hots:"))
    assert run_command(["check", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{path}:3:" in shown.err
    assert "did you mean `host`?" in shown.err


def test_status_shows_every_machine_and_fails_if_one_is_unhealthy(fleet, capsys):
    fleet.add("arm1", healthy())
    assert run_command(["status", str(fleet.file())]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["Machine", "Host", "Version", "Service", "Dataflows", "Problem"]
    assert line.split() == ["arm1", "127.0.0.1", "1.0.0", "active", "arm"]

    fleet.add_unreachable("arm2")
    fleet.add("arm3", FakeRobot())
    fleet.add("arm4", FakeRobot(version="1.0.0", service="failed"))
    assert run_command(["status", str(fleet.file())]) == 1
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["arm1", "arm2", "arm3", "arm4"]
    assert "nothing listens at 127.0.0.1 port 1" in lines[1]
    assert "inactive" in lines[2]
    assert lines[2].endswith("dorad is not installed")
    assert "failed" in lines[3]
    assert lines[3].endswith("off")


def test_status_as_json_has_the_same_keys_for_every_machine(fleet, capsys):
    fleet.add("arm1", healthy())
    fleet.add_unreachable("arm2")
    fleet.add("arm3", healthy(answers={"dora": (1, "Traceback", "broken\n")}))
    fleet.add("arm4", FakeRobot(), known=False)
    assert run_command(["status", str(fleet.file()), "--json"]) == 1
    one, two, three, four = json.loads(capsys.readouterr().out)
    assert one.keys() == two.keys() == three.keys() == four.keys()
    assert one["dataflows"] == [FLOW]
    assert (one["reachable"], one["service"], one["answers"]) == (True, "active", True)
    assert (one["version"], one["package"], one["error"]) == ("1.0.0", "1.0.0", None)
    assert not two["reachable"]
    assert two["error"]["code"] == "unreachable"
    assert three["reachable"]
    assert "broken" in three["error"]["message"]
    assert four["error"]["code"] == "host_key_unknown"


def test_status_queries_only_the_named_machines(fleet, capsys):
    one = fleet.add("arm1", healthy())
    fleet.add("arm2", healthy())
    fleet.add("arm3", healthy())
    file = str(fleet.file())
    assert run_command(["status", file, "--only", "arm3,arm2"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "arm2",
        "arm3",
    ]
    assert one.connections == 0
    assert run_command(["status", file, "--only", "amr1"]) == 2
    assert "did you mean `arm1`?" in capsys.readouterr().err


def test_a_new_robot_gets_the_package_and_its_service_is_started(fleet, packages, capsys):
    robot = fleet.add("arm1", FakeRobot())
    assert run_command(["install", str(fleet.file()), str(packages["good"])]) == 0
    shown = capsys.readouterr()
    assert shown.out == "arm1  ✓ 1.0.0 installed, active\n"
    assert [line.split("  ")[1].split()[0] for line in shown.err.splitlines()] == [
        "copying",
        "installing",
        "starting",
        "waiting",
    ]
    assert robot.files == {"/var/tmp/dorafleet.abc/dorad.deb": packages["good"].read_bytes()}
    assert robot.ran("systemctl", "enable", "--now", "dorad.service")
    (installing,) = [words for words in robot.commands if words[0] == "systemd-run"]
    words = ["/var/tmp/dorafleet.abc", "dorad.deb", "120", "/var/lib/dorad-upgrade", ""]
    assert installing[-5:] == words
    assert "apt-get" in installing[-7]
    assert not any(words[0] == "sudo" for words in robot.commands)


def test_a_robot_that_has_the_version_is_not_changed(fleet, packages, capsys):
    robot = fleet.add("arm1", healthy())
    assert run_command(["install", str(fleet.file()), str(packages["good"])]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert robot.files == {}
    assert not robot.ran("systemctl", "enable")
    assert not any(words[0] == "systemd-run" for words in robot.commands)


def test_a_package_of_another_commit_is_installed(fleet, packages, capsys):
    """What is installed is compared with its commit: nothing else differs before a release."""
    before = "0.2.0~dev10+gaaaaaaaaa"
    robot = fleet.add("arm1", FakeRobot(version=before, service="active", enabled=True))
    assert run_command(["install", str(fleet.file()), str(packages["commit"])]) == 0
    assert f"{before} → 0.2.0~dev11+g000000000, active" in capsys.readouterr().out
    assert robot.files
    fleet.add("arm2", FakeRobot(version="0.2.0~dev11+g000000000", service="active", enabled=True))
    assert run_command(["install", str(fleet.file()), str(packages["commit"])]) == 0
    assert "arm2  ✓ 0.2.0~dev11+g000000000 is installed already" in capsys.readouterr().out


def test_an_upgrade_shows_both_versions_and_does_not_start_the_service(fleet, packages, capsys):
    robot = fleet.add("arm1", FakeRobot(version="0.9.0", service="active", enabled=True))
    assert run_command(["install", str(fleet.file()), str(packages["good"])]) == 0
    assert "0.9.0 → 1.0.0, active" in capsys.readouterr().out
    assert not robot.ran("systemctl", "enable")


def test_a_user_other_than_root_uses_sudo(fleet, packages):
    robot = fleet.add("arm1", FakeRobot(uid=1000))
    assert run_command(["install", str(fleet.file()), str(packages["good"])]) == 0
    assert robot.ran("sudo", "-n", "systemd-run")
    assert robot.ran("sudo", "-n", "systemctl", "enable", "--now", "dorad.service")


def test_a_failure_on_one_machine_is_reported_and_the_others_are_installed(fleet, packages, capsys):
    fleet.add("arm1", FakeRobot(apt_fails="Reading lists\nE: Unable to locate package\n"))
    fleet.add_unreachable("arm2")
    fleet.add("arm3", FakeRobot(architecture="amd64"))
    fleet.add("arm4", FakeRobot(uid=1000, sudo=False))
    full = fleet.add("arm5", FakeRobot(disk_full=True))
    fleet.add("arm6", FakeRobot(starts=False))
    fleet.add("arm7", FakeRobot(dropping={"systemd-run"}))
    good = fleet.add("arm8", FakeRobot())
    assert run_command(["install", str(fleet.file()), str(packages["good"])]) == 1
    shown = capsys.readouterr()
    assert shown.out == "arm8  ✓ 1.0.0 installed, active\n"
    why = {line.split()[0]: line for line in shown.err.splitlines() if "✗" in line}
    assert why["arm1"].endswith("apt-get failed: E: Unable to locate package")
    assert "nothing listens" in why["arm2"]
    assert "it is amd64, the package is for arm64" in why["arm3"]
    assert "sudo: a password is required" in why["arm4"]
    assert "No space left on device" in why["arm5"]
    assert full.ran("rm", "-rf", "--", "/var/tmp/dorafleet.abc")
    assert why["arm6"].endswith("(there: journalctl -u dorad -n 50)")
    assert "the connection was lost during the installation: " in why["arm7"]
    assert "the installation continues there: journalctl -u dorafleet-install-" in why["arm7"]
    assert "error: 7 of 8 machines failed: arm1, arm2, arm3, arm4, arm5, arm6, arm7" in shown.err
    assert good.service == "active"


@pytest.mark.parametrize(
    ("package", "expected"),
    [("other", "is the package dorafleet; robots get dorad"), ("missing", "No such file")],
)
def test_a_file_that_is_not_the_package_is_refused_before_any_connection(
    fleet, packages, capsys, package, expected
):
    robot = fleet.add("arm1", FakeRobot())
    path = packages.get(package, "/nowhere/missing.deb")
    assert run_command(["install", str(fleet.file()), str(path)]) == 1
    assert expected in capsys.readouterr().err
    assert robot.connections == 0


def test_a_text_file_is_not_a_package(fleet, capsys):
    fleet.add_unreachable("arm1")
    path = str(fleet.file())
    assert run_command(["install", path, path]) == 1
    assert "is not a Debian package" in capsys.readouterr().err


def test_a_downgrade_happens_only_with_its_option(fleet, packages):
    robot = fleet.add("arm1", FakeRobot(version="2.0.0", service="active", enabled=True))
    command = ["install", str(fleet.file()), str(packages["good"]), "--allow-downgrade"]
    assert run_command(command) == 0
    (installing,) = [words for words in robot.commands if words[0] == "systemd-run"]
    assert installing[-1] == "--allow-downgrades"


def test_ctrl_c_exits_at_once_and_cleans_up(fleet, packages):
    robot = fleet.add("arm1", FakeRobot(hanging={"sha256sum"}))
    command = [*DORAFLEET, "install", str(fleet.file()), str(packages["good"])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert b"copying" in process.stderr.readline()
        until_or_ended(lambda: robot.ran("sha256sum"), process)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert b"Traceback" not in shown
    assert robot.ran("rm", "-rf", "--", "/var/tmp/dorafleet.abc")


def test_ctrl_c_during_the_installation_reports_that_it_continues(fleet, packages):
    robot = fleet.add("arm1", FakeRobot(hanging={"systemd-run"}))
    command = [*DORAFLEET, "install", str(fleet.file()), str(packages["good"])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until_or_ended(lambda: any(words[0] == "systemd-run" for words in robot.commands), process)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert b"the installation continues there: journalctl -u dorafleet-install-" in shown
    assert not robot.ran("rm", "-rf", "--", "/var/tmp/dorafleet.abc")


def test_output_of_a_robot_cannot_control_the_terminal(fleet, packages, capsys):
    fleet.add("arm1", FakeRobot(apt_fails="E: \x1b]0;title\x07\n"))
    fleet.add("arm2", healthy(dataflows=[FLOW | {"name": "a\x1b[2Jb"}]))
    run_command(["install", str(fleet.file()), str(packages["good"])])
    run_command(["status", str(fleet.file())])
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "\\x1b]0;title" in shown.err
    assert "a\\x1b[2Jb" in shown.out


def test_colours_and_a_progress_bar_are_only_for_terminals(fleet, packages):
    fleet.add("arm1", FakeRobot())
    command = [*DORAFLEET, "install", str(fleet.file()), str(packages["good"])]
    code, shown = on_a_terminal(command, {"TERM": "xterm"})
    assert code == 0
    assert "\x1b[32m✓" in shown
    assert "copied" in shown
    code, shown = on_a_terminal(command, {"TERM": "xterm", "NO_COLOR": "1"})
    assert code == 0
    assert "\x1b" not in shown


def on_a_terminal(command, env):
    """Run a command on its own terminal; return its exit code and what it showed."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **env}
        )
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux raises EIO at the end
            while piece := os.read(ours, 4096):
                shown += piece
        return process.wait(DEADLINE_S), shown.decode()
    finally:
        os.close(ours)


@pytest.mark.parametrize("command", [*COMMANDS])
def test_every_command_has_help_with_examples_and_refuses_unknown_options(command, capsys):
    assert run_command([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown or "Set it up" in shown
    assert run_command([command, "--nonsense"]) == 2
    assert f"see `dorafleet {command} --help`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["statsu"], "no command named 'statsu'; did you mean 'status'? (see `dorafleet --help`)"),
        (["run"], "no command named 'run'"),
        (["arm017"], "`dorafleet console arm017` opens the console of a robot of that name"),
        (["show", "robots"], "no command named 'show'"),
        (["start", "x.yml"], "`dora start` is the command, also for a fleet"),
    ],
)
def test_an_unknown_word_is_a_usage_error_and_never_starts_the_console(words, expected, capsys):
    assert run_command(words) == 2
    assert expected in capsys.readouterr().err


def test_wrong_usage_is_exit_code_2(fleet, capsys):
    assert run_command([]) == 1  # the console, which needs a terminal
    assert run_command(["instal"]) == 2
    assert "did you mean 'install'?" in capsys.readouterr().err
    assert run_command(["status", "--ssh"]) == 2
    fleet.add_unreachable("arm1")
    assert run_command(["status", str(fleet.file()), "--parallel", "0"]) == 2


def test_the_help_imports_no_ssh_and_a_missing_asyncssh_is_reported(fleet):
    fleet.add_unreachable("arm1")
    script = f"sys.modules['asyncssh'] = None; sys.exit(run_command({['--help']!r}))"
    done = subprocess.run([sys.executable, "-c", PYTHON + script], capture_output=True, check=False)
    assert done.returncode == 0
    script = (
        f"sys.modules['asyncssh'] = None; sys.exit(run_command(['status', {str(fleet.file())!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", PYTHON + script], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"pip install 'dorad[fleet]'" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_there_is_a_completion_script_for_every_shell(shell, capsys):
    assert run_command(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "dorafleet" in script
    assert "_DORAFLEET_COMPLETE" in script


def test_machines_of_the_file_are_completed(fleet, tmp_path):
    fleet.add_unreachable("arm1")
    fleet.add_unreachable("arm2")
    words = ["status", str(fleet.file()), "--only", "arm1,a"]
    env = {"_DORAFLEET_COMPLETE": "bash_complete", "_DORA_WORDS": "\n".join(words)}
    done = subprocess.run(
        DORAFLEET, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["arm1,arm1", "arm1,arm2"]


@pytest.mark.parametrize("starts", [True, False])
def test_an_agent_that_apt_remove_has_stopped_runs_again_or_the_machine_fails(
    fleet, packages, capsys, starts
):
    robot = fleet.add("arm1", FakeRobot(version="1.0.0", service="active", enabled=True))
    agent = ["inactive"]

    def systemctl(words, given):
        of_agent = words[-1] == "dorad-agent.service"
        if words[0] == "enable" and of_agent and starts:
            agent[0] = "active"
        if words[0] == "is-active":
            state = agent[0] if of_agent else "active"
            return (0 if state == "active" else 3), f"{state}\n".encode(), b""
        return 0, b"enabled\n", b""

    robot.programs["systemctl"] = systemctl
    code = run_command(["install", str(fleet.file()), str(packages["good"])])
    shown = capsys.readouterr()
    if starts:
        assert (code, "its agent started" in shown.out) == (0, True), shown
    else:
        assert code == 1
        assert "arm1  ✗ 1.0.0 is installed, but its agent is inactive" in shown.err
    assert robot.ran("systemctl", "enable", "--now", "dorad-agent.service")
