"""`dorafleet serve` that sends alerts, and the commands that show what became of them."""

import json
from pathlib import Path

import pytest

from dorafleet.cli.main import run_command
from tests.fleet.coordinator.running import (
    DEADLINE_S,
    arguments,
    coordinator,
    log_of,
    refused,
)
from tests.fleet.notify.receivers import HttpServer
from tests.harness import commands

SECRET = "xoxb-secret"


def configure(folder, port, mode=0o600, more=""):
    folder.mkdir(exist_ok=True)
    file = folder / "dorafleet.toml"
    file.write_text(f'[alerts]\nwebhook = "http://127.0.0.1:{port}/hook/{SECRET}"\n{more}')
    file.chmod(mode)


@pytest.fixture
def server():
    with HttpServer() as found:
        yield found


@pytest.fixture
def running(tmp_path, server, monkeypatch):
    folder = tmp_path / "state"
    configure(folder, server.port)
    with coordinator(folder, DORAD_LOG_LEVEL="debug") as process:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        monkeypatch.setattr("dorad.control.choosing.coordinator_folder", lambda: folder)
        monkeypatch.setenv("DORA_COORDINATOR_ADDR", "127.0.0.1")
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(process.port))
        yield process
    assert "Traceback" not in process.process.printed


def run(capsys, *words):
    code = run_command(words)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_test_arrives_and_a_failure_is_said_by_all_commands(running, server, capsys):
    assert run(capsys, "alerts", "--test") == (
        0,
        f"webhook at http://127.0.0.1:{server.port}: delivered\n",
        "",
    )
    assert server.bodies[0]["kind"] == "test"
    assert server.paths == [f"/hook/{SECRET}"]
    server.status = 500
    code, out, _ = run(capsys, "alerts", "--test", "--json")
    assert code == 1
    assert json.loads(out) == {"webhook": "it answers 500 Internal Server Error"}
    code, out, _ = run(
        capsys, "doctor", "--state", str(running.folder), "--port", str(running.port), "--json"
    )
    names = {each["name"]: each for each in json.loads(out)["checks"]}
    assert names["alerts by webhook"]["level"] == "PASS"  # nothing had to be told


def test_no_secret_is_in_an_argument_or_a_log(running, server, capsys):
    run(capsys, "alerts", "--test")
    server.status = 401
    run(capsys, "alerts", "--test")
    pid = running.process.pid
    for name in ("cmdline", "environ"):
        assert SECRET.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    printed = log_of(running.folder).read_text()
    assert f"alerts go to the webhook at http://127.0.0.1:{server.port}" in printed
    assert SECRET not in printed


def test_alerts_of_a_server_without_receivers_have_no_word_about_them(
    tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "state"
    with coordinator(folder) as process:
        monkeypatch.setattr("dorad.control.choosing.coordinator_folder", lambda: folder)
        monkeypatch.setenv("DORA_COORDINATOR_ADDR", "127.0.0.1")
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(process.port))
        code, _, err = run(capsys, "alerts", "--json")
        assert (code, err) == (0, "")
        code, _, err = run(capsys, "alerts", "--test")
        assert code == 1
        assert "sends alerts to nobody: it has no receiver" in err
        assert "dorafleet.toml" in err


def test_a_configuration_that_is_wrong_or_open_to_others_keeps_it_from_starting(tmp_path):
    folder = tmp_path / "state"
    configure(folder, 1, mode=0o644)
    printed = refused(folder)
    assert "others may use the secret in" in printed
    assert SECRET not in printed
    configure(folder, 1, more="webhok = 1\n")
    assert "dorafleet.toml:3:1: alerts.webhok: unknown key `webhok`" in refused(folder)
    words = arguments(folder, "--config", str(folder / "other.toml"))
    done = commands.run_command("dorafleet", words, timeout=DEADLINE_S)
    assert (done.returncode, "does not exist" in done.stderr) == (2, True)
