"""Rules for the ids of nodes, inputs and outputs."""

from __future__ import annotations

import string

from dorad.dataflow.errors import TextError
from dorad.dataflow.model import LINK
from dorad.phrases import shorten

MAX_NODE_ID = 200
"""Characters of a node's id: its log files are named after it, and a file's name may have 255."""

_IN_NODE_ID = frozenset(string.ascii_letters + string.digits + "_.-")
_IN_DATA_ID = _IN_NODE_ID | {"/"}


def check_node_id(text: str) -> None:
    """Raise TextError unless `text` is a valid node id."""
    if not text:
        raise TextError("a node id cannot be empty")
    if bad := _first_not_in(_IN_NODE_ID, text):
        raise TextError(
            f"`{shorten(bad)}` is not allowed in the node id `{shorten(text)}`",
            "letters, digits, `_`, `-` and `.`",
        )
    if len(text) > MAX_NODE_ID:
        raise TextError(
            f"the node id `{shorten(text)}` has {len(text)} characters",
            f"at most {MAX_NODE_ID}: log files are named after it",
        )
    if text.startswith("."):
        raise TextError(f"the node id `{text}` starts with a dot", f"write `{text.lstrip('.')}`")
    if text == "dora":
        raise TextError("the node id `dora` is reserved", "`dora/timer` starts with it")
    if text == LINK:
        raise TextError(
            f"the node id `{LINK}` is reserved", "the link between machines is called that"
        )


def check_data_id(text: str) -> None:
    """Raise TextError unless `text` is a valid input or output id."""
    if not text:
        raise TextError("an input or output id cannot be empty")
    if bad := _first_not_in(_IN_DATA_ID, text):
        raise TextError(
            f"`{shorten(bad)}` is not allowed in the id `{shorten(text)}`",
            "letters, digits, `_`, `-`, `.` and `/` between parts",
        )
    if text.startswith("/") or text.endswith("/") or "//" in text:
        raise TextError(f"the id `{text}` has an empty part before, after or between its `/`")


def _first_not_in(allowed: frozenset[str], text: str) -> str | None:
    return next((character for character in text if character not in allowed), None)
