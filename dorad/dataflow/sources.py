"""Parse the source of an input: another node's output, a timer, or log lines."""

from __future__ import annotations

import math

from dorad.dataflow.errors import TextError
from dorad.dataflow.ids import check_data_id, check_node_id
from dorad.dataflow.model import LogSource, NodeOutput, Source, Timer
from dorad.dataflow.nearest import did_you_mean
from dorad.dataflow.settings import LogLevel
from dorad.phrases import shorten

_UNITS = {"secs": 10**9, "millis": 10**6, "micros": 10**3, "nanos": 1}
_UNIT_NAMES = (*_UNITS, "hz")
_OTHER_NAMES = {"s": "secs", "seconds": "secs", "ms": "millis", "us": "micros", "ns": "nanos"}
_MAX_NS = 2**63 - 1


def parse_source(text: str) -> Source:
    """Read `node/output`, `dora/timer/<unit>/<number>` or `dora/logs[/<level>[/<node>]]`.

    Raises TextError.
    """
    node, slash, rest = text.partition("/")
    if not slash:
        raise TextError(
            f"`{shorten(text)}` is not a source", "write `node/output` or `dora/timer/millis/100`"
        )
    if node != "dora":
        check_node_id(node)
        check_data_id(rest)
        return NodeOutput(node, rest, text)
    kind, *parts = rest.split("/")
    if kind == "timer":
        return Timer(_interval(parts, text), text)
    if kind == "logs":
        return _logs(parts, text)
    raise TextError(
        f"`dora/{shorten(kind)}` does not exist",
        did_you_mean(kind, ("timer", "logs")) or "there are `dora/timer` and `dora/logs`",
    )


def _interval(parts: list[str], text: str) -> int:
    """Return the nanoseconds between two ticks."""
    if len(parts) != 2:
        raise TextError(f"`{shorten(text)}` is not a timer", "write `dora/timer/millis/100`")
    unit, number = parts
    if unit not in _UNIT_NAMES:
        known = _OTHER_NAMES.get(unit.lower())
        hint = f"did you mean `{known}`?" if known else did_you_mean(unit, _UNIT_NAMES)
        raise TextError(
            f"unknown timer unit `{shorten(unit)}`", hint or f"known: {', '.join(_UNIT_NAMES)}"
        )
    nanos = _hertz(number) if unit == "hz" else _whole(number, unit) * _UNITS[unit]
    if nanos > _MAX_NS:
        raise TextError(f"the timer `{shorten(text)}` is longer than 292 years")
    return nanos


def _whole(number: str, unit: str) -> int:
    digits = number.removeprefix("+")
    if digits.isdecimal() and digits.isascii() and len(digits) <= 40:
        if int(digits) == 0:
            raise TextError("a timer needs an interval above 0")
        return int(digits)
    hint = f"a number of {unit}, 1 or more"
    smaller = {"secs": "millis", "millis": "micros", "micros": "nanos"}.get(unit)
    value = _number(number)
    if value is not None and smaller and value > 0 and (value * 1000).is_integer():
        hint = f"write `dora/timer/{smaller}/{int(value * 1000)}`"
    raise TextError(f"`{shorten(number)}` is not a whole number above 0", hint)


def _hertz(number: str) -> int:
    value = _number(number)
    if value is None or value <= 0:
        raise TextError(f"`{shorten(number)}` is not a rate above 0", "write `dora/timer/hz/30`")
    interval = 1e9 / value
    if interval > _MAX_NS:
        raise TextError(f"a timer of {shorten(number)} Hz ticks less than once in 292 years")
    nanos = round(interval)
    if nanos == 0:
        raise TextError(f"{shorten(number)} Hz is faster than one tick per nanosecond")
    return nanos


def _number(text: str) -> float | None:
    """Return a finite decimal number; None for other texts, including those that `float` takes."""
    if not text.isascii() or any(character in text for character in "_ \t\n"):
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _logs(parts: list[str], text: str) -> LogSource:
    if len(parts) > 2:
        raise TextError(f"`{shorten(text)}` is not a log source", "write `dora/logs/info/node`")
    level = None
    if parts and parts[0]:
        try:
            level = LogLevel(parts[0].lower())
        except ValueError:
            raise TextError(
                f"unknown log level `{shorten(parts[0])}`",
                did_you_mean(parts[0], LogLevel) or f"known: {', '.join(LogLevel)}",
            ) from None
    node = parts[1] if len(parts) == 2 and parts[1] else None
    if node is not None:
        check_node_id(node)
    return LogSource(level, node, text)
