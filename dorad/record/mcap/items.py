"""Messages on their way into a file: as they lay in a queue, or encoded."""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from dorad.record.encoding.messages import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable

_OVERHEAD = 256
"""Bytes that a queued message takes beside its payload."""


Content = tuple[int, int, int, bytes | memoryview, bytes] | Encoded
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


stamp_of: Callable[[Item], int] = operator.itemgetter(0)
"""Returns the time of a message, to sort by."""
