"""Environment variables of nodes: texts, expansion of `$NAME`, reserved names."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.phrases import shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.dataflow.problems import Problems
    from dorad.dataflow.value import Value

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_NESTING = 8

_CONTROL = (
    "DORA_NODE_CONFIG",
    "DORA_RUNTIME_CONFIG",
    "DORA_ZENOH_LISTEN",
    "DORA_ZENOH_LISTEN_EXTRA",
    "DORA_ZENOH_CONNECT",
    "DORA_ZENOH_MULTICAST",
    "ZENOH_CONFIG",
    "DORA_ZENOH_CONFIG_OVERLAY",
    "DORA_RUN_PARENT_PID",
    "DORA_AUTH_TOKEN",
    "DORA_ALLOW_SHELL_NODES",
    "CREDENTIALS_DIRECTORY",
)
_LOADER = ("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH")


def is_reserved(name: str) -> bool:
    """Return True for variables of dora and of the dynamic loader: a dataflow cannot set them."""
    return name in _CONTROL or is_loader(name)


def is_loader(name: str) -> bool:
    """Return True if the dynamic loader reads the variable, which could load foreign code."""
    return name in _LOADER or name.startswith("DYLD_")


def read_env(
    value: Value | None, environ: Mapping[str, str] | None, problems: Problems
) -> dict[str, str]:
    """Return the expanded variables of an `env` mapping; drop reserved ones with a warning.

    The tree gets the expanded texts, too, so that the descriptor shows what the nodes see. Without
    `environ` the texts count as expanded already.
    """
    if value is None:
        return {}
    if not isinstance(value.data, dict):
        message = f"must be a mapping of names to values, not {value.describe()}"
        problems.error(value, message, "write `env: {NAME: value}`")
        return {}
    env: dict[str, str] = {}
    for name, item in value.data.items():
        if name == "<<":
            problems.merge_key(item)
        elif not name or any(bad in name for bad in "=\0") or any(map(str.isspace, name)):
            problems.error_in_name(item, f"`{shorten(name)}` is not a valid variable name")
        elif (text := _text(item, environ, problems)) is None:
            continue
        elif is_reserved(name):
            problems.warn(
                item,
                f"`{name}` is reserved and keeps its value",
                "set it where dora is started",
            )
        else:
            env[name] = text
    return env


def _text(item: Value, environ: Mapping[str, str] | None, problems: Problems) -> str | None:
    match item.data:
        case None:
            problems.error(item, "has no value", 'write "" for an empty text')
        case bool() as flag:
            return "true" if flag else "false"
        case int() as number:
            return str(number)
        case float() as number:
            if not math.isfinite(number):  # JSON cannot hold it
                item.data = float_text(number)
            return float_text(number)
        case str() as text:
            try:
                item.data = text if environ is None else expand(text, environ)
            except TextError as error:
                problems.text_error(item, error)
                return None
            if "\0" in item.data:
                problems.error(item, "contains a NUL character")
                return None
            return item.data
        case _:
            problems.error(item, f"must be text, a number, true or false, not {item.describe()}")
    return None


def float_text(number: float) -> str:
    """Return a number as dora passes it to a process: `1.5`, `1` for 1.0, never an exponent."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    digits, _, exponent = repr(abs(number)).partition("e")
    whole, _, part = digits.partition(".")
    shift = int(exponent or "0")
    if shift >= 0:
        part = part.ljust(shift, "0")
        whole, part = whole + part[:shift], part[shift:]
    else:
        whole = whole.rjust(1 - shift, "0")
        whole, part = whole[:shift], whole[shift:] + part
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    sign = "-" if math.copysign(1, number) < 0 else ""
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace `$NAME`, `${NAME}` and `${NAME:-default}`; `$$` is a literal `$`.

    The default replaces only an unset variable (an empty one is set, as in dora), and may contain
    variables itself. A `$` that does not start a name stays.
    Raises TextError for a variable that is not set and has no default.
    """
    return _expand(text, environ, 0)


def escape(text: str) -> str:
    """Return the spelling that `expand` turns into `text`."""
    return text.replace("$", "$$")


def _expand(text: str, environ: Mapping[str, str], depth: int) -> str:
    if "$" not in text:
        return text
    if depth > _MAX_NESTING:
        raise TextError(f"defaults nested more than {_MAX_NESTING} deep")
    done: list[str] = []
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        done.append(text[at:dollar])
        after = text[dollar + 1 : dollar + 2]
        if after == "$":
            done.append("$")
            at = dollar + 2
        elif after == "{":
            end = _closing_brace(text, dollar)
            done.append(_braced(text[dollar + 2 : end], environ, depth))
            at = end + 1
        elif name := _NAME.match(text, dollar + 1):
            done.append(_lookup(name[0], environ))
            at = name.end()
        else:
            done.append("$")
            at = dollar + 1
    done.append(text[at:])
    return "".join(done)


def _closing_brace(text: str, dollar: int) -> int:
    depth = 0
    for at in range(dollar + 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise TextError(
        f"`{shorten(text[dollar:])}` has no closing `}}`", "write `$$` for a dollar sign itself"
    )


def _braced(inside: str, environ: Mapping[str, str], depth: int) -> str:
    name, has_default, default = inside.partition(":-")
    if not _NAME.fullmatch(name):
        raise TextError(
            f"`${{{shorten(inside)}}}` is not a variable",
            "there are `${NAME}` and `${NAME:-default}`; write `$$` for a dollar sign itself",
        )
    if has_default and name not in environ:
        return _expand(default, environ, depth + 1)
    return _lookup(name, environ)


def _lookup(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if value is None:
        raise TextError(
            f"the environment variable `{name}` is not set",
            f"set it, or give a default: `${{{name}:-default}}`",
        )
    return value
