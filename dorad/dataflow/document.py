"""Parse YAML text into a tree of plain values that know their position in the file.

The parser is libyaml; scalars follow the YAML 1.2 core schema (`yes`, `on` and `007` are text),
as in dora's own parser.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from yaml._yaml import CParser
from yaml.error import Mark, MarkedYAMLError, YAMLError
from yaml.nodes import MappingNode, ScalarNode, SequenceNode
from yaml.reader import ReaderError

from dorad.dataflow.value import Value
from dorad.phrases import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yaml.nodes import Node as YamlNode

    from dorad.dataflow.problems import Problems

_INDENT = "check the indentation"
_NO_SPACE = ("no space after this `:`", "write `key: value`")
_KNOWN = (
    ("another document", "a second document starts here", "a dataflow file holds one"),
    ("undefined alias", "an alias (`*name`) without its anchor (`&name`)", "quote a text with `*`"),
    ("second occurrence", "an anchor (`&name`) given twice", None),
    ("expected key", "this does not match the lines above or their indentation", _INDENT),
    ("expected '-'", "this does not match the lines above or their indentation", _INDENT),
    ("mapping values", "a `:` that does not fit here", f"{_INDENT}, or quote the text"),
    ("block sequence entries", "a `-` that does not fit here", "a list starts on its own line"),
    (
        "unknown escape",
        "an unknown escape in the quoted text",
        "use single quotes",
    ),
)


def explain(error: MarkedYAMLError, text: str) -> tuple[int, int, str, str | None]:
    """Return line, column (both from 1, 0 if unknown), message and hint of a syntax error."""
    mark: Mark | None = error.problem_mark or error.context_mark
    problem, context = error.problem or "", error.context or ""
    lines = text.splitlines()
    source = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    at_end = mark is not None and not "\n".join(lines[mark.line :])[mark.column :].strip()
    if "quoted scalar" in context and "end of stream" in problem:
        return *_place(error.context_mark), "the quoted text that starts here never ends", None
    if "\t" in source[: len(source) - len(source.lstrip())]:
        return *_place(mark), "a tab cannot indent in YAML", "use spaces"
    if "expected ':'" in problem:
        if error.context_mark is not None and (place := _unspaced(lines, error.context_mark.line)):
            return *place, *_NO_SPACE
        return *_place(error.context_mark), "a key without its `:`", "write `key: value`"
    if "flow" in context and at_end:
        return *_place(error.context_mark), "the file ends before a `[` or `{` is closed", None
    if "expected ','" in problem:
        return *_place(mark), "a `,` or the closing bracket is missing before this", None
    if problem.startswith("found character that cannot start") and mark is not None:
        character = source[mark.column : mark.column + 1]
        return *_place(mark), f"text cannot start with `{character}`", "put the text in quotes"
    if (
        "mapping values" in problem
        and mark is not None
        and mark.line > 0
        and (place := _unspaced(lines, mark.line - 1))
    ):
        return *place, *_NO_SPACE
    for part, message, hint in _KNOWN:
        if part in problem:
            return *_place(mark), message, hint
    return *_place(mark), f"{problem} {context}".strip() or "cannot be parsed", None


def _unspaced(lines: Sequence[str], index: int) -> tuple[int, int] | None:
    """Return line and column of a `:` that lacks its space, as in `path:x.py`; None if none."""
    match = re.match(r"\s*(?:- *)?[\w-]+:(?=[^\s:/])", lines[index])
    return None if match is None else (index + 1, match.end())


def _place(mark: Mark | None) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)


MAX_DEPTH = 32
MAX_VALUES = 200_000
"""Maximum after the expansion of aliases, so that a few lines cannot become gigabytes."""

_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
_TAG = "tag:yaml.org,2002:"
_TAGGED: dict[str, tuple[type, ...]] = {
    f"{_TAG}null": (type(None),),
    f"{_TAG}bool": (bool,),
    f"{_TAG}int": (int,),
    f"{_TAG}float": (int, float),
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_BASES = {"0x": 16, "0o": 8, "0b": 2}
_MAX_NUMBER_LENGTH = 400


def read_document(
    text: str, problems: Problems, start: str = "a dataflow starts with `nodes:`"
) -> Value | None:
    """Return the one YAML document in `text`; None if there is none or it cannot be parsed.

    `start` is the hint for an empty file. Mistakes go to `problems`: a syntax error ends the
    reading, a duplicate key does not.
    """
    parser: CParser | None = None
    try:
        parser = _Parser(text)
        root = parser.get_single_node()
    except ReaderError as error:
        line, column = _place_of_character(text, error.character)
        problems.at(
            line, column, f"control character {error.character:#04x} is not allowed in YAML"
        )
        return None
    except MarkedYAMLError as error:
        line, column, message, hint = explain(error, text)
        problems.at(line, column, f"not valid YAML: {message}", hint)
        return None
    except YAMLError as error:
        problems.at(0, 0, f"not valid YAML: {' '.join(str(error).split())}")
        return None
    finally:
        if parser is not None:
            parser.dispose()
    if root is None:
        problems.at(1, 1, "the file is empty", start)
        return None
    try:
        return _Tree(problems).value(root, "", root)
    except _TooMuchError as error:
        mark = error.node.start_mark
        problems.at(mark.line + 1, mark.column + 1, str(error))
        return None


class _Parser(CParser):
    """libyaml's parser; the tag of a node is empty unless the file gives one."""

    def resolve(self, kind: type[YamlNode], value: str | None, implicit: object) -> str:
        return ""

    def descend_resolver(self, node: YamlNode | None, index: object) -> None:
        """Do nothing: no tag depends on the path."""

    def ascend_resolver(self) -> None:
        """Do nothing: no tag depends on the path."""


class _TooMuchError(Exception):
    def __init__(self, node: YamlNode, message: str) -> None:
        self.node = node
        super().__init__(message)


class _Tree:
    """A converter of libyaml's nodes to values, with limits on depth and expanded aliases."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._left = MAX_VALUES
        self._open: list[YamlNode] = []
        """The nodes around the present one."""

    def value(self, node: YamlNode, key: str, name: YamlNode) -> Value:
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError(node, f"more than {MAX_VALUES} values once aliases are expanded")
        if len(self._open) > MAX_DEPTH:
            if any(each is node for each in self._open):
                raise _TooMuchError(node, "contains itself, through an alias")
            raise _TooMuchError(node, f"nested more than {MAX_DEPTH} deep")
        start, named = node.start_mark, name.start_mark
        value = Value(
            None, "", key, start.line + 1, start.column + 1, named.line + 1, named.column + 1
        )
        self._open.append(node)
        if isinstance(node, ScalarNode):
            value.text = node.value
            value.data = self._scalar(node, value)
        elif isinstance(node, MappingNode):
            value.data = self._mapping(node, value)
        elif isinstance(node, SequenceNode):
            value.data = [self.value(n, f"{key}[{i}]", n) for i, n in enumerate(node.value)]
        if not isinstance(node, ScalarNode) and node.tag not in ("", f"{_TAG}map", f"{_TAG}seq"):
            self._problems.error(value, f"the tag {node.tag} has no meaning here", "remove it")
        self._open.pop()
        return value

    def _mapping(self, node: MappingNode, owner: Value) -> dict[str, Value]:
        entries: dict[str, Value] = {}
        for name, child in node.value:
            line, column = name.start_mark.line + 1, name.start_mark.column + 1
            if not isinstance(name, ScalarNode):
                self._problems.at(line, column, "a key must be text", key=owner.key)
                continue
            key = f"{owner.key}.{name.value}" if owner.key else name.value
            value = self.value(child, key, name)
            first = entries.get(name.value)
            if first is None:
                entries[name.value] = value
            else:
                self._problems.at(line, column, f"given twice, first {first.where()}", key=key)
        return entries

    def _scalar(self, node: ScalarNode, value: Value) -> bool | int | float | str | None:
        if not node.tag:
            return core_scalar(node.value) if not node.style else str(node.value)
        if node.tag in (f"{_TAG}str", "!"):
            return str(node.value)
        data = core_scalar(node.value)
        kinds = _TAGGED.get(node.tag)
        if kinds is None or type(data) not in kinds:
            self._problems.error(value, f"`{shorten(node.value)}` cannot have the tag {node.tag}")
        return data


def core_scalar(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted scalar in the YAML 1.2 core schema.

    As in dora's parser, a decimal number with a leading zero is text, and `0b` is accepted.
    """
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text[0] not in "+-.0123456789" or len(text) > _MAX_NUMBER_LENGTH:
        return text
    body = text[1:] if text[0] in "+-" else text
    if body.isdecimal() and body.isascii():
        return text if len(body) > 1 and body[0] == "0" else int(text)
    if (base := _BASES.get(body[:2])) and body[2:].isalnum() and body.isascii():
        try:
            return int(text.replace(body, body[2:]), base)
        except ValueError:
            return text
    if body in (".inf", ".Inf", ".INF"):
        return float("-inf") if text[0] == "-" else float("inf")
    if text in (".nan", ".NaN", ".NAN"):
        return float("nan")
    return float(text) if re.fullmatch(_FLOAT, text) else text


def _place_of_character(text: str, code: int) -> tuple[int, int]:
    before = text[: max(text.find(chr(code)), 0)]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
