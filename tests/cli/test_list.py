"""`dora list` and `dora clean`."""

import json
import os
import subprocess
import sys

import pytest

from dorad.cli.list import chosen
from dorad.control import messages as m
from tests.cli.dora import DORA, dora
from tests.cli.fakedaemon import OTHER, UUID, dataflow, no_daemon

ENDED = dataflow("arm", "failed", uuid=OTHER, nodes=0, cpu=0.0, memory=0, ended_at=2000.0)


@pytest.fixture
def two(daemon):
    daemon.answers["dataflow.list"] = m.DataflowList(dataflows=[dataflow(), ENDED])
    return daemon


def test_the_table_has_doras_columns(two):
    result = two.dora("list")
    assert result.stdout.splitlines() == [
        "UUID                                  Name  Status   Nodes  CPU   Memory",
        f"{UUID}  demo  Running  2      1.2%  27 MB",
        f"{OTHER}  arm   Failed   0      0.0%  0 MB",
    ]
    assert result.returncode == 0


def test_json_is_one_object_a_line_with_the_memory_in_gib(two):
    first, second = map(json.loads, two.dora("list", "-f", "json").stdout.splitlines())
    assert first == {
        "uuid": UUID,
        "name": "demo",
        "status": "Running",
        "nodes": 2,
        "cpu": 1.25,
        "memory": 0.02515,
        "started_at": 1000.0,
        "ended_at": None,
        "enabled": False,
    }
    assert second["status"] == "Failed"


def test_what_is_enabled_has_a_column_of_its_own(two):
    enabled = dataflow("arm", "failed", uuid=OTHER, nodes=0, cpu=0.0, memory=0, enabled=True)
    two.answers["dataflow.list"] = m.DataflowList(dataflows=[dataflow(), enabled])
    assert two.dora("list").stdout.splitlines() == [
        "UUID                                  Name  Status   Nodes  CPU   Memory  At boot",
        f"{UUID}  demo  Running  2      1.2%  27 MB   -",
        f"{OTHER}  arm   Failed   0      0.0%  0 MB    enabled",
    ]
    rows = [json.loads(line) for line in two.dora("list", "-f", "json").stdout.splitlines()]
    assert [each["enabled"] for each in rows] == [False, True]


def test_quiet_prints_uuids_only(two):
    assert two.dora("list", "-q", "--status", "failed").stdout == f"{OTHER}\n"


@pytest.mark.parametrize(
    ("status", "found"),
    [("running", ["starting", "running", "stopping"]), ("failed", ["failed"]), (None, None)],
)
def test_a_dataflow_that_has_not_ended_counts_as_running(status, found):
    states = ["starting", "running", "stopping", "finished", "failed"]
    dataflows = [dataflow(state, state) for state in states]
    names = [info.name for info in chosen(dataflows, status=status, name=None, sort_by=None)]
    assert sorted(names) == sorted(found or states)


def test_running_dataflows_come_first_by_name_and_ended_ones_by_their_end(two):
    rows = [
        dataflow("old", "finished", ended_at=1000.0),
        dataflow(None, "running"),
        dataflow("b", "stopping", started_at=1.0),
        dataflow("older", "failed", ended_at=900.0),
        dataflow("a", "starting", started_at=2000.0),
    ]
    names = [info.name for info in chosen(rows, status=None, name=None, sort_by=None)]
    assert names == ["a", "b", None, "older", "old"]
    two.answers["dataflow.list"] = m.DataflowList(dataflows=[ENDED, dataflow()])
    for style in ([], ["-q"], ["-f", "json"]):
        first, second = two.dora("list", *style).stdout.splitlines()[-2:]
        assert UUID in first
        assert OTHER in second


def test_names_are_filtered_by_substring_and_unnamed_dataflows_left_out():
    dataflows = [dataflow("left-arm"), dataflow(None), dataflow("leg")]
    (found,) = chosen(dataflows, status=None, name="arm", sort_by=None)
    assert found.name == "left-arm"


@pytest.mark.parametrize("field", ["cpu", "memory"])
def test_the_largest_dataflow_is_listed_first(field):
    dataflows = [dataflow(str(size), **{field: size}) for size in (1, 3, 2)]
    names = [info.name for info in chosen(dataflows, status=None, name=None, sort_by=field)]
    assert names == ["3", "2", "1"]


def test_without_a_daemon_the_error_has_a_fix(tmp_path):
    result = dora("list", env=no_daemon(tmp_path))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "no dorad is running" in result.stderr
    assert "`dora up`" in result.stderr


def test_clean_lists_the_deleted_dataflows(daemon):
    daemon.answers["dataflow.clean"] = m.DataflowList(dataflows=[ENDED])
    result = daemon.dora("clean")
    assert result.stdout.splitlines()[1] == f"{OTHER}  arm   Failed"
    assert result.stderr == "cleaned 1 dataflow\n"


def test_clean_prints_json_lines_or_uuids(daemon):
    daemon.answers["dataflow.clean"] = m.DataflowList(dataflows=[ENDED])
    (line,) = daemon.dora("clean", "-f", "json").stdout.splitlines()
    assert json.loads(line) == {"uuid": OTHER, "name": "arm", "status": "Failed"}
    assert daemon.dora("clean", "-q").stdout == f"{OTHER}\n"


def test_clean_without_ended_dataflows_succeeds(daemon):
    daemon.answers["dataflow.clean"] = m.DataflowList(dataflows=[])
    result = daemon.dora("clean")
    assert (result.returncode, result.stdout) == (0, "")
    assert "nothing to clean" in result.stderr


def test_slow_modules_are_not_imported(two):
    """A command must answer within 300 ms, and imports take most of that."""
    env = {**os.environ, "DORA_SOCKET": str(two.socket)}
    argv = [sys.executable, "-X", "importtime", *DORA[1:], "list", "--format", "json"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert not imported & {"rich", "pyarrow", "numpy", "yaml", "asyncio", "psutil", "apsw"}


def test_what_has_failed_says_why_in_a_column_of_its_own(daemon):
    why = "node cam exited with code 1: KeyError: 'x'"
    failed = dataflow("arm", "failed", uuid=OTHER, ended_at=2000.0, why=why)
    daemon.answers["dataflow.list"] = m.DataflowList(dataflows=[dataflow(), failed])
    head, *rows = daemon.dora("list").stdout.splitlines()
    assert head.split()[-1] == "Why"
    assert [row.endswith(why) for row in rows] == [False, True]
