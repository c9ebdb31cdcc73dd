"""The inputs of nodes that differ between two releases: with another timer a node runs on.

Manifests do not have inputs, since no process is replaced for them; the dataflow's file has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from msgspec.structs import replace

from dorad.dataflow.params import as_json

if TYPE_CHECKING:
    from dorad.release.changes import Changes
    from dorafleet.release.store import Bundle, Store


def with_inputs(changes: Changes, before: Bundle, after: Bundle, store: Store) -> Changes:
    """Return changes with those of inputs, or with the reason why they cannot be compared."""
    if not changes.uncompared:
        return changes
    flows = []
    for each in (before, after):
        try:
            flows.append(inputs_of(store.objects.read(_entry(each))))
        except OSError as error:
            return replace(changes, uncompared_why=f"the file of {each} is not here: {error}")
        except ValueError as error:
            return replace(changes, uncompared_why=f"the file of {each} is not readable: {error}")
    old, new = flows
    lines: list[str] = []
    same, uncompared = list(changes.untouched), []
    for node in changes.uncompared:
        if node not in old or node not in new:
            uncompared.append(node)
            continue
        differences = list(_differences(node, old[node], new[node]))
        lines += differences
        if not differences:
            same.append(node)
    why = "a module describes them, not the dataflow's file" if uncompared else ""
    return replace(
        changes, inputs=lines, untouched=sorted(same), uncompared=uncompared, uncompared_why=why
    )


def inputs_of(text: bytes) -> dict[str, dict[str, str]]:
    """Return the inputs of each node of a dataflow's file. Raises ValueError."""
    try:
        flow = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    nodes = flow.get("nodes") if isinstance(flow, dict) else None
    return {
        str(node["id"]): dict(_inputs(node))
        for node in (nodes if isinstance(nodes, list) else [])
        if isinstance(node, dict) and "id" in node
    }


def _inputs(node: dict[Any, Any]) -> list[tuple[str, str]]:
    found = _entries("", node)
    operators = node.get("operators")
    single = node.get("operator")
    for each in [single, *(operators if isinstance(operators, list) else [])]:
        if isinstance(each, dict):
            found += _entries(f"{each.get('id', 'op')}/", each)
    return found


def _entries(prefix: str, owner: dict[Any, Any]) -> list[tuple[str, str]]:
    inputs = owner.get("inputs")
    if not isinstance(inputs, dict):
        return []
    return [
        (f"{prefix}{name}", entry if isinstance(entry, str) else as_json(entry).decode())
        for name, entry in inputs.items()
    ]


def _differences(node: str, old: dict[str, str], new: dict[str, str]) -> list[str]:
    lines = []
    for name in sorted({*old, *new}):
        before, after = old.get(name, "none"), new.get(name, "none")
        if before != after:
            lines.append(f"{node}/{name}: {before} → {after}")
    return lines


def _entry(bundle: Bundle) -> Any:
    manifest = bundle.manifest
    return next(file.object for file in manifest.files if file.path == manifest.entry)
