"""`dora enable` and `dora disable`."""

import json

from dorad.control import messages as m
from tests.harness.commands import fails

UUID = "0b5e1d4e-0000-0000-0000-000000000000"


def info(*, enabled: bool) -> m.DataflowInfo:
    return m.DataflowInfo(
        uuid=UUID,
        name="nav",
        status="running",
        nodes=1,
        cpu=0.0,
        memory=0,
        started_at=0.0,
        enabled=enabled,
    )


def test_a_dataflow_is_enabled_and_disabled(daemon):
    """The answer is what was asked for, so that a wrong request is not hidden by it."""
    daemon.answers["dataflow.enable"] = lambda asked: info(enabled=asked.enabled)
    assert daemon.dora("enable", "nav").stdout == "nav is enabled: it is started at boot\n"
    assert daemon.dora("disable", "nav").stdout == "nav is disabled: it is not started at boot\n"
    assert daemon.asked("dataflow.enable") == [
        m.Enable(dataflow="nav", enabled=True),
        m.Enable(dataflow="nav", enabled=False),
    ]


def test_a_real_daemon_remembers_over_its_death_what_is_enabled(own_daemon, tmp_path):
    flow = tmp_path / "flow.yml"
    flow.write_text("nodes:\n  - id: a\n    path: dynamic\n")
    for name, more in (("nav", []), ("arm", ["--enable"]), ("cam", [])):
        own_daemon.dora_ok("start", flow, "--name", name, "--detach", *more)
    assert enabled(own_daemon) == {"arm"}
    own_daemon.dora_ok("enable", "nav")
    own_daemon.dora_ok("disable", "arm")
    assert enabled(own_daemon) == {"nav"}
    own_daemon.kill()
    own_daemon.start()
    assert enabled(own_daemon) == {"nav"}
    own_daemon.dora_ok("stop", "nav")
    # Also of one that has ended.
    assert enabled(own_daemon) == {"nav"}
    own_daemon.dora_ok("disable", "nav")
    own_daemon.dora_ok("enable", "cam")
    assert enabled(own_daemon) == {"cam"}


def enabled(daemon):
    """Return the names that `dora list` shows as enabled."""
    rows = json.loads(f"[{','.join(daemon.dora_ok('list', '--format', 'json').splitlines())}]")
    return {each["name"] for each in rows if each["enabled"]}


def test_a_daemon_that_is_not_started_at_boot_is_warned_of(daemon, tmp_path):
    daemon.answers["dataflow.enable"] = info(enabled=True)
    folder = tmp_path / "dora"
    folder.mkdir(mode=0o700)
    own = folder / "control.sock"
    own.symlink_to(daemon.socket)
    env = {"DORA_SOCKET": str(own), "XDG_RUNTIME_DIR": str(tmp_path)}
    result = daemon.dora("enable", "nav", env=env)
    assert result.returncode == 0
    assert "is not itself started at boot" in result.stderr
    assert daemon.dora("enable", "nav").stderr == ""


def test_a_start_with_enable_needs_a_name(daemon, tmp_path):
    file = tmp_path / "flow.yml"
    file.write_text("nodes:\n  - id: a\n    path: dynamic\n")
    fails(daemon.dora("start", str(file), "--enable"), 2, "--enable needs --name")
