"""The interface of the store, which has several engines, and its values.

One counter, the revision, grows by one with every transaction that changes something, and never
falls, not even after a restore. The version of a key is the revision of its last change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dorafleet.store.errors import Code, StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

MAX_OPERATIONS = 128
"""Keys in one transaction: those to compare, and those to put or delete. etcd's default."""

MAX_BYTES = 1 << 20
"""Bytes of all keys and values in one transaction; etcd accepts 1.5 MiB with its overhead."""

MAX_KEY = 512
"""Bytes."""

LEADER = "leader"
"""The key of the leader. Only the leader's own transactions expect its version."""

TERM = "term"
"""The key of the number of the last term."""

MAX_TERM = 1 << 62

LEASE_S = 10.0
"""Seconds without a renewal after which another candidate replaces the leader."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value."""

    key: str
    value: bytes
    version: int
    """The revision of the last change."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Entries as they are at one revision, sorted by key."""

    revision: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of one transaction under the prefix of a watch."""

    revision: int
    values: Mapping[str, bytes | None]
    """New values by key; None for a key that was deleted."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Changes that happen all together, or not at all if one of the versions differs.

    Raises StoreError if it is invalid for any engine.
    """

    compares: Mapping[str, int] = field(default_factory=dict)
    """Expected versions by key; 0 expects that there is no such key."""
    puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: Collection[str] = ()

    def __post_init__(self) -> None:
        for key in (*self.compares, *self.puts, *self.deletes):
            check_key(key)
        if len(set(self.deletes)) != len(self.deletes) or self.puts.keys() & set(self.deletes):
            raise StoreError(Code.REFUSED, "a transaction changes a key twice")
        if max(len(self.compares), len(self.puts) + len(self.deletes)) > MAX_OPERATIONS:
            raise StoreError(Code.TOO_LARGE, f"a transaction has more than {MAX_OPERATIONS} keys")
        size = sum(len(key) + len(value) for key, value in self.puts.items())
        if size > MAX_BYTES:
            message = f"a transaction has {size} bytes; {MAX_BYTES} are allowed"
            raise StoreError(Code.TOO_LARGE, message)


@dataclass(frozen=True, slots=True)
class Term:
    """A time as the leader."""

    epoch: int
    """Its number, one more than that of the term before."""
    version: int
    """Of the leader's key."""
    lost: asyncio.Event
    """Set once another may lead."""

    @property
    def compares(self) -> dict[str, int]:
        """The compares of a transaction that must fail under another leader."""
        return {LEADER: self.version}


async def claim_of(store: Store, name: str) -> tuple[Transaction, int]:
    """Return the transaction that makes `name` the leader of a new term, and the term's number.

    The first term of a store from before terms were counted is above its revision: the numbers of
    its terms were revisions.

    Raises:
        StoreError: the store cannot be read, or the number in it is damaged.
    """
    entries = (await store.get(TERM)).entries
    last = next((entry for entry in entries if entry.key == TERM), None)
    if last is not None:
        number = term_in(last.value, store.name) + 1
    else:
        snapshot = await store.get("", limit=1)
        number = snapshot.revision + 1 if snapshot.entries else 1
    compares = {TERM: 0 if last is None else last.version}
    return Transaction(compares, {LEADER: name.encode(), TERM: str(number).encode()}), number


def term_in(value: bytes, where: str) -> int:
    """Return the number of a term as it is stored. Raises StoreError if it is damaged."""
    if value.isdigit() and 0 < (number := int(value[:20])) < MAX_TERM:
        return number
    raise StoreError(
        Code.DAMAGED, f"`{TERM}` in {where} is damaged: {value[:40]!r}", "restore a backup"
    )


class Store(ABC):
    """A connection to the store. Every method raises StoreError if the engine fails."""

    name: str
    """Where the content is, for people."""
    shared = False
    """Whether coordinators on several machines can use it."""

    @abstractmethod
    async def get(self, prefix: str, *, after: str = "", limit: int | None = None) -> Snapshot:
        """Return the entries whose key starts with `prefix` and sorts after the key `after`."""

    @abstractmethod
    async def commit(self, transaction: Transaction) -> int:
        """Make the changes and return the revision. They are on the disk then.

        Raises:
            ConflictError: a version is not as expected.
        """

    @abstractmethod
    def watch(self, prefix: str, start: int) -> AsyncGenerator[Changes, None]:
        """Yield every change under `prefix` from the revision `start` on, then as they happen.

        Raises:
            CompactedError: changes that it should yield are forgotten.
        """

    @abstractmethod
    async def compact(self, revision: int) -> None:
        """Forget the history up to `revision`. Only watches use the history."""

    @abstractmethod
    def lead(
        self,
        name: str,
        *,
        lease: float = LEASE_S,
        on_waiting: Callable[[str], object] = lambda _: None,
    ) -> AbstractAsyncContextManager[Term]:
        """Wait until no other candidate leads, then lead as `name` until the block ends.

        `on_waiting` gets the reason of each wait.
        """

    @abstractmethod
    async def fill(self, entries: Iterable[Entry], revision: int) -> None:
        """Put the entries of a backup into an empty store and continue above `revision`.

        Raises:
            StoreError: the store is not empty.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release the engine and end all watches."""


def check_key(key: str) -> None:
    """Raise StoreError if no engine takes this key: it must be of printable ASCII, no blanks."""
    if not key or len(key) > MAX_KEY or not all("!" <= each <= "~" for each in key):
        raise StoreError(Code.REFUSED, f"{key[:MAX_KEY]!r} cannot be a key of the store")


def end_of(prefix: str) -> str:
    """Return the first key after all that start with `prefix`, which is not empty."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
