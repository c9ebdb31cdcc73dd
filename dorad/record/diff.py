"""Compare two recordings, topic by topic."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from dorad.record.compare import Content, Difference, Rules, difference
from dorad.record.encoding import extras
from dorad.record.mcap.reader import RecordingError

if TYPE_CHECKING:
    from collections.abc import Collection

    from dorad.record.sources import Message, Recording


def differences(
    one: Recording, other: Recording, rules: Rules, topics: Collection[str] | None = None
) -> tuple[list[Difference], int]:
    """Return the first difference of each topic, and the number of messages that were compared.

    Raises:
        RecordingError: neither recording has one of `topics`, they have no topics at all, or a
            message cannot be read.
    """
    counts = one.topics(), other.topics()
    known = sorted(topic for topic in {*counts[0], *counts[1]} if not extras.is_own(topic))
    for topic in topics or ():
        if topic not in known:
            raise RecordingError(f"neither recording has a topic {topic!r}")
    wanted = [topic for topic in known if topics is None or topic in topics]
    if not wanted:
        raise RecordingError("there is nothing to compare: the recordings have no messages")
    wanted = [topic for topic in wanted if not rules.ignores(topic)]
    if not wanted:
        raise RecordingError("there is nothing to compare: every topic is ignored")
    differing, compared = [], 0
    for topic in wanted:
        only = frozenset((topic,))
        pairs = zip_longest(one.messages(topics=only), other.messages(topics=only))
        for index, (left, right) in enumerate(pairs):
            compared += 1
            wrong = _compare(topic, index, left, right, rules)
            if wrong is not None:
                differing.append(wrong)
                break
    return differing, compared


def _compare(
    topic: str, index: int, left: Message | None, right: Message | None, rules: Rules
) -> Difference | None:
    if left is None or right is None:
        return Difference(topic, index, "", _text(left), _text(right))
    try:
        one, other = left.decode(), right.decode()
    except ValueError as error:
        raise RecordingError(f"{topic}, message {index} cannot be compared: {error}") from error
    return difference(
        topic,
        index,
        Content(one.array, one.metadata),
        Content(other.array, other.metadata),
        rules,
    )


def _text(message: Message | None) -> str:
    if message is None:
        return "no message"
    try:
        array = message.decode().array
    except ValueError as error:
        return f"a message that cannot be read: {error}"
    return f"{len(array)} x {array.type}"
