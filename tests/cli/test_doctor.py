"""`dora doctor`: each check, and the complete output."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from dorad import __version__
from dorad.cli.doctor import (
    SERVICE_MEMORY,
    check_builders,
    check_service_memory,
    check_shared_memory,
    check_telemetry,
    check_uv,
    judge_daemon,
    judge_dataflows,
    judge_isolation,
    judge_links,
    judge_nodes,
)
from dorad.control import messages as m
from dorad.dataflow.load import load
from dorad.launch import landlock
from dorad.shm import create
from dorad.telemetry.feed import Report
from tests.cli.dora import dora
from tests.cli.fakedaemon import daemon_status, dataflow, no_daemon, node
from tests.harness.commands import succeeds


@pytest.fixture
def healthy(daemon):
    daemon.answers["daemon.status"] = daemon_status(version=__version__)
    daemon.answers["node.list"] = m.NodeList(nodes=[node("camera"), node("arm")])
    return daemon


def levels(checks):
    return [check.level for check in checks]


def test_all_is_well(healthy):
    result = healthy.dora("doctor")
    assert result.returncode == 0, result.stdout
    assert f"  PASS  dora: {__version__}" in result.stdout
    assert f"  PASS  daemon: dorad {__version__}, pid 99" in result.stdout
    assert f"  PASS  socket: {healthy.socket} has mode 600" in result.stdout
    assert "  PASS  dataflows: 1 running, 0 failed, 1 in all" in result.stdout
    assert "  PASS  nodes: 2 in all, 2 healthy" in result.stdout
    assert "all checks passed" in result.stdout.splitlines()[-1]


def test_pure_python_is_a_warning_with_the_way_out(healthy):
    result = healthy.dora("doctor", env={"DORAD_NATIVE": "0"})
    assert "  WARN  data plane: pure Python (DORAD_NATIVE=0)" in result.stdout
    assert "unset DORAD_NATIVE" in result.stdout


def test_a_data_plane_that_must_be_native_and_is_not_fails(healthy):
    result = healthy.dora("doctor", env={"DORAD_NATIVE": "fast"})
    assert result.returncode == 1
    assert "  FAIL  data plane: DORAD_NATIVE must be 0 or 1" in result.stdout


def test_without_a_daemon_it_fails_with_a_fix(tmp_path):
    result = dora("doctor", env=no_daemon(tmp_path))
    assert result.returncode == 1
    assert "  FAIL  daemon: no dorad is running" in result.stdout
    assert "`dora up`" in result.stdout


def test_json_is_one_object_with_every_check(healthy):
    healthy.answers["node.list"] = m.NodeList(nodes=[node("arm", "failed", last_exit="exited 3")])
    result = healthy.dora("doctor", "--json")
    assert result.returncode == 1
    found = json.loads(result.stdout)
    assert found["ok"] is False
    (ill,) = [check for check in found["checks"] if check["name"] == "node demo/arm"]
    assert ill == {
        "level": "FAIL",
        "name": "node demo/arm",
        "text": "failed; exited 3",
        "hint": "see `dora logs demo --node arm`",
    }


def test_a_dataflow_file_is_checked_too(healthy, tmp_path):
    (tmp_path / "bad.yml").write_text("nodes:\n  - id: a\n    path: a.py\n    inptus: {}\n")
    result = healthy.dora("doctor", "--dataflow", "bad.yml", cwd=tmp_path)
    assert result.returncode == 1
    assert "  FAIL  dataflow: bad.yml:4:" in result.stdout


def test_a_program_that_is_missing_is_a_warning(healthy, tmp_path):
    (tmp_path / "flow.yml").write_text("nodes:\n  - id: a\n    path: a.py\n")
    out = succeeds(healthy.dora("doctor", "--dataflow", "flow.yml", cwd=tmp_path))
    assert "  PASS  dataflow: flow.yml: ok" in out
    assert "  WARN  dataflow: flow.yml:3:" in out


def test_types_that_do_not_fit_are_a_warning_and_where_they_are_strict_a_failure(healthy, tmp_path):
    flow = (
        "nodes:\n  - {id: a, path: dynamic, outputs: [x], output_types: {x: std/core/v1/Bool}}\n"
        "  - {id: b, path: dynamic, inputs: {x: a/x}, input_types: {x: std/core/v1/String}}\n"
    )
    for strict, code, level in (("false", 0, "WARN"), ("true", 1, "FAIL")):
        (tmp_path / "flow.yml").write_text(f"{flow}strict_types: {strict}\n")
        result = healthy.dora("doctor", "--dataflow", "flow.yml", cwd=tmp_path)
        assert result.returncode == code
        lines = [line for line in result.stdout.splitlines() if "`a/x` sends" in line]
        assert len(lines) == 1
        assert lines[0].startswith(f"  {level}  dataflow: flow.yml:3:")


def test_missing_shared_memory_is_a_failure(tmp_path):
    check = check_shared_memory(tmp_path / "shm")
    assert check.level == "FAIL"
    assert check.hint is not None


def test_this_machines_shared_memory_can_be_used():
    assert check_shared_memory(Path("/dev/shm")).level != "FAIL"


def test_without_its_own_shared_memory_the_service_is_warned_about(tmp_path):
    assert Path(create.SERVICE_FOLDER) == SERVICE_MEMORY
    check = check_service_memory(tmp_path)
    assert check.level == "WARN"
    assert "every user of this machine can fill" in check.text
    assert "run-dorad-shm.mount" in check.hint
    assert check_service_memory(Path("/dev/shm")).text.startswith("/dev/shm, ")


def test_a_missing_uv_is_only_a_warning():
    assert check_uv(None).level == "WARN"


def test_a_daemon_of_another_version_is_a_warning():
    (check,) = judge_daemon(daemon_status(version="0.0.1"))
    assert check.level == "WARN"
    assert "dora down && dora up" in (check.hint or "")


def test_each_notice_of_the_daemon_is_a_warning():
    found = daemon_status(version=__version__, notices=["a", "b"])
    assert levels(judge_daemon(found)) == ["PASS", "WARN", "WARN"]


def test_a_daemon_that_can_start_no_node_is_a_failure():
    checks = list(judge_daemon(daemon_status(version=__version__, problem="no such user")))
    assert levels(checks) == ["PASS", "FAIL"]
    assert checks[1].text == "nodes cannot be started: no such user"


@pytest.mark.parametrize(
    ("version", "level", "words"),
    [
        (0, "WARN", "can read each other's memory and variables"),
        (landlock.READING - 1, "WARN", "can read each other's memory and variables"),
        (landlock.READING, "PASS", "cannot read each other, but kill each other"),
        (landlock.SIGNALS, "PASS", "cannot read or kill each other"),
    ],
)
def test_a_kernel_that_does_not_keep_nodes_apart_is_a_warning(version, level, words):
    check = judge_isolation(version)
    assert check.level == level
    assert words in check.text
    assert bool(check.hint) == (level == "WARN")


def test_a_failed_dataflow_is_a_warning():
    check = judge_dataflows([dataflow(), dataflow(status="failed"), dataflow(status="finished")])
    assert (check.level, check.text) == ("WARN", "1 running, 1 failed, 3 in all")


def test_strangers_at_the_port_of_links_are_a_warning_beside_links_that_are_up():
    flow = dataflow(links={"arm2": m.LinkPeer(state="up")}, strangers="closed: 7, from 10.0.0.5")
    link, port = judge_links([flow])
    assert (link.level, port.level, port.name) == ("PASS", "WARN", "port of links")
    assert port.text == "dataflow demo: closed: 7, from 10.0.0.5"
    assert "firewall" in port.hint


@pytest.mark.parametrize(
    ("status", "level"), [("degraded", "WARN"), ("restarting", "WARN"), ("failed", "FAIL")]
)
def test_an_unhealthy_node_is_named(status, level):
    checks = list(judge_nodes([node("a"), node("b", status, broken_inputs=["scan"])]))
    assert levels(checks) == [level, level]
    assert checks[1].name == "node demo/b"
    assert "no messages on scan" in checks[1].text


def test_real_time_is_judged_with_the_rights_of_the_daemon(healthy):
    healthy.answers["daemon.status"] = daemon_status(version=__version__, pid=os.getpid())
    result = healthy.dora("doctor", "--rt", "--json")
    names = [check["name"] for check in json.loads(result.stdout)["checks"]]
    assert names[:3] == ["real-time priority", "locked memory", "kernel preemption"]
    assert {"swap", "clock source", "isolated cores", "interrupts"} <= set(names)
    assert "daemon" not in names


def test_real_time_is_judged_without_a_daemon(tmp_path):
    result = dora("doctor", "--rt", env=no_daemon(tmp_path))
    assert "  WARN  daemon: not running; these are the limits of this shell" in result.stdout
    assert "  kernel preemption: " in result.stdout


BUILT = """
nodes:
  - id: camera
    path: build/camera
    build: |
      cmake -B build
      cmake --build build
  - id: sink
    path: sink.py
    build: pip install numpy
"""


def built(tmp_path, monkeypatch, *programs):
    """Check the dataflow BUILT where only these programs are installed."""
    (tmp_path / "sink.py").touch()
    (tmp_path / "dataflow.yml").write_text(BUILT)
    (tmp_path / "bin").mkdir()
    for program in programs:
        (tmp_path / "bin" / program).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return list(check_builders(load(tmp_path / "dataflow.yml")))


def test_a_missing_compiler_is_named_with_the_node_that_needs_it(tmp_path, monkeypatch):
    (check,) = built(tmp_path, monkeypatch, "cmake")
    assert check.level == "FAIL"
    assert check.text == "node camera needs a C compiler, and there is none"
    assert "apt-get install g++" in check.hint


def test_a_missing_build_program_is_named(tmp_path, monkeypatch):
    (check,) = built(tmp_path, monkeypatch, "gcc")
    assert check.text == "node camera is built with `cmake`, which is not installed"
    assert check.hint == "run `sudo apt-get install cmake`"


def test_with_a_compiler_nothing_is_said(tmp_path, monkeypatch):
    assert built(tmp_path, monkeypatch, "cmake", "cc") == []


def test_losses_of_the_exporter_are_shown(tmp_path):
    path = tmp_path / "status.json"
    assert not [*check_telemetry(path)], "most robots have no exporter"
    reports = [
        Report("metrics", "http://c", 10, 0),
        Report("logs", "http://c", 5, 2),
        Report("spans", "http://c", 0, 9, "401 Unauthorized"),
    ]
    path.write_bytes(msgspec.json.encode(reports))
    checks = [*check_telemetry(path)]
    assert [each.level for each in checks] == ["PASS", "WARN", "WARN"]
    assert checks[1].text == "5 logs sent to http://c, 2 dropped"
    assert "401 Unauthorized" in checks[2].text


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"x" * 100_000])
def test_a_status_that_is_none_is_a_warning(tmp_path, content):
    path = tmp_path / "status.json"
    path.write_bytes(content)
    (check,) = check_telemetry(path)
    assert (check.level, str(path) in check.text) == ("WARN", True)
