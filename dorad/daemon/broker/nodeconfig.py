"""The configuration that the daemon sends to each process of a node, as JSON."""

import json
from collections.abc import Mapping
from typing import Any

from dorad.daemon.broker.edges import EdgeTable
from dorad.daemon.broker.mailbox import Mailbox
from dorad.dataflow.model import Dataflow, Input, QueuePolicy, Timer
from dorad.dataflow.types.ports import bodies_of


def configuration(
    dataflow: Dataflow,
    dataflow_id: str,
    box: Mailbox,
    edges: EdgeTable,
    *,
    restart_count: int,
    stepped: bool = False,
    params: Mapping[str, Any],
    link: Mapping[str, Any] | None = None,
    recorded_params: Mapping[str, Mapping[str, Any]] | None = None,
) -> bytes:
    """Return the configuration of a process that attaches to `box` now.

    With `stepped` the daemon may hold the process, and sets its time; see `dorad.shm.stepping`.
    `link` is for the link process, `recorded_params` are those of all nodes, for a recorder.
    """
    node = box.node
    content = {
        "node_id": node.id,
        "dataflow_id": dataflow_id,
        "leases": True,
        "stepped": stepped,
        "descriptor": descriptor_for(node.id, dataflow.descriptor),
        "run_config": {
            "inputs": {item.id: _as_written(item) for item in box.inputs.values()},
            "outputs": list(node.all_outputs),
        },
        "inputs": _inputs(box, edges),
        "outputs": list(node.all_outputs),
        "dynamic": node.is_dynamic,
        "restart_count": restart_count,
        "params": dict(params),
        "watched": node.health_check_timeout is not None,
        "spin_us": node.spin_us,
        "lock_memory": node.realtime is not None and node.realtime.lock_memory,
        "deadline_ns": None if node.realtime is None else node.realtime.deadline_ns,
        "keep_bytes": node.shared_memory_pool_size,
    }
    if link is not None:
        content["link"] = dict(link)
    if recorded_params is not None:
        content["recorded"] = {"params": recorded_params, "timers": _timers(dataflow)}
    if any(body.types.inputs or body.types.outputs for body in bodies_of(node)):
        from dorad.dataflow.types.runtime import port_types  # most nodes have no types

        content["types"] = port_types(dataflow, node)
    return json.dumps(content).encode()


def _inputs(box: Mailbox, edges: EdgeTable) -> list[dict[str, Any]]:
    """Return where the messages of each input are, and how it receives them."""
    by_ring = {edge.ring: edge for edge in edges.received_by(box.node.id)}
    inputs = []
    for name, ring in box.rings.items():
        if ring.retiring:
            continue
        edge = by_ring.get(name)
        inputs.append(
            {
                "id": ring.input,
                "ring": ring.plan.base,
                "interval_ns": ring.interval_ns,
                "source": None if edge is None or edge.daemon else edge.source,
                "origin": None if edge is None else edge.origin,
                "blocking": edge is not None and edge.blocking,
                **input_options(box, ring.input),
            }
        )
    return inputs


def _timers(dataflow: Dataflow) -> dict[str, int]:
    """Return the interval in ns of each input that is a timer, by `node/input`."""
    return {
        f"{node.id}/{item.id}": item.source.interval_ns
        for node in dataflow.nodes
        for item in node.all_inputs
        if isinstance(item.source, Timer)
    }


def descriptor_for(node_id: str, descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parsed dataflow file as a node may see it, with the keys that dora's always has.

    The `env` of other nodes is left out: it may hold their secrets.
    """
    nodes = descriptor.get("nodes")
    return {
        "health_check_interval": None,
        "deploy": None,
        "debug": {"enable_debug_inspection": False},
        **descriptor,
        "nodes": [
            _node_descriptor_for(node, own=isinstance(node, dict) and node.get("id") == node_id)
            for node in (nodes if isinstance(nodes, list) else [])
        ],
    }


_UNSET: dict[str, Any] = {"name": None, "description": None, "inputs": {}, "outputs": []}
"""What dora's descriptor has of a node or operator that says nothing of it."""


def _node_descriptor_for(node: Any, *, own: bool) -> Any:
    if not isinstance(node, dict):
        return node
    shown = {
        **_UNSET,
        "env": None,
        "deploy": None,
        "restart_policy": "never",
        "max_restarts": 0,
        **node,
    }
    if not own:
        shown["env"] = None
    if node.get("operator"):
        shown["operator"] = {"id": None, **_UNSET, **node["operator"]}
    if node.get("operators"):
        shown["operators"] = [{**_UNSET, **each} for each in node["operators"]]
    return shown


def input_options(box: Mailbox, input_id: str) -> dict[str, Any]:
    """Return the options that select messages of an input: its rate limit and sync group."""
    options: dict[str, Any] = {}
    item = box.inputs.get(input_id)
    if item is not None and item.max_rate_hz is not None:
        options["max_rate_hz"] = item.max_rate_hz
        options["keeps_all"] = item.queue_policy is QueuePolicy.BACKPRESSURE
    for group in box.node.sync:
        if input_id in group.inputs:
            options["sync"] = {
                "name": group.name,
                "inputs": list(group.inputs),
                "tolerance_ns": group.tolerance_ns,
            }
    return options


def _as_written(item: Input) -> Any:
    """Return an input as in `node_config()`: a text, or a mapping if the file has options."""
    if not item.long_form:
        return item.source.text
    options: dict[str, Any] = {"source": item.source.text, "queue_size": item.queue_size}
    if item.queue_policy is not QueuePolicy.DROP_OLDEST:
        options["queue_policy"] = str(item.queue_policy)
    if item.input_timeout is not None:
        options["input_timeout"] = item.input_timeout
    if item.latched:
        options["latched"] = True
    if item.max_rate_hz is not None:
        options["max_rate_hz"] = item.max_rate_hz
    return options
