"""Parse TOML text into the same tree of values that `document.py` makes from YAML.

tomllib gives no positions. So the position of a key is looked up in the text, where `[section]` or
`key =` begins a line. Keys that are written in another way, such as dotted ones, have none. Dates
become text.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.dataflow.fields import Fields
from dorad.dataflow.text import read_text
from dorad.dataflow.value import Value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.problems import Problems

_SECTION = re.compile(r"\s*\[\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"\s*([\w-]+)\s*=\s*")
_TWICE = re.compile(r"Cannot (overwrite a value|declare .* twice)")
_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")


class _Position(NamedTuple):
    """The start of a value, then that of its name. Lines and columns count from 1."""

    line: int
    column: int
    name_line: int
    name_column: int


_NOWHERE = _Position(0, 0, 0, 0)


def read_toml(text: str, problems: Problems) -> Value | None:
    """Return the values in `text`; None if it cannot be parsed, which goes to `problems`."""
    try:
        # An error in the last line has a place only if the line ends.
        content = tomllib.loads(text if text.endswith("\n") else f"{text}\n")
    except tomllib.TOMLDecodeError as error:
        words = str(error)
        place = _PLACE.search(words)
        line, column = (0, 0) if place is None else (int(place[1]), int(place[2]))
        message, hint = f"not valid TOML: {_PLACE.sub('', words)}", None
        if _TWICE.match(words):
            message, hint = "a key or a section is given twice", "keep one of them"
        problems.at(line, column, message, hint)
        return None
    return _value(content, "", _Position(1, 1, 1, 1), _positions(text))


def read_section(path: Path, name: str, problems: Problems) -> Fields | None:
    """Return a section of a dorad.toml; None without it, or if the file cannot be read."""
    text = read_text(path, problems, "a configuration of dorad")
    root = None if text is None else read_toml(text, problems)
    return None if root is None else Fields(root, problems).inside(name, "a section")


def _positions(text: str) -> dict[str, _Position]:
    """Return the position of each section and key, by its path."""
    positions: dict[str, _Position] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _SECTION.match(line):
            section = match[1]
            column = match.start(1) + 1
            positions.setdefault(section, _Position(number, column, number, column))
        elif match := _KEY.match(line):
            path = f"{section}.{match[1]}" if section else match[1]
            place = _Position(number, match.end() + 1, number, match.start(1) + 1)
            positions.setdefault(path, place)
    return positions


def _value(data: Any, path: str, position: _Position, positions: Mapping[str, _Position]) -> Value:
    value = Value(None, "", path, *position)
    if isinstance(data, dict):
        paths = {name: f"{path}.{name}" if path else name for name in data}
        value.data = {
            name: _value(child, paths[name], positions.get(paths[name], _NOWHERE), positions)
            for name, child in data.items()
        }
    elif isinstance(data, list):
        value.data = [
            _value(item, f"{path}[{number}]", position, positions)
            for number, item in enumerate(data)
        ]
    else:
        value.text = str(data).lower() if isinstance(data, bool) else str(data)
        value.data = data if isinstance(data, bool | int | float) else value.text
    return value
