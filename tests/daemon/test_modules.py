"""A dataflow with modules runs, is kept and is changed as the nodes of its modules."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import counting, seen

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def dorad() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


def in_a_module(folder: Path) -> Path:
    """The counting dataflow, both of its nodes in `parts/part.yml`, which is returned."""
    file = counting(folder)
    nodes = yaml.safe_load(file.read_text())["nodes"]
    for node in nodes:
        node["path"] = f"../{node['path']}"
    part = folder / "parts" / "part.yml"
    part.parent.mkdir()
    part.write_text(yaml.safe_dump({"module": {"name": "part"}, "nodes": nodes}))
    file.write_text("nodes: [{id: part, module: parts/part.yml}]")
    return part


def test_what_is_kept_needs_no_files_of_modules(dorad: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "flow"
    part = in_a_module(folder)
    dorad.dora_ok("start", folder / "dataflow.yml", "--name", "flow", "--detach")
    dorad.until(lambda: len(seen(folder)) > 20)
    part.unlink()
    dorad.kill()
    dorad.start()
    with dorad.client() as client:
        nodes = client.nodes()
        assert sorted(node.node for node in nodes) == ["part.sink", "part.source"]
        assert client.status().adopted == 2
    dorad.dora_ok("node", "restart", "part.source")
    dorad.dora_ok("restart", "flow")
    mark = len(seen(folder))
    dorad.until(lambda: len(seen(folder)) > mark + 20)
    dorad.dora_ok("node", "disconnect", "part.source/number", "part.sink/number")
    dorad.dora_ok("stop", "flow")


def test_a_module_cannot_be_added_to_what_runs(dorad: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "flow"
    in_a_module(folder)
    (folder / "node.yml").write_text("{id: more, module: parts/part.yml}")
    dorad.dora_ok("start", folder / "dataflow.yml", "--name", "flow", "--detach")
    done = dorad.dora("node", "add", "--from-yaml", folder / "node.yml")
    assert done.returncode == 1
    assert (
        "node.yml:1:12: module: a module cannot be used here, only the nodes of one" in done.stderr
    )
    dorad.dora_ok("stop", "flow")
