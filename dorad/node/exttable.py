"""The extension table: opaque values under a namespace and a key, each with an owner node.

`drain` reports dropped values to the nodes that stored or read them. Pure data: the daemon holds
one table per dataflow, a node without a dataflow holds its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from typing import Generic, TypeVar

_Value = TypeVar("_Value", bound=Sized)

MAX_ENTRIES = 8192
"""Maximum number of values in a table."""

MAX_VALUE = 1 << 26
"""Maximum size of a value in bytes."""

MAX_NODE_BYTES = 1 << 27
"""Maximum bytes of all values and names that one node stores."""

MAX_BYTES = 1 << 28
"""Maximum bytes of all values and names in a table."""

MAX_NAME = 1024
"""Maximum number of characters in a namespace or key."""

MAX_DROPPED = 4096
"""Maximum number of undrained keys per node and namespace; older ones are dropped."""

MAX_NODE_DROPPED = 4 * MAX_DROPPED
"""Maximum number of undrained keys per node, over all namespaces."""


class TableError(Exception):
    """The table refuses a value; the text is for the author of the node."""


class _Entry(Generic[_Value]):
    __slots__ = ("owner", "size", "touched", "value")

    def __init__(self, owner: str, value: _Value, size: int, touched: set[str]) -> None:
        self.owner = owner
        self.value = value
        self.size = size
        self.touched = touched


class _DroppedKeys:
    """The dropped keys that one node has not drained yet, by namespace."""

    def __init__(self) -> None:
        self._keys: dict[str, deque[str]] = {}
        self._count = 0

    def add(self, namespace: str, key: str) -> None:
        """Add a key; if there are too many, drop the oldest of the oldest namespace."""
        if self._count == MAX_NODE_DROPPED:
            oldest = next(iter(self._keys))
            self._keys[oldest].popleft()
            self._count -= 1
            if not self._keys[oldest]:
                del self._keys[oldest]
        keys = self._keys.setdefault(namespace, deque())
        keys.append(key)
        if len(keys) > MAX_DROPPED:
            keys.popleft()
        else:
            self._count += 1

    def take(self, namespace: str) -> list[str]:
        """Remove and return the keys of a namespace, oldest first."""
        keys = list(self._keys.pop(namespace, ()))
        self._count -= len(keys)
        return keys


class ExtensionTable(Generic[_Value]):
    """The values of one dataflow."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry[_Value]] = {}
        self._dropped: dict[str, _DroppedKeys] = {}
        self._used: dict[str, int] = {}
        """Bytes that each node has stored."""

    def __len__(self) -> int:
        return len(self._entries)

    def store(self, node: str, namespace: str, key: str, value: _Value) -> None:
        """Store a value until `node` ends; it replaces an older value of the same node.

        Raises:
            TableError: the key is another node's or too long, the value is too large, or the table
                or the node's share of it is full.
        """
        _check_names(namespace, key)
        place = f"extension key {namespace}/{key}"
        if len(value) > MAX_VALUE:
            raise TableError(f"{place}: {len(value)} bytes are more than the {MAX_VALUE} allowed")
        known = self._entries.get((namespace, key))
        if known is not None and known.owner != node:
            raise TableError(f"{place} is owned by node {known.owner!r}; drop it first")
        if known is None and len(self._entries) >= MAX_ENTRIES:
            raise TableError(
                f"{place}: the dataflow's table is full with {MAX_ENTRIES} entries; drop some first"
            )
        size = len(value) + len(namespace.encode()) + len(key.encode())
        more = size - (0 if known is None else known.size)
        used = self._used.get(node, 0) + more
        if used > MAX_NODE_BYTES:
            raise TableError(
                f"{place}: node {node!r} would store {used} bytes, which are more than the "
                f"{MAX_NODE_BYTES} allowed; drop some first"
            )
        if sum(self._used.values()) + more > MAX_BYTES:
            raise TableError(
                f"{place}: the dataflow's table is full with {MAX_BYTES} bytes; drop some first"
            )
        self._used[node] = used
        touched = {node} if known is None else known.touched
        self._entries[namespace, key] = _Entry(node, value, size, touched)

    def load(self, node: str, namespace: str, key: str, *, remove: bool = False) -> _Value | None:
        """Return a value, or None if there is none; `remove` also drops it."""
        entry = self._entries.get((namespace, key))
        if entry is None:
            return None
        entry.touched.add(node)
        if remove:
            self.drop(namespace, key)
        return entry.value

    def drop(self, namespace: str, key: str) -> None:
        """Drop a value of any node; do nothing if there is none."""
        entry = self._entries.pop((namespace, key), None)
        if entry is not None:
            self._used[entry.owner] -= entry.size
            for node in entry.touched:
                self._dropped.setdefault(node, _DroppedKeys()).add(namespace, key)

    def drain(self, node: str, namespace: str) -> list[str]:
        """Return the keys dropped since the last call that the node had stored or read."""
        dropped = self._dropped.get(node)
        return [] if dropped is None else dropped.take(namespace)

    def leave(self, node: str) -> None:
        """Remove a node that has ended: its values and its undrained keys."""
        owned = [place for place, entry in self._entries.items() if entry.owner == node]
        for namespace, key in owned:
            self.drop(namespace, key)
        for entry in self._entries.values():
            entry.touched.discard(node)
        self._dropped.pop(node, None)
        self._used.pop(node, None)


def _check_names(*names: str) -> None:
    for name in names:
        if len(name) > MAX_NAME:
            raise TableError(
                f"a namespace or key of an extension has {len(name)} characters, which are more "
                f"than the {MAX_NAME} allowed"
            )
