"""Structured log lines on stdout, and a bridge from Python's logging to such lines."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

LEVELS = ("error", "warn", "info", "debug", "trace")
MAX_FIELDS = 60 * 1024
"""Maximum bytes of JSON fields in a line; larger ones are dropped, and the line marks that."""


def line(
    node_id: str,
    level: str,
    message: str,
    target: str | None = None,
    fields: Mapping[str, Any] | None = None,
    *,
    place: tuple[str, int] | None = None,
    now: datetime | None = None,
) -> str:
    """Return one structured log line; an unknown level counts as info.

    `place` is the source file and line of the log call.
    """
    moment = now or datetime.now(UTC)
    record: dict[str, Any] = {
        "timestamp": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": level.lower() if level.lower() in LEVELS else "info",
        "node_id": node_id,
        "message": message,
    }
    if target is not None:
        record["target"] = target
    if place is not None:
        record["file"], record["line"] = place
    if fields:
        if len(json.dumps(fields, default=str)) > MAX_FIELDS:
            record["fields_dropped"] = True
        else:
            record["fields"] = dict(fields)
    return json.dumps(record, default=str, ensure_ascii=False)


def emit(text: str) -> None:
    """Print a whole line at once, even while other threads print."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except RuntimeError:
        # A signal handler interrupted a print of its own thread: the file object refuses it.
        os.write(sys.stdout.fileno(), f"{text}\n".encode(errors="backslashreplace"))


class _Handler(logging.Handler):
    """Prints records of Python's logging as structured lines."""

    def __init__(self, node_id: str, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._node_id = node_id

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            emit(
                line(
                    self._node_id,
                    _level(record.levelno),
                    message,
                    record.name,
                    place=(record.pathname, record.lineno),
                    now=datetime.fromtimestamp(record.created, UTC),
                )
            )
        except Exception:  # noqa: BLE001 - logging's contract: a handler reports its own failures
            self.handleError(record)


def _level(number: int) -> str:
    for level, least in (("error", 40), ("warn", 30), ("info", 20), ("debug", 10)):
        if number >= least:
            return level
    return "trace"


_bridged = False


def bridge(node_id: str) -> None:
    """Make Python's logging print structured lines; further calls do nothing.

    Records from INFO on are shown, unless the node sets a level or a handler. `basicConfig` without
    a level sets level 0 on the root logger, as in dora. It keeps a node's own handlers, stream or
    file.
    """
    global _bridged
    if _bridged:
        return
    _bridged = True
    original = logging.basicConfig

    def basic_config(**options: Any) -> None:
        if not options.keys() & {"handlers", "stream", "filename"}:
            handler = _Handler(node_id, logging.NOTSET if "level" in options else logging.INFO)
            options.setdefault("level", logging.NOTSET)
            if "format" not in options:
                # The line has fields for level, logger and place: the text is the message alone.
                handler.setFormatter(logging.Formatter("%(message)s"))
            options["handlers"] = [handler]
        original(**options)

    logging.basicConfig = basic_config
    root = logging.getLogger()
    if not root.handlers and root.level == logging.WARNING:
        # Logging is not configured. `logging.info` would call `basicConfig` now, but a named
        # logger would not, and its records would be lost.
        root.setLevel(logging.INFO)
        logging.lastResort = _Handler(node_id, logging.INFO)


MARK_TARGET = "dora.mark"
"""The target of the log lines of `mark`, by which recorders know them."""
