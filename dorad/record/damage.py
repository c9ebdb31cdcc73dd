"""What a damaged recording lacks: by topic, how many messages, and from when to when."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from dorad.phrases import count_text, moment_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Missing(NamedTuple):
    """Messages that cannot be read; times in ns since 1970."""

    topic: str
    """Empty if unknown."""
    messages: int | None
    """None if unknown."""
    first: int
    last: int
    why: str = ""
    """Empty if bytes of the file are wrong."""

    def __str__(self) -> str:
        whose = f"of {self.topic}" if self.topic else "of unknown topics"
        if self.messages is None:
            what = f"an unknown number of messages {whose}"
        else:
            what = f"{count_text(self.messages, 'message')} {whose}"
        first, last = moment_text(self.first), moment_text(self.last)
        when = f"at {first}" if first == last else f"{first} to {last}"
        return f"{what}, {when}{f': {self.why}' if self.why else ''}"


class Damage:
    """Collects what cannot be read of one recording, each part once however often it is read."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], Missing] = {}
        self._before: list[Missing] = []

    def __bool__(self) -> bool:
        return bool(self._parts or self._before)

    def add(self, offset: int, channel: int, missing: Missing) -> None:
        """Note what a channel lacks because of the damage at byte `offset`."""
        before = self._parts.get((offset, channel))
        # A part of the times may have been read before the whole.
        if before is None or _known(before) < _known(missing):
            self._parts[offset, channel] = missing

    def add_before(self, missing: Missing) -> None:
        """Note what is missing between an earlier part of the recording and this one."""
        self._before.append(missing)

    def missing(self) -> list[Missing]:
        """Return what is missing, an entry for each topic."""
        return summary([*self._before, *self._parts.values()])


def summary(parts: Iterable[Missing]) -> list[Missing]:
    """Return parts as one entry for each topic, by name."""
    by_topic: defaultdict[str, list[Missing]] = defaultdict(list)
    for each in parts:
        by_topic[each.topic].append(each)
    return [
        Missing(
            topic,
            None
            if any(each.messages is None for each in of)
            else sum(each.messages or 0 for each in of),
            min(each.first for each in of),
            max(each.last for each in of),
            "; ".join(dict.fromkeys(each.why for each in of if each.why)),
        )
        for topic, of in sorted(by_topic.items())
    ]


def dropped_in(metadata: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """Return how many messages of each topic the recorder says that it has dropped."""
    return {
        key.removeprefix("dropped."): int(value)
        for key, value in metadata.get("dora.end", {}).items()
        if key.startswith("dropped.") and value.isdecimal() and len(value) < 20
    }


def _known(missing: Missing) -> int:
    return -1 if missing.messages is None else missing.messages
