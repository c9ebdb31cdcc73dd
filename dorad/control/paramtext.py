"""Parameters of nodes as text for people: for the commands, and for the console."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dorad.terminal import visible_json

if TYPE_CHECKING:
    from dorad.control.messages import Param


def json_text(value: object) -> str:
    """Return a value as JSON on one line in which every character is visible."""
    return visible_json(json.dumps(value, ensure_ascii=False))


def allowed_text(param: Param) -> str:
    """Return which values the declaration of a parameter allows; empty if it has no limits."""
    if param.choices is not None:
        return " ".join(map(json_text, param.choices))
    low, high = param.minimum, param.maximum
    if low is None and high is None:
        return ""
    return f"{_bound(low)}..{_bound(high)}"


def _bound(value: float | None) -> str:
    """Return a bound with all its digits: what is just beyond it is refused."""
    return "" if value is None else json_text(value).removesuffix(".0")
