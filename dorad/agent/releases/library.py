"""The interface through which the agent uses the releases on this robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.agent.releases.model import Files


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
