"""The errors of the store; each says whether something may have been written."""

from collections.abc import Mapping
from enum import StrEnum

from dorad.problems import ProblemError


class Code(StrEnum):
    """The kind of an error of the store."""

    UNAVAILABLE = "unavailable"
    """The engine cannot be used now. Nothing was written."""
    UNKNOWN = "unknown"
    """The engine was lost before it answered. The transaction may have been written."""
    CONFLICT = "conflict"
    COMPACTED = "compacted"
    TOO_LARGE = "too-large"
    REFUSED = "refused"
    """The store must not do this with its present content; another attempt does not help."""
    DAMAGED = "damaged"


class StoreError(ProblemError):
    """A request that the store did not carry out."""

    code: Code

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        super().__init__(code, message, hint)


class ConflictError(StoreError):
    """A transaction expected other versions of its keys. Nothing was written."""

    def __init__(self, expected: Mapping[str, int], present: Mapping[str, int]) -> None:
        self.found = {key: present[key] for key in expected if present[key] != expected[key]}
        """The versions of the keys that differ; 0 where there is no such key."""
        changed = ", ".join(
            f"{key} is at version {version}, not {expected[key]}"
            for key, version in self.found.items()
        )
        super().__init__(Code.CONFLICT, changed, "read it again and repeat the change")


class CompactedError(StoreError):
    """A watch starts at a revision whose changes were compacted."""

    def __init__(self, start: int) -> None:
        super().__init__(
            Code.COMPACTED,
            f"the changes from revision {start} on are no longer kept",
            "read everything, then watch from there",
        )


def not_empty(where: str) -> StoreError:
    """Return the error for a restore into a store that has content."""
    return StoreError(
        Code.REFUSED, f"{where} has content already", "a backup is restored into an empty store"
    )
