"""The log of the daemon's own work, on stderr: down to each decision, if that is asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = ("debug", "info", "warning", "error")

VARIABLE = "DORAD_LOG_LEVEL"
"""Environment variable with the least severity; it overrides a configuration file."""

_DATE = "%Y-%m-%d %H:%M:%S"
_USUAL = logging.Formatter("%(asctime)s %(levelname)s %(message)s", _DATE)
_DEBUG = logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s", _DATE)


class _Formatter(logging.Formatter):
    """Adds milliseconds and the module to debug lines."""

    def format(self, record: logging.LogRecord) -> str:
        return (_USUAL if record.levelno > logging.DEBUG else _DEBUG).format(record)


def level_of(environ: Mapping[str, str]) -> str | None:
    """Return the level that the environment asks for; None if it does not say.

    Raises:
        ValueError: there is no such level; the text says which there are.
    """
    word = environ.get(VARIABLE, "").lower()
    if word and word not in LEVELS:
        raise ValueError(f"{VARIABLE}={word!r}: must be one of {', '.join(LEVELS)}")
    return word or None


def begin(level: str) -> None:
    """Write what dorad logs from this level on to stderr, and warnings of libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("dorad").setLevel(level.upper())
