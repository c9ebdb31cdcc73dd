"""A store for duplicates of descriptors that have to outlive the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class FdStore(Protocol):
    """Keeps descriptors under names, for the next daemon."""

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Keep duplicates of 1 to 3 descriptors; they replace those of the same name. Never blocks.

        Raises:
            ValueError: `name` has white space in it or is longer than 3000 bytes.
        """

    def drop(self, name: str) -> None:
        """Close the duplicates under this name, if there are any. Never blocks."""


class NoStore:
    """A store that keeps nothing: the descriptors of `dora run` end with it."""

    def store(self, name: str, fds: Sequence[int]) -> None:
        """Do nothing."""

    def drop(self, name: str) -> None:
        """Do nothing."""
