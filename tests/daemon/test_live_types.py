"""Types of ports under the daemon: they are stored with the dataflow and checked at changes."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.harness.commands import fails
from tests.harness.daemon import Daemon
from tests.harness.flows import SOURCE, logged, write_flow
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

IDLE = """
    from dora import Node

    for event in Node():
        if event["type"] == "INPUT":
            print("got", event["id"])
"""
OWN = """
types:
  Reading: {arrow: Struct, fields: [{name: number, type: Int64}]}
"""


def typed_flow(folder: Path, **top: object) -> Path:
    """Write a dataflow whose source declares a user type and sends another."""
    (folder / "types" / "acme").mkdir(parents=True)
    (folder / "types" / "acme" / "v1.yml").write_text(OWN)
    nodes = [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": "dora/timer/hz/50"},
            "outputs": ["number", "other"],
            "output_types": {"number": "acme/v1/Reading", "other": "std/core/v1/Bool"},
            "restart_policy": "always",
            "env": {"DORA_RUNTIME_TYPE_CHECK": "warn"},
        },
        {
            "id": "sink",
            "path": "sink.py",
            "inputs": {"first": "source/number"},
            "input_types": {"first": "acme/v1/Reading"},
        },
    ]
    file = write_flow(folder, nodes, source=SOURCE, sink=IDLE)
    file.write_text(yaml.safe_dump({**top, "nodes": nodes}, sort_keys=False))
    return file


def warnings(folder: Path, node: str) -> list[str]:
    return [line for line in logged(folder, node) if line.startswith("type mismatch")]


def test_the_daemon_keeps_user_types_if_their_files_disappear(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    own_daemon.dora_ok("start", typed_flow(tmp_path), "--name", "flow", "--detach")
    wait_until(lambda: warnings(tmp_path, "source") and warnings(tmp_path, "sink"))
    reported = (
        "type mismatch: source/number -> sink/first: not acme/v1/Reading: "
        "expected Struct, found Int64"
    )
    assert warnings(tmp_path, "source") == warnings(tmp_path, "sink") == [reported]
    shutil.rmtree(tmp_path / "types")
    own_daemon.kill()
    own_daemon.start()
    own_daemon.dora_ok("node", "restart", "source")
    wait_until(lambda: len(warnings(tmp_path, "source")) > 1)
    assert set(warnings(tmp_path, "source")) == {reported}


def test_a_change_has_to_fit_where_types_are_strict_and_a_new_edge_is_checked(
    dorad: Daemon, tmp_path: Path
) -> None:
    file = typed_flow(tmp_path, strict_types=True)
    text = file.read_text()
    file.write_text(text.replace("first: acme/v1/Reading", "first: std/core/v1/String"))
    fails(dorad.dora("start", file, "--detach"), 1, "but `std/core/v1/String` is expected")

    file.write_text(text)
    dorad.dora_ok("start", file, "--name", "flow", "--detach")
    wait_until(lambda: warnings(tmp_path, "sink"), why="it has to run")
    dorad.dora_ok("node", "disconnect", "source/number", "sink/first")
    refused = dorad.dora("node", "connect", "source/other", "sink/first")
    assert refused.returncode == 1
    assert "`source/other` sends `std/core/v1/Bool`, but `acme/v1/Reading` is" in refused.stderr
    dorad.dora_ok("node", "connect", "source/other", "sink/untyped")
    dorad.dora_ok("node", "connect", "source/number", "sink/first")
    wait_until(lambda: len(warnings(tmp_path, "sink")) == 2, why="the edge is a new one")
