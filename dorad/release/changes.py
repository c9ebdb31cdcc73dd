"""What differs between two releases, as a function of their manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dorad.int64 import Int64
from dorad.release.machine import Machine, environment_for, needed_objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dorad.release.manifest import Manifest, NodeContent


class Changes(msgspec.Struct, frozen=True):
    """The difference between a release and the one before it, for one machine."""

    added: list[str] = []
    """Nodes that are new."""
    removed: list[str] = []
    """Nodes that are gone."""
    replaced: list[str] = []
    """Nodes whose description, files or environment differ."""
    untouched: list[str] = []
    """Nodes that run on, with the same inputs."""
    uncompared: list[str] = []
    """Nodes that run on, perhaps with other inputs: their manifest does not have them."""
    uncompared_why: str = ""
    files_added: list[str] = []
    files_removed: list[str] = []
    files_changed: list[str] = []
    packages: list[str] = []
    """`numpy 2.2.0 → 2.2.1`, `scipy added`, `scipy removed`."""
    params: list[str] = []
    """`camera/exposure: 10 → 20`."""
    inputs: list[str] = []
    """`camera/tick: dora/timer/hz/10 → dora/timer/hz/20`. Such nodes are replaced, or run on with
    other inputs, and are not in `untouched`."""
    size: Int64 = 0
    """Bytes of the objects that the new one needs and the old one does not have."""

    @property
    def empty(self) -> bool:
        """Whether the two have the same content."""
        return not (self.added or self.removed or self.replaced or self.packages) and not (
            self.files_added
            or self.files_removed
            or self.files_changed
            or self.params
            or self.inputs
        )


def changed_nodes(old: Manifest | None, new: Manifest, machine: Machine) -> Changes:
    """Return what a machine that runs `old` would change for `new`; without `old` all is added."""
    before = {} if old is None else old.nodes
    same_environment = old is not None and _digest(old, machine) == _digest(new, machine)

    def differs(node: str) -> bool:
        one, two = before[node], new.nodes[node]
        if (one.digest, one.python) != (two.digest, two.python):
            return True
        return two.python and not same_environment

    both = [node for node in new.nodes if node in before]
    old_files = {} if old is None else {file.path: file.object for file in old.files}
    new_files = {file.path: file.object for file in new.files}
    present = set() if old is None else set(needed_objects(old, machine))
    same = sorted(node for node in both if not differs(node))
    inputs = [
        line for node in sorted(both) for line in _inputs(node, before[node], new.nodes[node])
    ]
    rewired = {line.partition("/")[0] for line in inputs}
    unknown = set()
    if old is not None and (old.entry != new.entry or _has_other_flow(old_files, new_files)):
        unknown = {node for node in same if None in (before[node].inputs, new.nodes[node].inputs)}
    return Changes(
        added=sorted(set(new.nodes) - set(before)),
        removed=sorted(set(before) - set(new.nodes)),
        replaced=sorted(node for node in both if differs(node)),
        untouched=[node for node in same if node not in unknown | rewired],
        uncompared=sorted(unknown),
        uncompared_why=_WITHOUT_INPUTS if unknown else "",
        inputs=inputs,
        files_added=sorted(new_files.keys() - old_files.keys()),
        files_removed=sorted(old_files.keys() - new_files.keys()),
        files_changed=sorted(
            path
            for path in new_files.keys() & old_files.keys()
            if new_files[path] != old_files[path]
        ),
        packages=_packages(old, new, machine),
        size=sum(each.size for each in needed_objects(new, machine) if each not in present),
    )


_WITHOUT_INPUTS = "one of the two manifests was built for dorad before 0.2.0, and has no inputs"


def _inputs(name: str, old: NodeContent, new: NodeContent) -> Iterator[str]:
    """Yield the inputs of a node that differ, if both manifests have them."""
    if old.inputs is None or new.inputs is None:
        return
    for each in sorted({*old.inputs, *new.inputs}):
        before, after = old.inputs.get(each, "none"), new.inputs.get(each, "none")
        if before != after:
            yield f"{name}/{each}: {before} → {after}"


def _has_other_flow(old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    """Return True if a file differs that may describe nodes: the dataflow's, or one of a module."""
    return any(
        old.get(path) != new.get(path) for path in {*old, *new} if path.endswith((".yml", ".yaml"))
    )


def _digest(manifest: Manifest, machine: Machine) -> frozenset[tuple[str, object]]:
    """Return what a machine's environment contains."""
    environment = environment_for(manifest, machine)
    if environment is None:
        return frozenset()
    return frozenset(
        (file.path, file.object)
        for index in environment.packages
        for file in manifest.packages[index].files
    )


def _packages(old: Manifest | None, new: Manifest, machine: Machine) -> list[str]:
    before = {} if old is None else _versions(old, machine)
    after = _versions(new, machine)
    lines = []
    for name in sorted({*before, *after}):
        one, two = before.get(name), after.get(name)
        if one is None:
            lines.append(f"{name} {two} added")
        elif two is None:
            lines.append(f"{name} {one} removed")
        elif one != two:
            lines.append(f"{name} {one} → {two}")
    return lines


def _versions(manifest: Manifest, machine: Machine) -> dict[str, str]:
    environment = environment_for(manifest, machine)
    if environment is None:
        return {}
    packages = (manifest.packages[index] for index in environment.packages)
    return {package.name: package.version for package in packages}
