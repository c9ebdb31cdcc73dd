"""What the receiver of a stream allows its sender to have on the way."""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """How many messages, and bytes of them, may be on the way and not yet handled."""

    messages: int
    bytes: int


class Grant(NamedTuple):
    """One opening of a stream, offered by its receiver.

    `stream` and `opening` are the receiver's numbers for it, and `receiver` is the incarnation of
    its process. The receiver has had all messages
    before `next` of the sender with the incarnation `sender`; None if it has had no message. It
    has handled those before `handled`; the others are `held` bytes.
    """

    stream: int
    opening: int
    receiver: int
    window: Window
    sender: int | None = None
    next: int = 0
    handled: int = 0
    held: int = 0
