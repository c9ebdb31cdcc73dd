"""`dora status`."""

import json
import socket

import pytest

from dorad.cli.status import network_lines
from dorad.cli.up import beside
from dorad.commandline.tables import age
from dorad.control import messages as m
from tests.cli.dora import dora
from tests.cli.fakedaemon import daemon_status, no_daemon
from tests.harness.commands import fails, succeeds


@pytest.mark.parametrize("words", [["status"], ["system", "status"]])
def test_a_daemon_that_runs_is_described(daemon, words):
    daemon.answers["daemon.status"] = daemon_status(notices=["the disk is full"])
    out = succeeds(daemon.dora(*words))
    lines = out.splitlines()
    assert lines[0] == "✓ dorad 0.1.0: running"
    assert lines[1] == f"  address: {daemon.socket}"
    assert "active dataflows: 1 (2 node processes)" in lines
    assert lines[-1] == "note: the disk is full"


def test_json_has_doras_keys_first(daemon):
    found = json.loads(daemon.dora("status", "-f", "json").stdout)
    assert [*found][:3] == ["coordinator", "daemon", "active_dataflows"]
    assert found["coordinator"] == {"status": "running", "address": str(daemon.socket)}
    assert found["daemon"]["status"] == "running"
    assert found["daemon"]["pid"] == 99
    assert found["active_dataflows"] == 1


def test_without_a_daemon_the_exit_code_is_1(tmp_path):
    result = dora("status", env=no_daemon(tmp_path))
    assert result.returncode == 1
    assert result.stdout == "✗ dorad: not running\n"
    assert "`dora up`" in result.stderr
    result = dora("status", "--format", "json", env=no_daemon(tmp_path))
    assert result.returncode == 1
    found = json.loads(result.stdout)
    assert found["daemon"] == {"status": "not running"}
    assert "`dora up`" in found["error"]


def test_a_daemon_that_hangs_or_refuses_is_not_called_ended(tmp_path):
    path = tmp_path / "hung.sock"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen()
        result = dora("status", env={"DORA_SOCKET": str(path)})
        assert (result.returncode, result.stdout) == (1, "✗ dorad: not answering\n")
        found = json.loads(dora("status", "-f", "json", env={"DORA_SOCKET": str(path)}).stdout)
        assert found["daemon"] == {"status": "not answering"}
    result = dora("status", env={"DORA_SOCKET": f"/{'x' * 200}"})
    assert (result.returncode, result.stdout) == (1, "✗ dorad: not reachable\n")
    assert result.stderr.endswith("path too long (check the path of the socket)\n")


def test_a_dataflow_file_is_checked_as_well(daemon, tmp_path):
    (tmp_path / "bad.yml").write_text("nodes:\n  - id: a\n    inptus: {}\n")
    fails(daemon.dora("status", "--dataflow", "bad.yml", cwd=tmp_path), 1, "error: bad.yml:3:")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (61.9, "1m 1s"), (3600, "1h"), (100_000, "1d 3h")]
)
def test_an_age_has_at_most_two_units(seconds, text):
    assert age(seconds) == text


def test_up_starts_no_second_daemon_where_a_socket_is_named(daemon, tmp_path):
    daemon.answers["daemon.status"] = daemon_status()
    assert f"already running (pid 99, {daemon.socket})" in daemon.dora("up").stdout
    result = dora("up", env={**no_daemon(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert (result.returncode, result.stdout) == (1, "")
    assert "unset DORA_SOCKET" in result.stderr


def test_the_network_is_shown_without_interfaces_that_have_no_address():
    known = m.Network(
        [
            m.Interface("lo", up=True, addresses=["127.0.0.1/8"]),
            m.Interface("eth0", up=True, addresses=["192.0.2.2/24", "fd00::2/64"]),
            m.Interface("wlan0", up=False, addresses=["198.51.100.2/24"]),
            m.Interface("can0", up=True),
        ],
        ["192.0.2.1 over eth0"],
    )
    assert list(network_lines(known)) == [
        "network:",
        "  eth0: 192.0.2.2/24, fd00::2/64",
        "  wlan0 (down): 198.51.100.2/24",
        "  default route: 192.0.2.1 over eth0",
    ]
    assert list(network_lines(m.Network([]))) == ["network: no interface has an address"]


def test_up_mentions_the_daemon_of_the_machine_that_is_no_longer_asked(tmp_path):
    assert beside(tmp_path / "none") == ()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        (notice,) = beside(tmp_path / "s")
    assert notice.startswith(f"the daemon of the machine has a socket, too, at {tmp_path / 's'}; ")
    assert notice.endswith("until `dora down`")
