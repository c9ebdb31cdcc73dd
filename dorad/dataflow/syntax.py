"""libyaml's syntax errors in words for the author of a dataflow."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yaml.error import Mark, MarkedYAMLError

_INDENT = "check the indentation"
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
        return *_place(error.context_mark), "a key without its `:`", "write `key: value`"
    if "flow" in context and at_end:
        return *_place(error.context_mark), "the file ends before a `[` or `{` is closed", None
    if "expected ','" in problem:
        return *_place(mark), "a `,` or the closing bracket is missing before this", None
    if problem.startswith("found character that cannot start") and mark is not None:
        character = source[mark.column : mark.column + 1]
        return *_place(mark), f"text cannot start with `{character}`", "put the text in quotes"
    if "mapping values" in problem and mark is not None and mark.line > 0:
        before = lines[mark.line - 1]
        if match := re.match(r"\s*(?:- *)?[\w-]+:(?=[^\s:/])", before):
            return mark.line, match.end(), "no space after this `:`", "write `key: value`"
    for part, message, hint in _KNOWN:
        if part in problem:
            return *_place(mark), message, hint
    return *_place(mark), f"{problem} {context}".strip() or "cannot be parsed", None


def _place(mark: Mark | None) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
