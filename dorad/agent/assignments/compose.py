"""Make the daemon's descriptor from releases: each node runs from one of them. Pure."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from dorad.agent.assignments.files import Bundle
from dorad.agent.assignments.model import Applied, Revision
from dorad.control.errors import ControlError
from dorad.control.messages import Share
from dorad.control.messages.agent import ShareContent
from dorad.control.messages.releases import Group, HealthRules
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.load import from_descriptor
from dorad.dataflow.model import NodeOutput
from dorad.dataflow.settings import RECORD_FOLDER


def applied_after(
    applied: Applied | None, revision: Revision, bundle: Bundle, changed: Mapping[str, set[str]]
) -> Applied:
    """Return a revision with the release whose files each node runs from after a switch to it.

    `changed` are, for each release that nodes run from, the nodes that differ from the new one.
    """
    nodes: dict[str, str] = {}
    for node in nodes_here(bundle.descriptor, revision.group):
        old = None if applied is None else applied.nodes.get(node)
        nodes[node] = revision.release if old is None or node in changed[old] else old
    return Applied(revision, nodes)


def replaced(before: ShareContent | None, after: ShareContent) -> list[str]:
    """Return the nodes that are new or differ in more than their inputs."""
    known = {} if before is None else _by_id(before)
    return [
        name
        for name, node in _by_id(after).items()
        if _plain_node(known.get(name)) != _plain_node(node)
    ]


def _by_id(content: ShareContent) -> dict[str, dict[str, Any]]:
    """Return the nodes of this machine."""
    share, nodes = content.share, content.descriptor["nodes"]
    return {node["id"]: node for node in nodes if share.placement.get(node["id"]) == share.machine}


def _plain_node(node: dict[str, Any] | None) -> dict[str, Any]:
    return {} if node is None else {key: value for key, value in node.items() if key != "inputs"}


def content_of(
    applied: Applied,
    uuid: str,
    machine: str,
    path: Path,
    bundle: Callable[[str], Bundle],
    recordings: Path,
    rules: HealthRules | None = None,
) -> ShareContent:
    """Return the daemon's order for a revision.

    `uuid` is that of the run of a revision that runs here alone. `path` is that of the dataflow's
    file; no node runs there. `recordings` is the folder for what its block `record` records: no
    node can write to a release, and the next one replaces it. The rates of `rules` stay limits for
    alerts after the release is confirmed.

    Raises:
        ControlError: a release is not here, parameters are for a node that does not exist, or the
            group is not one of this machine.
    """
    revision, group = applied.revision, applied.revision.group
    if group is not None:
        _check_group(group, machine, applied)
    descriptor = dict(bundle(revision.release).descriptor)
    default = descriptor.pop("deploy", None) or {}
    # The daemon takes the variables of the dataflow only at its start, those of nodes always.
    env = descriptor.pop("env", None) or {}
    nodes = []
    for entry in descriptor["nodes"]:
        node = dict(entry)
        source = bundle(applied.nodes.get(node["id"], revision.release))
        deploy = dict(node.get("deploy") or default)
        deploy["working_dir"] = str(source.folder / deploy.get("working_dir", ""))
        node["deploy"] = deploy
        environment = source.environments.get(node["id"])
        own = {} if environment is None else {"VIRTUAL_ENV": str(environment)}
        node["env"] = own | env | (node.get("env") or {})
        nodes.append(node)
    descriptor["nodes"] = _with_params(nodes, revision.params)
    if descriptor.get("record"):
        descriptor["record"] = _recorded_to(recordings, descriptor["record"])
        # The recorder, which has no entry in `nodes`: its folder is absolute.
        descriptor["deploy"] = {"working_dir": "/"}
    if group is None:
        share = Share(machine=machine, placement=dict.fromkeys(node_ids(descriptor), machine))
    else:
        uuid, share = group.uuid, group.share
    if rules is not None:
        rules = rules_here(rules, group)
    rates = {} if rules is None else rules.rates | dict.fromkeys(rules.quiet, 0.0)
    share = replace(share, min_rates=rates, tls=None)
    return ShareContent(uuid=uuid, descriptor=descriptor, path=str(path), share=share)


def _check_group(group: Group, machine: str, applied: Applied) -> None:
    """Raise ControlError if this machine cannot take part: before it switches, not after it."""
    if group.share.machine != machine:
        other = group.share.machine
        raise ControlError("refused", f"its share is that of {other}, this robot is {machine}")
    if not applied.nodes:
        raise ControlError("refused", f"none of its nodes is placed on {machine}")
    try:
        UUID(group.uuid)
    except ValueError:
        raise ControlError("refused", f"{group.uuid[:100]!r} is not a UUID") from None


def rules_here(rules: HealthRules, group: Group | None) -> HealthRules:
    """Return the rules for the outputs of this machine: each machine judges its own nodes."""
    if group is None:
        return rules
    placement, machine = group.share.placement, group.share.machine

    def is_here(output: str) -> bool:
        # Of a node that nobody runs, each machine reports that the rate is missing.
        return placement.get(output.partition("/")[0], machine) == machine

    rates = {name: rate for name, rate in rules.rates.items() if is_here(name)}
    return replace(rules, rates=rates, quiet=[name for name in rules.quiet if is_here(name)])


def nodes_here(descriptor: Mapping[str, Any], group: Group | None) -> list[str]:
    """Return the ids of the nodes of a descriptor that this machine runs."""
    ids = node_ids(descriptor)
    if group is None:
        return ids
    return [node for node in ids if group.share.placement.get(node) == group.share.machine]


def sources(content: ShareContent) -> dict[str, set[str]]:
    """Return the nodes that feed each node of a dataflow.

    Raises:
        ControlError: it is not valid.
    """
    try:
        flow = from_descriptor(content.descriptor, path=Path(content.path))
    except DataflowError as error:
        raise ControlError("refused", f"its dataflow is not valid here: {error}") from None
    return {
        node.id: {
            entry.source.node for entry in node.all_inputs if isinstance(entry.source, NodeOutput)
        }
        for node in flow.nodes
    }


def check(content: ShareContent) -> None:
    """Check that the daemon can read the dataflow.

    Raises:
        ControlError: with code `refused` and all problems.
    """
    try:
        from_descriptor(content.descriptor, path=Path(content.path))
    except DataflowError as error:
        lines = "; ".join(error.lines[:5])
        raise ControlError("refused", f"its dataflow is not valid here: {lines}") from None


def node_ids(descriptor: Mapping[str, Any]) -> list[str]:
    """Return the ids of the nodes of a descriptor."""
    return [str(node["id"]) for node in descriptor["nodes"]]


def _recorded_to(folder: Path, block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block `record` whose relative folder is below `folder`; by default it is `folder`.

    It is the same for all releases of a dataflow, so that a black box goes on after a rollout.
    """
    named = block.get("folder") or RECORD_FOLDER
    return {**block, "folder": str(folder if named == RECORD_FOLDER else folder / named)}


def _with_params(nodes: list[dict[str, Any]], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return nodes whose parameters have other defaults: `params` are by `node/name`."""
    by_id = {node["id"]: node for node in nodes}
    for name, value in params.items():
        node_id, _, key = name.partition("/")
        if node_id not in by_id or not key:
            raise ControlError(
                "refused",
                f"there is no node for the parameter {name[:200]!r}",
                "parameters are named `node/name`",
            )
        node = by_id[node_id]
        declared = dict(node.get("params") or {})
        known = declared.get(key)
        declared[key] = {**known, "default": value} if isinstance(known, dict) else _plain(value)
        node["params"] = declared
    return nodes


def _plain(value: Any) -> Any:
    return {"default": value} if isinstance(value, dict) else value
