"""The names of the `dora` module."""

import json
import subprocess
import sys
from pathlib import Path

import dora
import pytest

import dorad
from tests.harness.commands import succeeds
from tests.harness.dataflow import Flow, clean_environment

TICKER = """
    from dora import Node
    from probe import report

    node = Node()
    for event in node:
        report(event["type"])
"""


def call(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source],
        cwd=folder,
        env=clean_environment(Path(sys.executable).parent),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_status_of_an_operator_has_doras_values() -> None:
    assert {status.name: status.value for status in dora.DoraStatus} == {
        "CONTINUE": 0,
        "STOP": 1,
        "STOP_ALL": 2,
    }


def test_the_version_is_that_of_the_api_and_not_of_this_distribution() -> None:
    assert dora.__version__ == dorad.API_VERSION == "1.1.0"
    assert dorad.__version__ != dora.__version__
    assert isinstance(dora.__author__, str)


def test_a_star_import_gives_only_the_api() -> None:
    names: dict[str, object] = {}
    exec("from dora import *", names)
    assert names.keys() - {"__builtins__", "__version__", "__author__"} == {
        "DoraStatus",
        "Node",
        "build",
        "run",
        "start_runtime",
    }


def test_the_runtime_outside_of_an_operator_node_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"not an operator node.*`dora run`"):
        dora.start_runtime()


def test_an_unknown_name_is_an_ordinary_error() -> None:
    for name in ("nothing", "Ros2Nothing"):
        with pytest.raises(AttributeError, match=f"module 'dora' has no attribute '{name}'"):
            getattr(dora, name)
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from dora import nothing", {})


@pytest.mark.long
def test_a_program_runs_a_dataflow_to_its_end(flow: Flow) -> None:
    flow.node("node", TICKER, inputs={"tick": "dora/timer/millis/50"})
    flow.run(stop_after=8).expect(0)
    (flow.folder / "node.jsonl").unlink()
    succeeds(call("import dora; dora.run('dataflow.yml', stop_after=8)", flow.folder))
    assert flow.reports("node")[-1] == "STOP"


def test_a_failed_node_raises_in_the_program_that_ran_it(flow: Flow) -> None:
    flow.node("node", "raise SystemExit(3)")
    flow.run().expect(1)
    ended = call(
        "import dora\n"
        "try: dora.run('dataflow.yml')\n"
        "except RuntimeError as error: print('raised', error)",
        flow.folder,
    )
    assert "raised dora run dataflow.yml failed" in ended.stdout, ended.stderr
    assert "exited with code 3" in ended.stderr


@pytest.mark.parametrize("function", ["run", "build"])
def test_a_missing_dataflow_raises_with_the_reason(tmp_path: Path, function: str) -> None:
    with pytest.raises(RuntimeError, match="no such file"):
        getattr(dora, function)(str(tmp_path / "missing.yml"))


def test_mistakes_in_a_dataflow_raise_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "dataflow.yml"
    path.write_text("nodes: 5\n")
    with pytest.raises(RuntimeError, match=r"dataflow\.yml:1:\d+: nodes"):
        dora.run(path)


def test_a_program_builds_a_dataflow(tmp_path: Path) -> None:
    path = tmp_path / "dataflow.yml"
    (tmp_path / "a.py").touch()
    content = {"nodes": [{"id": "a", "path": "a.py", "build": "touch built"}]}
    path.write_text(json.dumps(content))
    succeeds(call("import dora; dora.build('dataflow.yml')", tmp_path))
    assert (tmp_path / "built").exists()


def test_building_through_a_coordinator_is_not_implemented() -> None:
    with pytest.raises(NotImplementedError, match="force_local"):
        dora.build("dataflow.yml", coordinator_port=5)
