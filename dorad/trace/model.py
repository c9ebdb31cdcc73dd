"""The messages of a trace, and who received them.

A message is known by its topic and its timestamp. Times are in ns since 1970 unless a name says
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

Outcome = Literal["", "dropped", "failed", "ended"]


class Place(NamedTuple):
    """What feeds one ring of a node: the topic of a message, or a timer."""

    input: str
    topic: str
    tick: bool = False
    local: bool = True
    """Whether the node that sends on the topic records that, too."""
    sync: str = ""
    """The synchronised set of the input."""


class NodePlaces(NamedTuple):
    """What the words in the records of a node stand for: rings and outputs."""

    rings: Mapping[int, Place]
    outputs: Mapping[int, str]
    """The topics by the keys of their outputs; see `dorad.shm.hops.output_key`."""
    passes_on: bool = False
    """Whether the node is done with a message as soon as it has it, as a link is."""


class Receiver(NamedTuple):
    """An input of a node, and the topic that feeds it."""

    topic: str
    node: str
    input: str


class Message(msgspec.Struct, eq=False):
    """One message, or tick, and who received it."""

    topic: str
    stamp: int
    sent: int
    """When it was sent; its timestamp while the record of that is unknown."""
    begun_ns: int
    """When something about it was read first, on the monotonic clock."""
    touched_ns: int
    """When something about it was read last."""
    tick: bool = False
    local: bool = True
    size: int = -1
    """Bytes; -1 while the record of the sending is unknown."""
    cause: Arrival | None = None
    cut: bool = False
    """Whether its cause is known, but belongs to another trace."""
    generation: int = 0
    """How many messages before it in its trace it follows from."""
    context: str = ""
    """The trace context of OpenTelemetry that it carries, see `dorad.control.messages.Span`."""
    root: tuple[str, int] | None = None
    """The key of the first message of its trace, if that was forgotten and others refer to it."""
    arrivals: list[Arrival] = []

    @property
    def key(self) -> tuple[str, int]:
        """What it is known by: topic and timestamp."""
        return self.topic, self.stamp

    @property
    def begins_unknown(self) -> bool:
        """Whether something came before it that no record tells."""
        return self.cut or (self.local and not self.tick and self.size < 0)


class Arrival(msgspec.Struct, eq=False):
    """A message at one input of a node."""

    message: Message
    receiver: Receiver
    thread: int = 0
    at: int = 0
    """When it was received; 0 if that is unknown."""
    free: int = 0
    """When its thread was done with the message before."""
    queued: int = 0
    done: int = 0
    outcome: Outcome = ""
    group: list[Arrival] | None = None
    """The arrivals of its synchronised set."""
    sent: list[Message] = []
    """What the node sent because of it."""

    @property
    def working(self) -> bool:
        """Whether its receiver has not asked for the next message yet."""
        return self.at != 0 and self.done == 0 and not self.outcome

    def wait(self) -> int:
        """Return for how many ns the receiver was busy with something else."""
        return max(0, min(self.free, self.at) - self.message.sent)


def arrival_at(message: Message, receiver: Receiver) -> Arrival:
    """Return the arrival of a message at an input; there is one from now on."""
    for arrival in message.arrivals:
        if arrival.receiver == receiver:
            return arrival
    arrival = Arrival(message, receiver)
    message.arrivals.append(arrival)
    return arrival


class Tree(msgspec.Struct, frozen=True, eq=False):
    """The messages of one trace, each after the one that caused it."""

    messages: list[Message]
    ends: list[Arrival]
    """Receivers after which nobody has received anything."""
    touched_ns: int
    working: bool
    troubled: bool
    """Whether a message was dropped, or a node failed."""
    synchronised: bool
    """Whether others refer to it as parts of a synchronised set."""


def tree_of(first: Message) -> Tree:
    """Return a message and all that followed from it."""
    messages = [first]
    ends = []
    touched_ns, working, troubled, synchronised = 0, False, False, False
    for message in messages:
        if message.touched_ns > touched_ns:
            touched_ns = message.touched_ns
        for arrival in message.arrivals:
            outcome, sent = arrival.outcome, arrival.sent
            if outcome:
                troubled = troubled or outcome != "ended"
            elif not arrival.done and arrival.at:
                working = True
            if arrival.group:
                synchronised = True
            if sent:
                messages += sent
            if outcome != "dropped" and not (sent and _led_on(sent)):
                ends.append(arrival)
    return Tree(messages, ends, touched_ns, working, troubled, synchronised)


def _led_on(sent: list[Message]) -> bool:
    for message in sent:
        for arrival in message.arrivals:
            if arrival.outcome != "dropped":
                return True
    return False


def root_of(message: Message) -> tuple[str, int]:
    """Return the key of the first message of the trace of a message."""
    while message.cause is not None:
        message = message.cause.message
    return message.root or message.key


def forget(tree: Tree) -> None:
    """Free a tree that is not used any more: its parts refer to each other in circles.

    Other trees may refer to its messages as parts of a synchronised set.
    """
    first = tree.messages[0]
    for message in tree.messages:
        message.cause = None
        if tree.synchronised:
            message.root = first.key
            for arrival in message.arrivals:
                arrival.group = None
        message.arrivals.clear()
