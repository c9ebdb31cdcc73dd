"""Bad values for a YAML file: each entry twice, each number as another one, at their places.

A sample of the format is enough: the places come from its tree, and `asked` says which keys its
readers know, so that a test can compare.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from dorad.dataflow.fields import Fields
from dorad.dataflow.value import Value

NUMBERS = {
    "zero": "0",
    "negative": "-1",
    "huge": "1" + "0" * 30,
    "infinite": ".inf",
    "not a number": ".nan",
    "text": '"many"',
}
"""What is put in place of a number."""

_NUMBER = re.compile(r"\d[\d.]*\s?[A-Za-z%]{0,2}")


class Change(NamedTuple):
    """A file with one bad value."""

    place: str
    """Its path without indices, such as `nodes[].resources.tasks_max`."""
    what: str
    """`twice`, or the name of a number."""
    text: str
    """The whole file."""
    lines: tuple[int, ...]
    """Where a message about it may point at."""


def changes(text: str) -> Iterator[Change]:
    """Yield the file with each entry of a mapping or list given twice, and with each bad number."""
    yield from _within(text, yaml.compose(text, Loader=yaml.SafeLoader), "")


def _within(text: str, node: Node, place: str) -> Iterator[Change]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            path = f"{place}.{key.value}".removeprefix(".")
            yield _twice(text, node, key, value, path)
            yield from _within(text, value, path)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            yield _twice(text, node, item, item, f"{place}[]")
            yield from _within(text, item, f"{place}[]")
    elif isinstance(node, ScalarNode) and _NUMBER.fullmatch(node.value):
        start, end = node.start_mark, node.end_mark
        for what, number in NUMBERS.items():
            changed = text[: start.index] + number + text[end.index :]
            yield Change(place, what, changed, (start.line + 1,))


def _twice(text: str, owner: Node, first: Node, last: Node, place: str) -> Change:
    start, end = first.start_mark, last.end_mark
    copy = text[start.index : end.index].rstrip()
    if owner.flow_style:
        between = ", "
    else:
        dash = isinstance(owner, SequenceNode)
        between = "\n" + " " * (start.column - 2 * dash) + "- " * dash
    second = start.line + 1 + (copy + between).count("\n")
    lines = range(start.line + 1, second + copy.count("\n") + 1)
    return Change(
        place, "twice", text[: start.index] + copy + between + text[start.index :], tuple(lines)
    )


@contextmanager
def asked() -> Iterator[dict[str, set[str]]]:
    """Collect which keys readers ask for, by the path of their mapping without indices."""
    keys: dict[str, set[str]] = {}
    finish = Fields.finish

    def collect(self: Fields, *args: object, **options: object) -> set[str]:
        path = re.sub(r"\[\d+\]", "[]", self.owner.key)
        if isinstance(self.owner, Value) and isinstance(self.owner.data, dict):
            keys.setdefault(path, set()).update(
                f"{path}.{key}".removeprefix(".") for key in self._asked
            )
        return finish(self, *args, **options)  # type: ignore[arg-type]

    with mock.patch.object(Fields, "finish", collect):
        yield keys


def given(text: str) -> set[str]:
    """Return the path of each key in a file, without indices."""
    return {change.place for change in changes(text) if not change.place.endswith("[]")}
