"""The content of a greeting: the sender, and the credit of each channel."""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from dorad.link.frames import FrameError

MAX_HELLO = 1 << 20
"""Bytes of a greeting."""


Number16 = Annotated[int, Meta(ge=0, lt=1 << 16)]
Number32 = Annotated[int, Meta(ge=0, lt=1 << 32)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Time = Annotated[int, Meta(ge=0, le=(1 << 62) - 1)]
"""Nanoseconds since 1970, by the clock of the machine that says so."""


class Window(NamedTuple):
    """The maximum number of messages, and of their bytes, in transit or not yet handled."""

    messages: Count
    bytes: Count


class Grant(NamedTuple):
    """One opening of a channel, offered by its receiver.

    `channel` and `opening` are the receiver's numbers for it, and `receiver` is the incarnation of
    its process. The receiver has had all messages
    before `next` of the sender with the incarnation `sender`; None if it has had no message. It
    has handled those before `handled`; the others are `held` bytes.
    """

    channel: Number16
    opening: Number32
    receiver: Count
    window: Window
    sender: Count | None = None
    next: Count = 0
    handled: Count = 0
    held: Count = 0


class Hello(Struct, frozen=True):
    """One greeting.

    `heard` is the incarnation and the number of the other's last greeting, None before the first.
    `answered` tells whether the sender knows that this greeting was heard.
    `grants` are the channels that the sender of the greeting receives, by name; they are complete
    only in greetings that have `heard` one. A sender that is `leaving` no longer receives.
    `sent_ns` is when it was sent; `clock` has that of the other's last greeting, and when this was
    heard here. Earlier versions say neither.
    """

    version: Count
    dataflow: str
    machine: str
    incarnation: Count
    number: Count
    heard: tuple[Count, Count] | None
    answered: bool
    grants: dict[str, Grant]
    leaving: bool = False
    oldest: Count | None = None
    """The oldest version that it speaks beside `version`; None if that is the only one."""
    sent_ns: Time | None = None
    clock: tuple[Time, Time] | None = None


def decode(data: bytes) -> Hello:
    """Return the greeting that `data` is.

    Raises:
        FrameError: it is none.
    """
    if len(data) > MAX_HELLO:
        raise FrameError(f"a greeting of {len(data)} bytes")
    try:
        return msgspec.json.decode(data, type=Hello)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a greeting that cannot be read: {error}") from error
