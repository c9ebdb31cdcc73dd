"""A dataflow with modules runs, is stored and changes as the nodes of its modules."""

from pathlib import Path

import pytest
import yaml

from tests.harness.daemon import Daemon
from tests.harness.flows import counting, seen
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


def in_a_module(folder: Path) -> Path:
    """Write the counting dataflow with its nodes in `parts/part.yml`; return that file."""
    file = counting(folder)
    nodes = yaml.safe_load(file.read_text())["nodes"]
    for node in nodes:
        node["path"] = f"../{node['path']}"
    part = folder / "parts" / "part.yml"
    part.parent.mkdir()
    part.write_text(yaml.safe_dump({"module": {"name": "part"}, "nodes": nodes}))
    file.write_text("nodes: [{id: part, module: parts/part.yml}]")
    return part


def test_a_stored_dataflow_needs_no_files_of_modules(own_daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "flow"
    part = in_a_module(folder)
    own_daemon.dora_ok("start", folder / "dataflow.yml", "--name", "flow", "--detach")
    wait_until(lambda: len(seen(folder)) > 20)
    part.unlink()
    own_daemon.kill()
    own_daemon.start()
    with own_daemon.client() as client:
        nodes = client.nodes()
        assert sorted(node.node for node in nodes) == ["part.sink", "part.source"]
        assert client.status().adopted == 2
    own_daemon.dora_ok("node", "restart", "part.source")
    own_daemon.dora_ok("restart", "flow")
    mark = len(seen(folder))
    wait_until(lambda: len(seen(folder)) > mark + 20)
    own_daemon.dora_ok("node", "disconnect", "part.source/number", "part.sink/number")
    own_daemon.dora_ok("stop", "flow")


def test_a_module_cannot_be_added_to_a_running_dataflow(dorad: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "flow"
    in_a_module(folder)
    (folder / "node.yml").write_text("{id: more, module: parts/part.yml}")
    dorad.dora_ok("start", folder / "dataflow.yml", "--name", "flow", "--detach")
    done = dorad.dora("node", "add", "--from-yaml", folder / "node.yml")
    assert done.returncode == 1
    assert "node.yml:1:12: module: a module cannot be used here, only its nodes" in done.stderr
    dorad.dora_ok("stop", "flow")
