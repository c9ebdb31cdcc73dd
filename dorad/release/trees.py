"""The releases of a robot: `<folder>/<id>/` is a tree of one, hard-linked to the objects.

    <folder>/objects/      contents of files (`objects.ObjectStore`)
    <folder>/incoming/     incomplete objects
    <folder>/manifests/    manifests that were verified, each with its signature
    <folder>/<id>/         files/ with the dataflow, env/ with its Python packages

A tree has its name only when it is complete and on the disk. Nothing in it changes afterwards.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import sys
import sysconfig
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.atomicfile import sync_folder
from dorad.phrases import size_text
from dorad.release.disk import (
    link_or_copy,
    locked,
    modified,
    read_bounded,
    same_content,
    sync_file_system,
    write_whole,
)
from dorad.release.errors import ReleaseError
from dorad.release.machine import (
    Machine,
    check_machine,
    environment_for,
    needed_files,
    needed_objects,
    this_machine,
)
from dorad.release.manifest import (
    MAX_MANIFEST,
    MAX_SIGNATURE,
    PTH,
    Environment,
    File,
    Manifest,
    Object,
    environment_path,
    id_of,
    own_files,
    parse,
    site_packages,
)
from dorad.release.objects import ObjectStore, make_folder
from dorad.release.signature import Signer, Signers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from dorad.dataflow.model import Dataflow

BASE = Path(getattr(sys, "_base_executable", "") or sys.executable)
"""The interpreter outside of any virtual environment."""


def environment_files(manifest: Manifest, environment: Environment) -> Iterator[tuple[str, File]]:
    """Yield the files of an environment, each with its path in it."""
    for index in environment.packages:
        for file in manifest.packages[index].files:
            yield environment_path(file.path, environment.target.python), file


def write_environment(folder: Path, python: str) -> None:
    """Write what makes `folder` an environment: its configuration and its interpreter.

    Raises:
        OSError: it cannot be written.
    """
    site = folder / site_packages(python)
    for each in (folder / "bin", site):
        each.mkdir(parents=True, exist_ok=True)
    configuration = folder / "pyvenv.cfg"
    configuration.write_text(
        f"home = {BASE.parent}\ninclude-system-site-packages = false\n"
        f"version = {sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}\n"
    )
    configuration.chmod(0o444)
    for path in own_files(python):
        if path.startswith("bin/"):
            (folder / path).symlink_to(BASE)
    pth = site / PTH
    pth.write_text("".join(f"{path}\n" for path in _own_packages()))
    pth.chmod(0o444)


def _own_packages() -> list[str]:
    """Return the folders with the packages of the environment that dorad runs in."""
    paths = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return [path for path in dict.fromkeys(paths) if Path(path).is_dir()]


SYSTEM_FOLDER = Path("/var/lib/dorad/releases")
"""The folder on a robot. The package creates it, for the agent."""
FILES, ENV = "files", "env"
RESERVE = 16 << 20
"""Bytes of the disk that stay free."""
PER_FILE = 4096
"""Bytes of the disk that a file needs beyond its content: its name, its folder."""
LOCK_TIMEOUT_S = 30.0
"""How long a transfer waits for another one."""
RECENT_S = 24 * 3600.0
"""Seconds for which a manifest is kept that no order names yet."""

_ID = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tree:
    """A complete release."""

    id: str
    folder: Path
    manifest: Manifest

    @property
    def entry(self) -> Path:
        """The dataflow's file."""
        return self.folder / FILES / self.manifest.entry

    @property
    def environment(self) -> Path | None:
        """The Python environment of its nodes; None if they use that of dorad."""
        path = self.folder / ENV
        return path if path.is_dir() else None

    def dataflow(self, environ: Mapping[str, str] | None = None) -> Dataflow:
        """Read and check the dataflow. Its Python nodes run in the release's environment.

        `environ` has the values for `$NAME` in `env`; None: those of this process.

        Raises:
            DataflowError: its file is not valid here.
        """
        from dorad.dataflow.load import from_descriptor, load

        flow = load(self.entry, environ=environ)
        if self.environment is None:
            return flow
        descriptor = dict(flow.descriptor)
        descriptor["env"] = {"VIRTUAL_ENV": str(self.environment), **(descriptor.get("env") or {})}
        return from_descriptor(descriptor, path=self.entry)

    def descriptor(self, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what `dataflow.start` needs beside the path `entry`. Raises DataflowError."""
        return dict(self.dataflow(environ).descriptor)


class Trees:
    """The releases in a folder. One process at a time may stage or collect; any may receive."""

    def __init__(
        self,
        folder: Path = SYSTEM_FOLDER,
        signers: Signers | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.folder = folder
        self.objects = ObjectStore(folder)
        self.machine = machine or this_machine()
        self._signers = signers or Signers()
        self._manifests = folder / "manifests"
        self._parsed: dict[str, Manifest] = {}

    def verify(self, content: bytes, signature: bytes) -> tuple[Manifest, Signer]:
        """Return the manifest in `content` and who has signed it; it is for this machine.

        A signer's dates are judged by this machine's clock, or by the manifest's date if the clock
        is behind that: robots without a battery start in 1970.

        Raises:
            ReleaseError: codes `manifest`, `signer` and `machine`.
        """
        manifest = parse(content)
        signer = self._signers.verify(content, signature, max(time.time(), manifest.created))
        check_machine(manifest, self.machine)
        return manifest, signer

    def put_manifest(self, content: bytes, signature: bytes) -> Manifest:
        """Verify a manifest and keep it. Its files may still be missing; see `lacking`.

        Raises:
            ReleaseError: as `verify`.
            OSError: it cannot be written.
        """
        manifest, signer = self.verify(content, signature)
        release = id_of(content)
        _log.debug("release %s of %s, signed by %s", release, manifest.name, signer)
        make_folder(self._manifests)
        # The manifest last: it is complete with its signature.
        write_whole(self._manifests / f"{release}.sig", signature)
        write_whole(self._manifests / release, content)
        return manifest

    def complete(self, content: bytes, signature: bytes) -> None:
        """Remove parts of patches whose objects have arrived another way: all files are here."""
        del content, signature  # `put_manifest` has kept them
        self.objects.forget_partials()

    def manifest(self, release: str) -> Manifest:
        """Return the manifest of a release that was received or staged.

        Raises:
            ReleaseError: code `missing`, or `manifest` if its file is damaged.
        """
        if release not in self._parsed:
            content, _ = self.read(release)
            self._parsed = {release: parse(content), **dict(list(self._parsed.items())[:3])}
        return self._parsed[release]

    def manifests(self) -> list[str]:
        """Return the ids of all releases that were received, complete or not, newest first."""
        try:
            names = [path for path in self._manifests.iterdir() if _ID.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        return [path.name for path in sorted(names, key=modified, reverse=True)]

    def ids(self) -> list[str]:
        """Return the ids of all trees."""
        try:
            return sorted(path.name for path in self.folder.iterdir() if _ID.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def lacking(self, manifest: Manifest) -> list[Object]:
        """Return the objects that this machine needs for a release and does not have."""
        return self.objects.lacking(needed_objects(manifest, self.machine))

    def check_space(self, manifest: Manifest) -> None:
        """Check that the disk has room for what is lacking.

        Raises:
            ReleaseError: code `space`.
        """
        lacking = self.lacking(manifest)
        files = sum(1 for _ in needed_files(manifest, self.machine))
        arrived = sum(min(each.size, self.objects.partial_size(each.sha256)) for each in lacking)
        needed = sum(each.size for each in lacking) - arrived + files * PER_FILE + RESERVE
        disk = os.statvfs(self.folder)
        free = disk.f_bavail * disk.f_frsize
        if needed > free or (disk.f_files and files + len(lacking) > disk.f_favail):
            what = f"{size_text(needed)} needed, {size_text(free)} free"
            if needed <= free:
                what = f"{files + len(lacking)} files, the disk has room for {disk.f_favail}"
            raise ReleaseError("space", f"{self.folder} is too full: {what}", "remove something")

    def stage(self, release: str, *, confirmed: int = 0, allow_lower: bool = False) -> Tree:
        """Build the tree of a release whose files have all arrived, and return it.

        The signature and the content of every file are verified, even if the tree exists already.
        `confirmed` is the highest sequence of its dataflow that was confirmed here.

        Raises:
            ReleaseError: the release is not used, for the reason in `code`.
        """
        content, signature = self.read(release)
        if id_of(content) != release:
            raise ReleaseError(
                "manifest", f"the manifest of {release} was changed", "send it again"
            )
        manifest, _ = self.verify(content, signature)
        if manifest.sequence < confirmed and not allow_lower:
            raise ReleaseError(
                "sequence",
                f"its sequence {manifest.sequence} is below {confirmed}, which was confirmed here",
                "allow it in the order, or build it again",
            )
        needed = needed_objects(manifest, self.machine)
        if lacking := self.objects.lacking(needed):
            size = size_text(sum(each.size for each in lacking))
            message = f"{len(lacking)} of {len(needed)} files have not arrived ({size})"
            raise ReleaseError("missing", message, "dorafleet release push")
        damaged = [each for each in needed if not self.objects.check(each)]
        target = self.folder / release
        if damaged:
            self._remove(target)
            message = f"{len(damaged)} files had another content than the manifest says"
            raise ReleaseError("damaged", message, "they were removed: dorafleet release push")
        tree = Tree(release, target, manifest)
        if target.is_dir() and not self._is_whole(tree):
            _log.warning("release %s has changed since it was staged; it is staged again", release)
            self._remove(target)
        if not target.is_dir():
            self.check_space(manifest)
            try:
                self._make(target, manifest)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                message = f"{self.folder} is full: {error.strerror}"
                raise ReleaseError("space", message, "remove something") from error
        return tree

    def tree(self, release: str) -> Tree:
        """Return the tree of a release that was staged. Raises ReleaseError with code `missing`."""
        folder = self.folder / release
        if not _ID.fullmatch(release) or not folder.is_dir():
            raise ReleaseError("missing", f"release {release[:64]!r} is not ready on this machine")
        return Tree(release, folder, self.manifest(release))

    def collect(self, keep: Collection[str]) -> int:
        """Remove every release that is not in `keep`; return how many bytes were freed.

        `keep` must have all whose files a process still uses. A release that has arrived within the
        last day, or is arriving, stays, too.

        Raises:
            OSError: a folder cannot be removed.
        """
        with self.lock(wait=False):
            recent = time.time() - RECENT_S
            kept = {
                each
                for each in self.manifests()
                if each in keep or recent < modified(self._manifests / each) <= time.time()
            }
            for release in self.ids():
                if release not in keep:
                    _log.info("the tree of release %.12s is removed", release)
                    self._remove(self.folder / release)
            for path in list(self.folder.glob(".*-*")):
                shutil.rmtree(path)
            wanted = {
                each
                for release in kept
                for each in needed_objects(self.manifest(release), self.machine)
            }
            if self._manifests.is_dir():
                for path in list(self._manifests.iterdir()):
                    if path.name.removesuffix(".sig") not in kept:
                        path.unlink()
            if not any(self.lacking(self.manifest(each)) for each in kept):
                self.objects.forget_partials()
            return self.objects.remove_unused(wanted, [self.folder / each for each in self.ids()])

    @contextmanager
    def lock(self, *, wait: bool) -> Iterator[None]:
        """Keep other processes from receiving and collecting in this folder.

        Raises:
            ReleaseError: code `busy`: another has it, for `LOCK_TIMEOUT_S` if `wait`.
        """
        make_folder(self.folder)
        with locked(self.folder / ".lock", LOCK_TIMEOUT_S if wait else 0.0) as mine:
            if not mine:
                message = f"another transfer to {self.folder} is in progress"
                raise ReleaseError("busy", message, "try again later")
            yield

    def read(self, release: str) -> tuple[bytes, bytes]:
        """Return a manifest and its signature as they are on the disk.

        Raises:
            ReleaseError: code `missing`.
        """
        if not _ID.fullmatch(release):
            raise ReleaseError("missing", f"{release[:64]!r} is not the id of a release")
        try:
            content = read_bounded(self._manifests / release, MAX_MANIFEST)
            signature = read_bounded(self._manifests / f"{release}.sig", MAX_SIGNATURE)
        except FileNotFoundError:
            message = f"the manifest of release {release[:12]} has not arrived"
            raise ReleaseError("missing", message, "dorafleet release push") from None
        return content, signature

    def _is_whole(self, tree: Tree) -> bool:
        """Return True if every file of a tree is the object itself, which was verified."""
        try:
            return all(
                same_content(tree.folder / path, self.objects.path(file.object))
                for path, file in self.placed(tree.manifest)
            )
        except FileNotFoundError:
            return False

    def placed(self, manifest: Manifest) -> Iterator[tuple[str, File]]:
        """Yield the files for this machine, each with its path in the tree."""
        for file in manifest.files:
            yield f"{FILES}/{file.path}", file
        environment = environment_for(manifest, self.machine)
        if environment is not None:
            for path, file in environment_files(manifest, environment):
                yield f"{ENV}/{path}", file

    def _make(self, target: Path, manifest: Manifest) -> None:
        """Build a tree beside its place, put it on the disk, and give it its name."""
        new = target.with_name(f".new-{target.name}")
        shutil.rmtree(new, ignore_errors=True)
        try:
            plan = _Links(new, self.objects)
            for path, file in self.placed(manifest):
                plan.link(path, file)
            if manifest.has_environments:
                write_environment(new / ENV, self.machine.python)
            for folder, _, _ in os.walk(new):
                Path(folder).chmod(0o755)
            sync_file_system(self.folder)
            new.rename(target)
            sync_folder(self.folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        _log.info("release %s of %s is ready", target.name, manifest.name)

    def _remove(self, folder: Path) -> None:
        """Remove a tree so that a half-removed one never has its name."""
        if folder.is_dir():
            old = folder.with_name(f".old-{folder.name}")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            shutil.rmtree(old)


@dataclass
class _Links:
    """Makes the hard links of a tree, and the folders for them."""

    root: Path
    objects: ObjectStore
    _made: set[str] = field(default_factory=set)

    def link(self, path: str, file: File) -> None:
        folder = path.rpartition("/")[0]
        if folder not in self._made:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            self._made.add(folder)
        link_or_copy(self.objects.path(file.object), self.root / path)
