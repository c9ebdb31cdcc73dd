"""Compare the messages of live nodes with the recorded ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.record.compare import Content, Difference, Rules, difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from dorad.record.replay.config import ReplayConfig
    from dorad.record.sources import Message, Recording


class DifferentError(Exception):
    """A message differs from the recorded one."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


class Checker:
    """Takes the messages of live nodes; the n-th of a topic must be the n-th recorded one."""

    def __init__(self, recordings: Sequence[Recording], config: ReplayConfig) -> None:
        self._rules = rules_of(config)
        self._expected: dict[str, Iterator[Message]] = {
            topic: _in_order(recordings, topic, config) for topic in config.checked
        }
        self.counts = dict.fromkeys(config.checked, 0)

    def take(self, topic: str, array: pa.Array, metadata: dict[str, Any]) -> None:
        """Compare the next message of a topic. Raises DifferentError."""
        if topic not in self._expected or self._rules.ignores(topic):
            return
        index = self.counts[topic]
        self.counts[topic] = index + 1
        expected = next(self._expected[topic], None)
        if expected is None:
            raise DifferentError(
                Difference(topic, index, "", "no more messages", f"{len(array)} x {array.type}")
            )
        try:
            content = expected.decode()
        except ValueError as error:
            live = f"{len(array)} x {array.type}"
            raise DifferentError(Difference(topic, index, "", str(error), live)) from error
        wrong = difference(
            topic,
            index,
            Content(content.array, content.metadata),
            Content(array, metadata),
            self._rules,
        )
        if wrong is not None:
            raise DifferentError(wrong)

    def finish(self) -> int:
        """Check that nothing is missing; return the number of compared messages.

        Raises:
            DifferentError: a live node has sent fewer messages.
        """
        for topic, left in self._expected.items():
            if not self._rules.ignores(topic) and (expected := next(left, None)) is not None:
                try:
                    array = expected.decode().array
                    text = f"{len(array)} x {array.type}"
                except ValueError as error:
                    text = str(error)
                raise DifferentError(Difference(topic, self.counts[topic], "", text, "no message"))
        return sum(self.counts.values())


def rules_of(config: ReplayConfig) -> Rules:
    """Return the rules of the comparison."""
    return Rules(config.tolerance, config.tolerances, config.ignore)


def _in_order(
    recordings: Sequence[Recording], topic: str, config: ReplayConfig
) -> Iterator[Message]:
    for each in recordings:
        yield from each.messages(start=config.start, end=config.end, topics=frozenset((topic,)))
