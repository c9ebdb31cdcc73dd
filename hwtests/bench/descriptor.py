"""The YAML of a measured dataflow, the same for every system except for keys of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from hwtests.bench.cases import BenchNode, Flow, Wire

NODES = Path(__file__).parent / "nodes"


def flow_yaml(flow: Flow, results: Path) -> str:
    """Return the dataflow file; every node writes its result to ``results/ID.json``."""
    nodes = [_node(node, results, flow) for node in flow.nodes]
    return yaml.safe_dump({"nodes": nodes}, sort_keys=False)


def program(node: BenchNode, results: Path) -> Path:
    """Return the program of a node; those in C are compiled into the folder of the results."""
    return results / Path(node.file).stem if node.in_c else NODES / node.file


def _node(node: BenchNode, results: Path, flow: Flow) -> dict[str, Any]:
    described: dict[str, Any] = {"id": node.id, "path": str(program(node, results))}
    if node.inputs:
        described["inputs"] = {name: _input(wire) for name, wire in node.inputs.items()}
    if node.outputs:
        described["outputs"] = list(node.outputs)
    described["env"] = {**node.env, "BENCH_OUT": str(results / f"{node.id}.json")}
    if not flow.native:
        described["env"]["DORAD_NATIVE"] = "0"
    if not flow.spin:
        described["spin_us"] = 0
    return described


def _input(wire: Wire) -> str | dict[str, Any]:
    if wire.queue_size is None and wire.queue_policy is None:
        return wire.source
    options = {"queue_size": wire.queue_size, "queue_policy": wire.queue_policy}
    return {"source": wire.source} | {k: v for k, v in options.items() if v is not None}
