"""The numbers of a channel's messages, by which an edge counts its losses.

Any link process may be killed at any moment, and all of them together. So what they must not forget
is in the headers of the rings, which belong to the daemons:

    number of the next message to take at the sender     = offset + messages taken from the ring
    number of the next message to push at the receiver   = offset + messages pushed into the ring

Taking and pushing move the number by themselves, with one store. The offset changes only when
numbers are missing, and then before the message after them is pushed. So a process that is killed
anywhere in between leaves neither a message uncounted nor one counted twice.

A numbering begins with the sender's ring, and has an id: after a reboot of the sender's machine,
there is another one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dorad.shm.counters import WORD_MASK, lost
from dorad.shm.layout import (
    COUNT_LIMIT,
    RING_NUMBER_BEGIN,
    RING_NUMBER_OFFSET,
    RING_NUMBERING,
)
from dorad.shm.outlet import Outlet


class Mark(NamedTuple):
    """What a ring knows of the numbers of its messages."""

    numbering: int
    """The id, not 0."""
    next: int
    """The number of the next message."""
    lost: int = 0
    """How many messages the ring lacks, since it exists."""


def read_mark(words: memoryview, base: int, moved: int) -> Mark | None:
    """Return the mark of the ring whose header starts at word `base`.

    `moved` is how many messages were pushed into it, or taken from it. Returns None if the ring has
    no mark, or a peer has overwritten it.
    """
    numbering: int = words[base + RING_NUMBERING]
    number = words[base + RING_NUMBER_OFFSET] + moved & WORD_MASK
    if not 0 < numbering < COUNT_LIMIT or number >= COUNT_LIMIT:
        return None
    return Mark(numbering, number, lost(words, base))


def write_mark(words: memoryview, base: int, moved: int, mark: Mark) -> None:
    """Set the mark of a ring. See `read_mark`."""
    offset = mark.next - moved
    # While the numbering stays, only the second store changes anything.
    words[base + RING_NUMBER_BEGIN] = offset - mark.lost & WORD_MASK
    words[base + RING_NUMBER_OFFSET] = offset & WORD_MASK
    words[base + RING_NUMBERING] = mark.numbering


def count_missing(
    outlets: Sequence[Outlet], numbering: int, number: int, begin: int
) -> tuple[Outlet, ...]:
    """Count what the edges lack before a message, and return those that lack the message itself.

    The caller pushes the message to these, at once. `begin` is the first number that counts for an
    edge if no other edge of the output is further.
    """
    marks = [read_mark(each.peer.words, each.base, each.pushed) for each in outlets]
    reached = (mark.next for mark in marks if mark is not None and mark.numbering == numbering)
    begin = max(reached, default=begin)
    lacking = []
    for outlet, mark in zip(outlets, marks, strict=True):
        before = 0 if mark is None else mark.lost
        expected = begin if mark is None or mark.numbering != numbering else mark.next
        if number < expected:
            continue
        now = Mark(numbering, number, before + number - expected)
        write_mark(outlet.peer.words, outlet.base, outlet.pushed, now)
        lacking.append(outlet)
    return tuple(lacking)
