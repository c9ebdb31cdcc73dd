"""Build a release: collect, resolve, unpack, sign and keep."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dorad import __version__
from dorad.dataflow.load import load
from dorad.release.machine import numbers, this_machine
from dorad.release.manifest import (
    FORMAT,
    INPUTS_SINCE,
    MAX_MANIFEST,
    Environment,
    File,
    Manifest,
    Name,
    NodeContent,
    Object,
    Package,
    Target,
    encode,
    parse,
)
from dorad.release.objects import CHUNK
from dorad.release.signature import signing_key
from dorafleet.release import completeness, wheels
from dorafleet.release.collection import collect
from dorafleet.release.errors import BuildError
from dorafleet.release.locks import Lock
from dorafleet.release.nodes import node_contents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dorafleet.release.signingkey import SigningKey
    from dorafleet.release.store import Bundle, Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildOptions:
    """How to build."""

    name: str | None = None
    """Of the dataflow; by default that of its file."""
    root: Path | None = None
    """The folder that is released; by default that of the file."""
    lock: Path | None = None
    targets: Sequence[Target] = ()
    wheels: Path | None = None
    """A folder with wheels, instead of the package index."""
    sequence: int | None = None
    min_dorad: str = ".".join(__version__.split(".")[:3])


@dataclass(frozen=True)
class Built:
    """A release that was built."""

    bundle: Bundle
    before: Bundle | None
    """The newest release of the dataflow before it."""
    new: bool
    """False if `before` has the same content, and is returned instead."""
    notes: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    """Files that belong to no node, so that a change of one replaces all nodes."""
    ignored: list[str] = field(default_factory=list)


def build(
    path: Path,
    store: Store,
    key: SigningKey,
    options: BuildOptions,
    on_step: Callable[[str], object] = lambda _: None,
) -> Built:
    """Build the release of the dataflow in the file `path`, sign it, and keep it in `store`.

    Raises:
        BuildError: it cannot be built; the store has no new release.
        DataflowError: the file is not valid.
        OSError: a file cannot be read or written.
    """
    path = path.absolute()
    root = (options.root or path.parent).absolute()
    if not path.is_relative_to(root):
        raise BuildError(f"{path} is not below {root}", "--root must contain the dataflow")
    variables = completeness.Unexpanded()
    dataflow = load(path, environ=variables)
    on_step("collecting files")
    collected = collect(root, path)
    entry = path.relative_to(root).as_posix()
    if entry not in collected.files:
        raise BuildError(f"{entry} itself is ignored", "see .releaseignore")
    notes = completeness.check_programs(dataflow, root, collected.files)
    notes += [f"`${name}` in `env` gets its value on each robot" for name in sorted(variables.used)]
    completeness.check_complete(dataflow, root, collected.files)
    targets = _targets(options, completeness.architectures(collected.files))
    completeness.check_architectures(dataflow, root, collected.files, targets)
    packages, environments = _environments(options, targets, store, on_step)
    on_step("reading files")
    files = [_add(store, name, source) for name, source in collected.files.items()]
    contents = node_contents(dataflow, root, files)
    before = store.newest(name := _name(options, path))
    with_inputs = numbers(options.min_dorad) >= INPUTS_SINCE
    manifest = Manifest(
        format=FORMAT if with_inputs else 1,
        name=name,
        sequence=options.sequence or (1 if before is None else before.manifest.sequence + 1),
        created=int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()),
        min_dorad=options.min_dorad,
        entry=entry,
        targets=targets,
        files=files,
        packages=packages,
        environments=environments,
        nodes=contents.nodes if with_inputs else _in_format_1(contents.nodes),
    )
    rest = (notes, contents.shared, collected.ignored)
    if before is not None and options.sequence is None and _same(before.manifest, manifest):
        return Built(before, before, False, *rest)
    content = encode(manifest)
    _check_size(content, manifest)
    # What a robot would refuse must not be signed.
    parse(content)
    on_step(f"signing with {key}")
    signature = key.sign(content)
    signing_key(content, signature)
    bundle = store.add(content, signature)
    _log.debug("release %s is built", bundle)
    return Built(bundle, before, True, *rest)


def _name(options: BuildOptions, path: Path) -> str:
    name = options.name or (path.stem if path.stem != "dataflow" else path.parent.name)
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        message = f"{name[:100]!r} cannot be the name of a release"
        hint = "give it one with --name: letters, digits, `_`, `-`, `.`"
        raise BuildError(message, hint) from error
    return name


def _targets(options: BuildOptions, compiled: Mapping[str, str]) -> list[Target]:
    """Return the machines that the release is for; none means all."""
    targets = sorted(set(options.targets))
    for target in targets:
        if compiled and target.arch not in compiled:
            arch, file = next(iter(compiled.items()))
            message = f"{file} is compiled for {arch}; nothing is for the target {target}"
            raise BuildError(message, f"compile it for {target.arch}, or leave the target out")
        if options.lock is not None and not target.python:
            raise BuildError(f"the target {target} has no Python", "write it as aarch64:3.13")
    if targets:
        return targets
    if options.lock is not None:
        return [this_machine().target]
    return [Target(arch) for arch in sorted(compiled)]


def _environments(
    options: BuildOptions,
    targets: Sequence[Target],
    store: Store,
    on_step: Callable[[str], object],
) -> tuple[list[Package], list[Environment]]:
    """Return the packages of all targets without duplicates, and the environment of each target."""
    if options.lock is None:
        return [], []
    lock = Lock(options.lock)
    # All of them first: a wheel that is missing is reported before anything is downloaded.
    pins = {target: lock.pins(target) for target in targets}
    packages: dict[str, Package] = {}
    chosen: dict[Target, list[str]] = {}
    for target in targets:
        on_step(f"getting wheels for {target}: {len(pins[target])}")
        with tempfile.TemporaryDirectory(prefix="dorafleet-wheels-") as folder:
            got = wheels.download(pins[target], target, Path(folder), options.wheels)
            for wheel in got:
                if wheel.name not in packages:
                    packages[wheel.name] = wheels.unpack(wheel, store.objects)
            chosen[target] = [wheel.name for wheel in got]
    names = sorted(packages)
    environments = [
        Environment(target, [names.index(name) for name in chosen[target]]) for target in targets
    ]
    return [packages[name] for name in names], environments


def _add(store: Store, name: str, source: Path) -> File:
    """Put a file into the store."""
    executable = os.access(source, os.X_OK)
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            size += len(piece)
    wanted = Object(digest.hexdigest(), size, executable)
    if not store.objects.has(wanted):
        store.objects.add(wanted, source)
    return File(name, *wanted)


def _same(one: Manifest, two: Manifest) -> bool:
    """Return True if two manifests differ in nothing but sequence, date, and inputs in the first.

    The dataflow's files have the inputs, too.
    """
    if one.format == 1:
        two = msgspec.structs.replace(two, format=1, nodes=_in_format_1(two.nodes))
    return msgspec.structs.replace(two, sequence=one.sequence, created=one.created) == one


def _in_format_1(nodes: Mapping[str, NodeContent]) -> dict[str, NodeContent]:
    return {
        name: msgspec.structs.replace(node, inputs=None, place=None) for name, node in nodes.items()
    }


def _check_size(content: bytes, manifest: Manifest) -> None:
    if len(content) > MAX_MANIFEST:
        count = len(manifest.files) + sum(len(each.files) for each in manifest.packages)
        raise BuildError(
            f"the manifest has {len(content) / 1e6:.1f} MB, more than {MAX_MANIFEST / 1e6:.1f}: "
            f"the release has {count} files",
            "use .releaseignore, or build a release for each target",
        )
