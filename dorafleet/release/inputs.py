"""The inputs of nodes that differ between two releases: with another timer a node runs on.

Manifests do not have inputs, since no process is replaced for them; the dataflow's file has them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import yaml
from msgspec.structs import replace

from dorad.dataflow.params import as_json

if TYPE_CHECKING:
    from dorad.release.changes import Changes
    from dorafleet.release.store import Bundle, Store

_log = logging.getLogger(__name__)


def with_inputs(changes: Changes, before: Bundle, after: Bundle, store: Store) -> Changes:
    """Return changes with those of inputs, if the store has the files of both dataflows."""
    try:
        texts = [store.objects.read(_entry(each)) for each in (before, after)]
    except OSError as error:
        _log.debug("inputs are not compared: %s", error)
        return changes
    old, new = map(inputs_of, texts)
    lines: list[str] = []
    differ = set()
    for node in changes.untouched:
        found = list(_differences(node, old.get(node, {}), new.get(node, {})))
        lines += found
        if found:
            differ.add(node)
    untouched = [node for node in changes.untouched if node not in differ]
    return replace(changes, inputs=lines, untouched=untouched) if lines else changes


def inputs_of(text: bytes) -> dict[str, dict[str, str]]:
    """Return the inputs of each node of a dataflow's file; none of what is not written as usual."""
    try:
        flow = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeError, RecursionError):
        return {}
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
