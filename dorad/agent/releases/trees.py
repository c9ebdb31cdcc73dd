"""The releases on this robot, as trees of verified files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dorad.agent.releases.library import Bundle
from dorad.control.errors import ControlError
from dorad.dataflow.errors import DataflowError
from dorad.release.changes import changed_nodes
from dorad.release.errors import ReleaseError
from dorad.release.repair import Repairs, named

if TYPE_CHECKING:
    from dorad.agent.releases.model import Files
    from dorad.release.trees import Tree, Trees


_log = logging.getLogger(__name__)


class TreeLibrary:
    """Releases in a folder. See `Library`."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._repairs = Repairs(trees)
        self._verified: set[str] = set()
        """Those that were verified since this process started."""
        self._bundles: dict[str, Bundle] = {}

    def files(self, release: str) -> Files:
        """Return how much of a release is here."""
        if release in self._verified:
            return "staged"
        try:
            lacking = bool(self._trees.lacking(self._trees.manifest(release)))
        except ReleaseError as error:
            # `stage` says what is wrong with a manifest that is here.
            lacking = error.code == "missing"
        except OSError as error:
            _log.warning("release %.12s cannot be read: %s", release, error)
            lacking = True
        return "missing" if lacking else "received"

    def stage(self, release: str) -> None:
        """Verify a release, and build its tree of files. Raises ControlError."""
        try:
            self._trees.stage(release, allow_lower=True)
        except ReleaseError as error:
            raise ControlError(
                "refused" if error.refused else "unavailable", error.message, error.hint
            ) from None
        except OSError as error:
            raise ControlError("unavailable", f"{self._trees.folder}: {error.strerror}") from None
        self._verified.add(release)

    def bundle(self, release: str) -> Bundle:
        """Return a release that is staged. Raises ControlError."""
        if release not in self._bundles:
            self._bundles[release] = self._read(release)
        return self._bundles[release]

    def _read(self, release: str) -> Bundle:
        try:
            tree = self._trees.tree(release)
            return _bundle(tree)
        except ReleaseError as error:
            raise ControlError("not-found", error.message, error.hint) from None
        except DataflowError as error:
            text = "; ".join(error.lines[:5])
            raise ControlError("refused", f"its dataflow is not valid here: {text}") from None
        except OSError as error:
            raise ControlError("unavailable", f"{self._trees.folder}: {error.strerror}") from None

    def changed(self, old: str, new: str) -> set[str]:
        """Return the nodes of `new` that differ from those of `old`. Raises ControlError."""
        if old == new:
            return set()
        try:
            before, after = (self._trees.manifest(each) for each in (old, new))
        except ReleaseError as error:
            raise ControlError("not-found", error.message, error.hint) from None
        found = changed_nodes(before, after, self._trees.machine)
        return {*found.added, *found.replaced}

    def repair(self, releases: set[str]) -> dict[str, str]:
        """Repair trees; return by release what must be sent here again. Raises ControlError."""
        self._repairs.forget_all_but(releases)
        found = {}
        for release in releases:
            try:
                lost = self._repairs.repair(release)
            except OSError as error:
                place = error.filename or self._trees.folder
                raise ControlError("unavailable", f"{place}: {error.strerror}") from None
            if lost:
                self._verified.discard(release)
                verb = "is" if len(lost) == 1 else "are"
                found[release] = f"{named(lost)} {verb} damaged or missing"
        return found

    def collect(self, keep: set[str]) -> None:
        """Remove files that neither a release in `keep` nor a recent one needs."""
        try:
            self._trees.collect(keep)
        except ReleaseError as error:
            raise ControlError("busy", error.message, error.hint) from None
        self._verified &= set(self._trees.ids())
        self._bundles = {name: each for name, each in self._bundles.items() if name in keep}


def _bundle(tree: Tree) -> Bundle:
    """Return a tree as the agent uses it. Raises DataflowError."""
    descriptor = tree.descriptor()
    environment = tree.environment
    environments = {}
    if environment is not None:
        env = dict(descriptor.get("env") or {})
        if env.get("VIRTUAL_ENV") == str(environment):
            del env["VIRTUAL_ENV"]
        descriptor["env"] = env
        environments = {
            node: environment for node, each in tree.manifest.nodes.items() if each.python
        }
    return Bundle(
        name=tree.manifest.name,
        sequence=tree.manifest.sequence,
        folder=tree.entry.parent,
        descriptor=descriptor,
        environments=environments,
    )
