"""The parameters of a module: where its texts stand in for a reference, and as variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\{_param\.([A-Za-z0-9_]+)\}|\$(PARAM_[A-Za-z0-9_]+)")


def substitute(text: str, params: Mapping[str, str]) -> str:
    """The text with `${_param.key}` and `$PARAM_KEY` replaced by the parameter's text.

    As in dora 1.x the first form minds upper and lower case, what names no parameter stays, and
    what was put in is not looked at again.
    """
    if "$" not in text or not params:
        return text
    by_variable = variables(params)

    def value(match: re.Match[str]) -> str:
        found = params.get(match[1]) if match[1] else by_variable.get(match[2])
        return match[0] if found is None else found

    return _REFERENCE.sub(value, text)


def variables(params: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that tell a module's nodes its parameters."""
    return {f"PARAM_{name.upper()}": text for name, text in params.items()}
