"""`dora enable` and `dora disable`."""

from __future__ import annotations

from dorad.control import messages as m

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
    daemon.answers["dataflow.enable"] = info(enabled=True)
    assert daemon.dora("enable", "nav").stdout == "nav is enabled: it is started at boot\n"
    daemon.answers["dataflow.enable"] = info(enabled=False)
    assert daemon.dora("disable", "nav").stdout == "nav is disabled: it is not started at boot\n"


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
    result = daemon.dora("start", str(file), "--enable")
    assert result.returncode == 2
    assert "--enable needs --name" in result.stderr
