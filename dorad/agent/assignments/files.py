"""The files of releases on this robot: as trees that are verified, repaired and collected."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from dorad.agent.assignments.model import Files
from dorad.control.errors import ControlError
from dorad.dataflow.errors import DataflowError
from dorad.release.changes import changed_nodes
from dorad.release.errors import ReleaseError
from dorad.release.repair import Repairs, named
from dorad.release.trees import Tree, Trees

EVERY_S = 30.0
"""Time between two checks of all files."""
DAMAGED_EVERY_S = 3.0
"""The same while files are lost, which may arrive at any moment."""
MAX_LOAD = 0.02
"""Maximum fraction of the time spent on checks."""

_log = logging.getLogger(__name__)


class Bundle(NamedTuple):
    """A release whose files are complete and verified."""

    name: str
    sequence: int
    folder: Path
    """The folder of the dataflow's file, to which its paths are relative."""
    descriptor: dict[str, Any]
    """The dataflow, with modules expanded."""
    environments: dict[str, Path]
    """The Python environment of each node that uses one."""


class Library(Protocol):
    """The releases on this robot. Methods may block."""

    def files(self, release: str) -> Files:
        """Return how complete a release is on this robot."""

    def stage(self, release: str) -> None:
        """Verify a release, and build its tree of files.

        Raises:
            ControlError: with code `refused` if it cannot be used on this robot; with another one
                if it may be tried again.
        """

    def bundle(self, release: str) -> Bundle:
        """Return a release that is staged. Raises ControlError."""

    def changed(self, old: str, new: str) -> set[str]:
        """Return the nodes of `new` that differ from those of `old`. Raises ControlError."""

    def repair(self, releases: set[str]) -> dict[str, str]:
        """Repair the files of releases; return by release what must be sent here again.

        Raises:
            ControlError: the files cannot be read or written.
        """

    def collect(self, keep: set[str]) -> None:
        """Remove all releases except those in `keep` and a few recent ones."""


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
        changes = changed_nodes(before, after, self._trees.machine)
        return {*changes.added, *changes.replaced}

    def repair(self, releases: set[str]) -> dict[str, str]:
        """Repair trees; return by release what must be sent here again. Raises ControlError."""
        self._repairs.forget_all_but(releases)
        damages = {}
        for release in releases:
            try:
                lost = self._repairs.repair(release)
            except OSError as error:
                place = error.filename or self._trees.folder
                raise ControlError("unavailable", f"{place}: {error.strerror}") from None
            if lost:
                self._verified.discard(release)
                verb = "is" if len(lost) == 1 else "are"
                damages[release] = f"{named(lost)} {verb} damaged or missing"
        return damages

    def collect(self, keep: set[str]) -> None:
        """Remove files that neither a release in `keep` nor a recent one needs."""
        try:
            self._trees.collect(keep)
        except ReleaseError as error:
            raise ControlError("busy", error.message, error.hint) from None
        self._verified &= set(self._trees.ids())
        self._bundles = {name: each for name, each in self._bundles.items() if name in keep}


class DamageCheck:
    """Checks the files of the releases in use."""

    def __init__(
        self, library: Library, in_use: Callable[[], set[str]], on_change: Callable[[], None]
    ) -> None:
        """`in_use` returns releases; `on_change` is called when `lost` has changed."""
        self._library = library
        self._in_use = in_use
        self._on_change = on_change
        self.lost: dict[str, str] = {}
        """By release: which files must be sent to this robot again."""

    async def run(self) -> NoReturn:
        """Check until cancelled."""
        while True:
            began = time.monotonic()
            try:
                lost = await asyncio.to_thread(self._library.repair, self._in_use())
            except ControlError as error:
                _log.warning("files of releases cannot be checked: %s", error)
                lost = self.lost
            if lost != self.lost:
                for release, text in lost.items():
                    _log.warning("release %.12s: %s", release, text)
                self.lost = lost
                self._on_change()
            usual = DAMAGED_EVERY_S if lost else EVERY_S
            await asyncio.sleep(max(usual, (time.monotonic() - began) / MAX_LOAD))


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
