"""Set up the log of dorad, or of the agent, on stderr; at level `debug` it has every decision."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dorad.terminal import visible_lines

LEVELS = ("debug", "info", "warning", "error")

VARIABLE = "DORAD_LOG_LEVEL"
"""Environment variable with the log level; it overrides the configuration file."""

_DATE = "%Y-%m-%d %H:%M:%S"


class VisibleFormatter(logging.Formatter):
    """Escapes control characters, and indents all lines of a message but the first.

    Texts of nodes and robots are in many messages: they forge no line, and control no terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return visible_lines(super().format(record), indent="    ")


_DEFAULT = VisibleFormatter("%(asctime)s %(levelname)s %(message)s", _DATE)
_DEBUG = VisibleFormatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", _DATE)


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
