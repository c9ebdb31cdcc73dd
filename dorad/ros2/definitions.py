"""The message definitions of a ROS 2 installation, from the type descriptions that it installs.

Every package has `share/PACKAGE/{msg,srv,action}/NAME.json`, whether it was written as `.msg` or
`.idl`. It has all nested types and a hash of the whole. Distributions before Iron have none.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PREFIX_PATH = "AMENT_PREFIX_PATH"
KINDS = ("msg", "srv", "action")

_NESTED = 1
_NUMBERS = {
    2: "int8",
    3: "uint8",
    4: "int16",
    5: "uint16",
    6: "int32",
    7: "uint32",
    8: "int64",
    9: "uint64",
    10: "float32",
    11: "float64",
    13: "uint8",  # char
    15: "bool",
    16: "uint8",  # byte
}
_TEXTS = {17: False, 18: True, 21: False, 22: True}
"""Whether a kind of text is one of 16-bit characters."""
_PER_SHAPE = 48
"""Distance of the type numbers of a value, an array of it, a bounded sequence, an unbounded one."""
_PLACEHOLDER = "structure_needs_at_least_one_member"
_MAX_DEPTH = 32


class DefinitionError(Exception):
    """A definition is missing or cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number or `bool`, by its Arrow name."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """A string; `wide` is UTF-16 on the wire, `limit` its maximum length, 0 for any."""

    wide: bool
    limit: int


@dataclass(frozen=True, slots=True)
class Many:
    """A list of `size` items if `fixed`, else of at most `size`, 0 for any number."""

    size: int
    fixed: bool


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message; `default` is None where the definition gives none."""

    name: str
    item: Item
    many: Many | None
    default: Any = None


@dataclass(frozen=True, slots=True)
class Message:
    """One type: `pkg/msg/Name`. A message without fields has one byte on the wire.

    Messages with the same name and hash are equal.
    """

    name: str
    type_hash: str
    fields: tuple[Field, ...] = field(compare=False)


Item = Number | Text | Message


class Definitions:
    """The definitions below some prefixes, read when they are asked for."""

    def __init__(self, prefixes: Sequence[Path]) -> None:
        self._prefixes = tuple(prefixes)
        self._files: dict[Path, dict[str, Message]] = {}

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Definitions:
        """Return those that AMENT_PREFIX_PATH names."""
        path = environ.get(PREFIX_PATH, "")
        return cls([Path(each) for each in path.split(":") if each])

    def message(self, name: str) -> Message:
        """Return the message `pkg/Name`. Raises DefinitionError."""
        package, _, base = name.partition("/")
        return self._one(package, "msg", base, f"{package}/msg/{base}")

    def service(self, name: str) -> tuple[Message, Message]:
        """Return the request and the response of the service `pkg/Name`. Raises DefinitionError."""
        package, _, base = name.partition("/")
        full = f"{package}/srv/{base}"
        return (
            self._one(package, "srv", base, f"{full}_Request"),
            self._one(package, "srv", base, f"{full}_Response"),
        )

    def action(self, name: str) -> tuple[Message, Message, Message]:
        """Return goal, result and feedback of the action `pkg/Name`. Raises DefinitionError."""
        package, _, base = name.partition("/")
        full = f"{package}/action/{base}"
        goal, result, feedback = (
            self._one(package, "action", base, f"{full}_{part}")
            for part in ("Goal", "Result", "Feedback")
        )
        return goal, result, feedback

    def feedback_message(self, name: str) -> Message:
        """Return what the action `pkg/Name` sends as feedback: it, and the id of its goal.

        Raises DefinitionError.
        """
        package, _, base = name.partition("/")
        return self._one(package, "action", base, f"{package}/action/{base}_FeedbackMessage")

    def names(self, kind: str = "msg") -> Iterator[str]:
        """Yield the names of all types of a kind as `pkg/Name`, each once."""
        seen = set()
        for prefix in self._prefixes:
            for file in sorted(prefix.glob(f"share/*/{kind}/*.json")):
                name = f"{file.parts[-3]}/{file.stem}"
                if name not in seen:
                    seen.add(name)
                    yield name

    def _one(self, package: str, kind: str, base: str, full: str) -> Message:
        for prefix in self._prefixes:
            file = prefix / "share" / package / kind / f"{base}.json"
            if file not in self._files and file.is_file():
                self._files[file] = read(file)
            if definition := self._files.get(file, {}).get(full):
                return definition
        raise DefinitionError(self._missing(package, kind, base))

    def _missing(self, package: str, kind: str, base: str) -> str:
        for prefix in self._prefixes:
            folder = prefix / "share" / package
            if any((folder / kind / f"{base}.{each}").is_file() for each in ("msg", "idl")):
                return (
                    f"{folder} has no type descriptions: it is of a distribution before Jazzy,"
                    " which is not supported"
                )
            if folder.is_dir():
                return f"the ROS 2 package {package} has no {kind}/{base}"
        debian = f"ros-DISTRO-{package.replace('_', '-')}"
        return f"the ROS 2 package {package} is not installed (apt install {debian})"


def read(file: Path) -> dict[str, Message]:
    """Return the messages that one type description has, by full name. Raises DefinitionError."""
    try:
        content = json.loads(file.read_bytes())
        top = content["type_description_msg"]
        described = [top["type_description"], *top["referenced_type_descriptions"]]
        fields = {each["type_name"]: each["fields"] for each in described}
        hashes = {each["type_name"]: each["hash_string"] for each in content["type_hashes"]}
        done: dict[str, Message] = {}
        for name in fields:
            _message(name, fields, hashes, done, 0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DefinitionError(f"{file} is not a type description: {error!r}") from error
    return done


def _message(
    name: str,
    fields: Mapping[str, list[dict[str, Any]]],
    hashes: Mapping[str, str],
    done: dict[str, Message],
    depth: int,
) -> Message:
    if name in done:
        return done[name]
    if depth > _MAX_DEPTH:
        raise ValueError(f"{name} contains itself")
    made = []
    for each in fields[name]:
        kind = each["type"]
        shape, number = divmod(kind["type_id"], _PER_SHAPE)
        if number == _NESTED:
            item: Item = _message(kind["nested_type_name"], fields, hashes, done, depth + 1)
        elif number in _NUMBERS:
            item = Number(_NUMBERS[number])
        elif number in _TEXTS:
            item = Text(_TEXTS[number], kind["string_capacity"])
        else:
            raise ValueError(f"{name}.{each['name']} has the type number {number}")
        many = None if shape == 0 else Many(kind["capacity"] if shape < 3 else 0, fixed=shape == 1)
        made.append(Field(each["name"], item, many, _default(each["default_value"], item, many)))
    if [each.name for each in made] == [_PLACEHOLDER]:
        made = []
    done[name] = Message(name, hashes[name], tuple(made))
    return done[name]


def _default(text: str, item: Item, many: Many | None) -> Any:
    if not text:
        return None
    if isinstance(item, Text) and many is None:
        return text
    return ast.literal_eval(text)
