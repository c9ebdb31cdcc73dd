"""`dorafleet exec` and `push`: the same on many machines, with grouped outcomes."""

import json
import os
import signal
import threading

import pytest

from dorafleet.cli.main import run_command
from tests.fleet.fakerobot import FakeRobot
from tests.harness.waiting import wait_until


def run(capsys, *words):
    code = run_command(words)
    out, err = capsys.readouterr()
    return code, out, err


def robots(fleet, *names, **answers):
    found = {name: fleet.add(name, FakeRobot()) for name in names}
    for robot in found.values():
        robot.answers.update(answers)
    return found


def test_machines_with_equal_outcomes_are_one_group(fleet, capsys):
    found = robots(fleet, "arm1", "arm2", "arm3", uname=(0, "6.1\n", ""))
    found["arm2"].answers["uname"] = (3, "", "no \x1b[31mway\n")
    fleet.add_unreachable("arm4")
    code, out, err = run(capsys, "exec", str(fleet.file()), "--", "uname", "-r")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[:2] == ["✓ arm1, arm3: 2 machines, exit code 0", "  6.1"]
    assert "✗ arm2: exit code 3" in lines
    assert "  no \\x1b[31mway" in lines
    assert any(line.startswith("✗ arm4: ") for line in lines)


def test_json_has_a_line_for_each_machine_and_the_shell_is_asked_for(fleet, capsys):
    found = robots(fleet, "arm1", "arm2", sh=(0, "ok\n", ""))
    words = ["exec", str(fleet.file()), "--shell", "--json", "--only", "arm2", "--", "a | b"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"machine": "arm2", "code": 0, "stdout": "ok\n", "stderr": "", "error": None}
    ]
    assert found["arm2"].ran("sh", "-c", "a | b")
    assert not found["arm1"].commands


def test_a_command_that_hangs_ends_in_time_and_delays_no_other(fleet, capsys):
    found = robots(fleet, "arm1", "arm2", uptime=(0, "up\n", ""))
    found["arm1"].hanging.add("uptime")
    code, out, _ = run(capsys, "exec", str(fleet.file()), "--timeout", "1s", "--", "uptime")
    assert code == 1
    assert "✓ arm2: exit code 0" in out
    assert "✗ arm1: the command is not done after 1 s" in out
    assert (found["arm1"].all_signals(1), found["arm2"].signals) == (["TERM"], [])


def test_ctrl_c_shows_what_has_ended_and_names_the_rest(fleet, capsys):
    found = robots(fleet, "arm1", "arm2", uptime=(0, "up\n", ""))
    found["arm2"].hanging.add("uptime")

    def interrupt():
        # One at a time: the first has ended when the second begins.
        wait_until(lambda: found["arm2"].commands)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code, out, err = run(capsys, "exec", str(fleet.file()), "--parallel", "1", "--", "uptime")
    thread.join()
    assert code == 130
    assert out == "✓ arm1: exit code 0\n  up\n"
    assert "not done: arm2" in err
    assert found["arm2"].all_signals(1) == ["TERM"]
    assert "Traceback" not in err


def test_a_file_is_copied_beside_its_place_and_renamed(fleet, capsys, tmp_path):
    found = robots(fleet, "arm1", "arm2", chmod=(0, "", ""), mv=(0, "", ""))
    source = tmp_path / "map.bin"
    source.write_bytes(b"map" * 1000)
    words = ["push", str(fleet.file()), str(source), "/srv/map.bin", "--mode", "0640"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "arm1  ✓ /srv/map.bin" in out
    for robot in found.values():
        ((copied, content),) = robot.files.items()
        assert content == source.read_bytes()
        assert copied.startswith("/srv/map.bin.")
        assert robot.ran("chmod", "640", "--", copied)
        assert robot.ran("mv", "-fT", "--", copied, "/srv/map.bin")


def test_what_cannot_be_copied_is_named_and_removed(fleet, capsys, tmp_path):
    found = robots(fleet, "arm1", "arm2", chmod=(0, "", ""), mv=(0, "", ""))
    found["arm2"].disk_full = True
    source = tmp_path / "map.bin"
    source.write_bytes(b"map")
    code, out, err = run(capsys, "push", str(fleet.file()), str(source), "/srv/map", "--json")
    assert code == 1
    lines = [json.loads(line) for line in out.splitlines()]
    assert [(line["machine"], line["copied"]) for line in lines] == [
        ("arm1", True),
        ("arm2", False),
    ]
    assert "No space left on device" in lines[1]["error"]["message"]
    assert "1 of 2 machines do not have it: arm2" in err
    assert found["arm2"].ran("rm", "-f", "--")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("{source}", "relative"), "'relative' is not the absolute path of a file"),
        (("{source}", "/a", "--mode", "9"), "'9' is not a mode such as 0644"),
        (("none", "/a"), "does not exist"),
        (("/dev/zero", "/a"), "'/dev/zero' is not a regular file"),
    ],
)
def test_usage_errors_of_push(words, text, fleet, capsys, tmp_path):
    robots(fleet, "arm1")
    source = tmp_path / "file"
    source.touch()
    words = [str(source) if word == "{source}" else word for word in words]
    code, _, err = run(capsys, "push", str(fleet.file()), *words)
    assert code == 2
    assert text in err
