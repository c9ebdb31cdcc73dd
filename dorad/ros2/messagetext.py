"""Message definitions as text, as in schemas `ros2msg` of MCAP files: a type with all it contains.

The text of a `.msg` file, then each nested type behind a line of `=` and one with `MSG: pkg/Name`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from functools import lru_cache
from typing import Any

from dorad.ros2.definitions import DefinitionError, Field, Item, Many, Message, Number, Text
from dorad.ros2.layout import SIZES

_SEPARATOR = "=" * 80
_SECTION = re.compile(r"^=+[ \t]*\r?\nMSG: *(\S+)[ \t]*\r?$", re.MULTILINE)
_TYPE = re.compile(r"([\w/]+?)(?:<=(\d{1,9}))?(\[(?:(<=)?(\d{1,9}))?\])?")
_FIELD = re.compile(r"([A-Za-z]\w*)(\s*=)?")
_NUMBERS = {name: name for name in SIZES} | {"byte": "uint8", "char": "uint8"}
_TEXTS = {"string": False, "wstring": True}
_KNOWN = {
    "builtin_interfaces/Time": "int32 sec\nuint32 nanosec",
    "builtin_interfaces/Duration": "int32 sec\nuint32 nanosec",
}
"""Some programs leave these out."""
_MAX_DEPTH = 32
_MAX_FIELDS = 10_000
"""Fields of a message with those of its nested messages, each as often as it occurs."""


@lru_cache(maxsize=256)
def parse_definition(name: str, text: str) -> Message:
    """Return the message `pkg/msg/Name` that a text defines.

    A default that is not a value of its field is left out: it is not on the wire.

    Raises:
        DefinitionError: the text is not a definition, or lacks a nested type.
    """
    first, *rest = _SECTION.split(text)
    root = _short(name)
    sections = {**_KNOWN, root: first}
    sections |= {_short(each): body for each, body in zip(rest[::2], rest[1::2], strict=True)}
    digest = hashlib.sha256(f"{name}\0{text}".encode("utf-8", "replace")).hexdigest()
    return _Parser(sections, digest).message(root, 0)


class _Parser:
    """Makes the messages of one text."""

    def __init__(self, sections: dict[str, str], digest: str) -> None:
        self._sections = sections
        self._digest = digest
        self._done: dict[str, Message] = {}
        self._sizes: dict[str, int] = {}

    def message(self, name: str, depth: int) -> Message:
        if name in self._done:
            return self._done[name]
        if name not in self._sections:
            raise DefinitionError(f"the definition of {name} is missing")
        if depth > _MAX_DEPTH:
            raise DefinitionError(f"{name} contains itself, or too many types in each other")
        package, _, base = name.rpartition("/")
        lines = (each.partition("#")[0].strip() for each in self._sections[name].splitlines())
        fields = []
        size = 0
        for line in filter(None, lines):
            field = self._field(line, package, depth)
            if field is None:
                continue
            fields.append(field)
            size += self._sizes[_short(field.item.name)] if isinstance(field.item, Message) else 1
            if size > _MAX_FIELDS:
                raise DefinitionError(f"{name} has more than {_MAX_FIELDS} fields")
        if len({each.name for each in fields}) != len(fields):
            raise DefinitionError(f"{name} has two fields of one name")
        full = f"{package}/msg/{base}"
        self._sizes[name] = size + 1
        self._done[name] = Message(full, self._digest, tuple(fields))
        return self._done[name]

    def _field(self, line: str, package: str, depth: int) -> Field | None:
        """Return the field of a line, None for a constant."""
        kind, *rest = line.split(None, 1)
        named = _FIELD.match(rest[0]) if rest else None
        parts = _TYPE.fullmatch(kind)
        if parts is None or named is None:
            raise DefinitionError(f"{line[:80]!r} is not a field")
        if named[2]:
            return None
        base, limit, array, bounded, size = parts.groups()
        many = None
        if array is not None:
            many = Many(int(size or 0), fixed=size is not None and bounded is None)
            if size is not None and not many.size:
                raise DefinitionError(f"{line[:80]!r} has no items")
        item = self._item(base, int(limit or 0), package, depth)
        return Field(named[1], item, many, _default(rest[0][named.end() :].strip(), item, many))

    def _item(self, base: str, limit: int, package: str, depth: int) -> Item:
        if base in _NUMBERS:
            return Number(_NUMBERS[base])
        if base in _TEXTS:
            return Text(_TEXTS[base], limit)
        if "/" not in base and f"{package}/{base}" not in self._sections:
            package = "std_msgs" if base == "Header" else package
        return self.message(_short(base) if "/" in base else f"{package}/{base}", depth + 1)


def _default(text: str, item: Item, many: Many | None) -> Any:
    if not text or isinstance(item, Message):
        return None
    if isinstance(item, Text) and many is None and text[0] not in "\"'":
        return text
    if item == Number("bool"):
        text = text.replace("true", "True").replace("false", "False")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    values = [value] if many is None else value
    fits = isinstance(values, list) and all(_is_value(each, item) for each in values)
    return value if fits else None


def _is_value(value: object, item: Item) -> bool:
    match item:
        case Text():
            return isinstance(value, str)
        case Number("bool"):
            return isinstance(value, bool)
        case Number("float32" | "float64"):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return isinstance(value, int) and not isinstance(value, bool)


def _short(name: str) -> str:
    """Return `pkg/Name` for `pkg/msg/Name`."""
    return name.replace("/msg/", "/")


def definition_text(message: Message) -> str:
    """Return a text that defines a message with the types that it contains, without constants."""
    sections = {message.name: _lines(message)}
    _add_nested(message, sections)
    (_, first), *rest = sections.items()
    return "".join([first, *(f"{_SEPARATOR}\nMSG: {_short(name)}\n{body}" for name, body in rest)])


def _add_nested(message: Message, sections: dict[str, str]) -> None:
    for field in message.fields:
        if isinstance(field.item, Message) and field.item.name not in sections:
            sections[field.item.name] = _lines(field.item)
            _add_nested(field.item, sections)


def _lines(message: Message) -> str:
    return "".join(
        f"{_type_text(each)} {each.name}{_default_text(each)}\n" for each in message.fields
    )


def _default_text(field: Field) -> str:
    if field.default is None:
        return ""
    # As in JSON, which has the words of ROS 2; a `#` would begin a comment.
    return " " + json.dumps(field.default).replace("#", "\\u0023")


def _type_text(field: Field) -> str:
    match field.item:
        case Number(name):
            text = name
        case Text(wide, limit):
            text = ("wstring" if wide else "string") + (f"<={limit}" if limit else "")
        case Message(name):
            text = _short(name)
    match field.many:
        case None:
            return text
        case Many(size, True):
            return f"{text}[{size}]"
        case Many(size):
            return f"{text}[<={size}]" if size else f"{text}[]"
