"""What `dorafleet release` shows of releases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.commandline.tables import plain
from dorad.phrases import first_of, size_text
from dorad.terminal import local_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.release.changes import Changes
    from dorad.release.manifest import Target
    from dorafleet.release.store import Bundle

MAX_SHOWN = 20
"""Names in a list for humans."""


def changes_of(before: Bundle, after: Bundle, target: Target | None = None) -> Changes:
    """Return what a machine that runs `before` changes for `after`.

    If `target` names no C library it is the newest one, which runs what was made for any other.
    """
    from dorad.release.changes import changed_nodes
    from dorad.release.machine import NEWEST, Machine, this_machine
    from dorad.release.manifest import Target

    targets = after.manifest.targets
    made = targets[0] if targets and targets[0].python else this_machine().target
    chosen = target or Target(made.arch, made.python)
    machine = Machine(chosen.arch, chosen.python, chosen.glibc or NEWEST)
    return changed_nodes(before.manifest, after.manifest, machine)


def difference(before: Bundle, after: Bundle, target: Target | None = None) -> list[str]:
    """Return the lines that say what changes."""
    changes = changes_of(before, after, target)
    if changes.empty:
        return ["  no difference"]
    parts = [
        ("nodes added", changes.added),
        ("nodes removed", changes.removed),
        ("nodes replaced", changes.replaced),
        ("inputs changed", changes.inputs),
        ("nodes untouched", changes.untouched),
        ("files added", changes.files_added),
        ("files removed", changes.files_removed),
        ("files changed", changes.files_changed),
        ("packages", changes.packages),
    ]
    lines = [f"  {label}: {some(names)}" for label, names in parts if names]
    if changes.uncompared:
        names, why = some(changes.uncompared), changes.uncompared_why
        lines.append(f"  cannot compare inputs of {names}: {why}")
    return [*lines, f"  new content: {size_text(changes.size)}"]


def lines_of(bundle: Bundle) -> list[str]:
    """Describe a release in lines."""
    manifest = bundle.manifest
    targets = "; ".join(map(str, manifest.targets)) or "any machine"
    packages = len(manifest.packages)
    wheels = f", {packages} wheel{'' if packages == 1 else 's'}" if packages else ""
    return [
        str(bundle),
        f"  id {bundle.id}",
        f"  {file_count(bundle)} files{wheels}, {size_text(size_of(bundle))}",
        f"  for {targets}, dorad {manifest.min_dorad} or newer",
        f"  built {date_of(bundle)} from {manifest.entry}",
    ]


def summary(bundle: Bundle) -> dict[str, Any]:
    """Describe a release for `--json`."""
    manifest = bundle.manifest
    return {
        "release": bundle.id,
        "name": manifest.name,
        "sequence": manifest.sequence,
        "created": manifest.created,
        "entry": manifest.entry,
        "min_dorad": manifest.min_dorad,
        "targets": plain(manifest.targets),
        "files": file_count(bundle),
        "bytes": size_of(bundle),
        "packages": [f"{each.name} {each.version}" for each in manifest.packages],
        "nodes": sorted(manifest.nodes),
    }


def file_count(bundle: Bundle) -> int:
    """Return the number of files, for all machines."""
    from dorad.release.manifest import all_files

    return sum(1 for _ in all_files(bundle.manifest))


def size_of(bundle: Bundle) -> int:
    """Return the bytes of all files, each content once."""
    from dorad.release.manifest import all_files

    return sum(size for _, size, _ in {file.object for file in all_files(bundle.manifest)})


def some(names: Sequence[str]) -> str:
    """Return the first names of a list as text."""
    return first_of(names, MAX_SHOWN)


def date_of(bundle: Bundle) -> str:
    """Return when a release was built, in local time."""
    return local_time(bundle.manifest.created, "%Y-%m-%d %H:%M")
