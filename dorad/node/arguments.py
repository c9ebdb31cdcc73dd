"""Checks of the arguments that programs give to the node API; the errors are of dora's types."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from dorad.node.outputids import well_formed

_MAX_TIMEOUT_S = 2.0**64
"""Longer timeouts are refused, as in dora."""
_FOREVER_S = 1e12


def check(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    """Raise TypeError unless an argument is of a type, or None if it is optional."""
    if not (isinstance(value, kind) or (optional and value is None)):
        wanted = f"{kind.__name__} or None" if optional else f"a {kind.__name__}"
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__}")


def check_node(node_id: str | None, daemon_port: int | None) -> None:
    """Check the arguments of `Node`.

    Raises:
        TypeError: one is of another type.
        OverflowError: the port is not one.
        RuntimeError: no node can have this id.
    """
    check("node_id", node_id, str, optional=True)
    check("daemon_port", daemon_port, int, optional=True)
    if daemon_port is not None and not 0 <= daemon_port < 1 << 16:
        raise OverflowError(f"daemon_port must be from 0 to 65535, got {daemon_port}")
    if node_id is not None and ("/" in node_id or not well_formed(node_id)):
        raise RuntimeError(
            f"invalid node_id {node_id!r}: letters, digits and _ . - are allowed, at least one"
        )


def checked_timeout(timeout: float) -> float:
    """Return a timeout as a float of seconds.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative, not finite, or longer than dora allows.
        OverflowError: it is a whole number that is too large for a float.
    """
    seconds = float(timeout) if math.isfinite(timeout) else -1.0
    if not 0 <= seconds < _MAX_TIMEOUT_S:
        raise ValueError(
            f"invalid timeout of {timeout} seconds: it must be finite, not negative, and less than "
            "2**64; None waits without end"
        )
    return min(seconds, _FOREVER_S)


def check_log(
    level: object, message: object, target: object, fields: Mapping[str, Any] | None
) -> None:
    """Check the arguments of `log`.

    Raises:
        TypeError: one is of another type, or a key of the fields is not a string.
        ValueError: the fields cannot be written as JSON.
    """
    check("level", level, str)
    check("message", message, str)
    check("target", target, str, optional=True)
    check("fields", fields, dict, optional=True)
    if not fields:
        return
    for key in fields:
        check("a key of fields", key, str)
    try:
        json.dumps(fields, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"fields cannot be written as JSON: {error}") from error
