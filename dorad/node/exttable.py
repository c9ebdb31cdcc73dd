"""The extension table: opaque values under a namespace and a key, each with the node it is of.

Whoever stored or read a value learns of its end from `drain`. Pure: the daemon keeps one for each
dataflow, a node without a dataflow keeps its own.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MAX_ENTRIES = 8192
"""Values that a table holds."""

MAX_VALUE = 1 << 26
"""The size of a value, at most, in bytes."""

MAX_NOTICES = 4096
"""Keys that wait to be drained by a node, for each namespace; older ones are forgotten."""


class TableError(Exception):
    """Something that the table refuses; the text is for the node's author."""


@dataclass(slots=True)
class _Entry:
    owner: str
    value: bytes
    touched: set[str] = field(default_factory=set)


class ExtensionTable:
    """The values of one dataflow."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._notices: dict[tuple[str, str], deque[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def store(self, node: str, namespace: str, key: str, value: bytes) -> None:
        """Keep a value for as long as `node` lives; it replaces the node's own older one.

        Raises:
            TableError: the key is another node's, the table is full, or the value is too large.
        """
        place = f"extension key {namespace}/{key}"
        if len(value) > MAX_VALUE:
            raise TableError(f"{place}: {len(value)} bytes are more than the {MAX_VALUE} allowed")
        known = self._entries.get((namespace, key))
        if known is not None:
            if known.owner != node:
                raise TableError(f"{place} is owned by node {known.owner!r}; drop it first")
            known.value = value
            return
        if len(self._entries) >= MAX_ENTRIES:
            raise TableError(
                f"{place}: the dataflow's table is full with {MAX_ENTRIES} entries; drop some first"
            )
        self._entries[namespace, key] = _Entry(node, value, {node})

    def load(self, node: str, namespace: str, key: str, *, remove: bool = False) -> bytes | None:
        """Return a value, None if there is none, and with `remove` drop it."""
        entry = self._entries.get((namespace, key))
        if entry is None:
            return None
        entry.touched.add(node)
        if remove:
            self.drop(namespace, key)
        return entry.value

    def drop(self, namespace: str, key: str) -> None:
        """Forget a value, whosever it is; it need not be there."""
        entry = self._entries.pop((namespace, key), None)
        if entry is not None:
            for node in entry.touched:
                notices = self._notices.setdefault((node, namespace), deque(maxlen=MAX_NOTICES))
                notices.append(key)

    def drain(self, node: str, namespace: str) -> list[str]:
        """Return which keys that the node stored or read were dropped since it asked last."""
        return list(self._notices.pop((node, namespace), ()))

    def leave(self, node: str) -> None:
        """Forget a node that has ended: its values, and what it has not drained."""
        owned = [place for place, entry in self._entries.items() if entry.owner == node]
        for namespace, key in owned:
            self.drop(namespace, key)
        for entry in self._entries.values():
            entry.touched.discard(node)
        for place in [place for place in self._notices if place[0] == node]:
            del self._notices[place]
