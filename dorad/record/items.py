"""What goes into a recorder and what comes out: messages, progress, and how it ended."""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from dorad.record.encoding import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_OVERHEAD = 256
"""Bytes that a queued message takes beside its payload."""


Content = tuple[int, int, int, bytes, bytes] | Encoded
"""Code, length, nulls, payload and metadata as in a ring, or a message that is encoded."""


class Item(NamedTuple):
    """One message on its way into the file."""

    stamp: int
    topic: str
    sequence: int
    content: Content


make_item: Callable[[tuple[int, str, int, Content]], Item] = partial(tuple.__new__, Item)
"""Returns an item of its fields. Calling `Item` takes twice as long, which counts for thousands of
messages a second."""


def size_of(item: Item) -> int:
    """Return how much memory a message takes, roughly."""
    content = item.content
    if isinstance(content, Encoded):
        return content.size + _OVERHEAD
    return len(content[3]) + len(content[4]) + _OVERHEAD


class Progress(NamedTuple):
    """What has been recorded so far; sizes in bytes."""

    messages: int
    bytes: int
    free: int
    dropped: int
    files: int


class Outcome(NamedTuple):
    """How a recording ended."""

    complete: bool
    reason: str
    messages: int
    bytes: int
    paths: tuple[Path, ...]
    """The files, or the folder of a black box."""
    dropped: Mapping[str, int]
    counts: Mapping[str, int]
    closed: bool
    """Whether the last file has its summary."""


stamp_of: Callable[[Item], int] = operator.itemgetter(0)
"""Returns the time of a message, to sort by."""
