"""Set up the log of dorad, or of the agent, on stderr; at level `debug` it has every decision."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = ("debug", "info", "warning", "error")

VARIABLE = "DORAD_LOG_LEVEL"
"""Environment variable with the log level; it overrides the configuration file."""

_DATE = "%Y-%m-%d %H:%M:%S"
_DEFAULT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", _DATE)
_DEBUG = logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", _DATE)


class _Formatter(logging.Formatter):
    """Adds milliseconds and the module to debug lines."""

    def format(self, record: logging.LogRecord) -> str:
        return (_DEFAULT if record.levelno > logging.DEBUG else _DEBUG).format(record)


def level_of(environ: Mapping[str, str]) -> str | None:
    """Return the level that the environment sets, or None.

    Raises:
        ValueError: the level is unknown; the text lists the known ones.
    """
    level = environ.get(VARIABLE, "").lower()
    if level and level not in LEVELS:
        raise ValueError(f"{VARIABLE}={level!r}: must be one of {', '.join(LEVELS)}")
    return level or None


def setup(level: str) -> None:
    """Log to stderr: dorad from this level on, libraries from `warning` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("dorad").setLevel(level.upper())
