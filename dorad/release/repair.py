"""Find damaged files in the trees of releases that run, and repair what the objects allow."""

from __future__ import annotations

import filecmp
import logging
import tempfile
from collections.abc import Collection
from pathlib import Path

from dorad.release.disk import link_or_copy, sync_file_system
from dorad.release.errors import ReleaseError
from dorad.release.manifest import Manifest, Object, id_of, own_files
from dorad.release.objects import make_folder
from dorad.release.trees import ENV, Trees, write_environment

Stamp = tuple[int, int, int]
"""Inode, size and time of the last change: equal while nothing has been written to a file."""

MANIFEST = "its manifest"
"""Stands for the manifest among the paths of damaged files."""

_log = logging.getLogger(__name__)


class Repairs:
    """Checks trees again and again. An object is read only if it has changed since the last time.

    Not for several threads at once.
    """

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._known: dict[str, dict[Path, Stamp]] = {}
        """By release: the objects whose content was right."""

    def forget_all_but(self, releases: Collection[str]) -> None:
        """Forget what is known of other releases."""
        self._known = {name: each for name, each in self._known.items() if name in releases}

    def repair(self, release: str) -> list[str]:
        """Repair a tree; return the paths in it whose content must be sent to this robot again.

        A path gets its right content in one step. Processes keep the files that they have open.

        Raises:
            OSError: the tree cannot be read or written.
        """
        manifest = self._manifest(release)
        if manifest is None:
            return [MANIFEST]
        trees = self._trees
        tree = trees.folder / release
        known = self._known.setdefault(release, {})
        lost, repaired = [], []
        for path, file in trees.placed(manifest):
            if not self._is_right(file.object, known):
                lost.append(path)
            elif not _is_same(tree / path, trees.objects.path(file.object)):
                _replace(trees.objects.path(file.object), tree / path)
                repaired.append(path)
        if manifest.has_environments:
            repaired += self._repair_environment(tree / ENV)
        if repaired:
            sync_file_system(trees.folder)
            _log.warning("release %.12s: repaired %s", release, named(repaired))
        return lost

    def _manifest(self, release: str) -> Manifest | None:
        try:
            content, _ = self._trees.read(release)
            return self._trees.manifest(release) if id_of(content) == release else None
        except ReleaseError as error:
            _log.debug("release %.12s: %s", release, error)
            return None

    def _is_right(self, wanted: Object, known: dict[Path, Stamp]) -> bool:
        """Return True if an object has its content; remove it if it has another one."""
        path = self._trees.objects.path(wanted)
        try:
            stamp = _stamp(path)
        except FileNotFoundError:
            return False
        if known.get(path) != stamp:
            known.pop(path, None)
            if not self._trees.objects.check(wanted):
                return False
            known[path] = stamp
        return True

    def _repair_environment(self, folder: Path) -> list[str]:
        """Write again what the robot has made in an environment, and is missing."""
        python = self._trees.machine.python
        missing = [path for path in own_files(python) if not (folder / path).exists()]
        if missing:
            with tempfile.TemporaryDirectory(dir=self._trees.folder, prefix=".env-") as made:
                write_environment(Path(made), python)
                for path in missing:
                    make_folder((folder / path).parent)
                    (Path(made) / path).replace(folder / path)
        return [f"{ENV}/{path}" for path in missing]


def named(paths: list[str]) -> str:
    """Return the first path, and how many more there are."""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return paths[0] + more


def _stamp(path: Path) -> Stamp:
    status = path.lstat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_same(path: Path, right: Path) -> bool:
    """Return True if a file of a tree is the object, or a copy of it."""
    try:
        status, wanted = path.lstat(), right.lstat()
        if status.st_ino == wanted.st_ino:
            return True
        return status.st_size == wanted.st_size and filecmp.cmp(path, right, shallow=False)
    except FileNotFoundError:
        return False


def _replace(source: Path, target: Path) -> None:
    make_folder(target.parent)
    new = target.with_name(".repaired")
    new.unlink(missing_ok=True)
    link_or_copy(source, new)
    new.replace(target)
