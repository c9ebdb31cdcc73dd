"""Whether lines of nodes go to the journal or to files."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import NamedTuple

from dorad.logs.journal.writer import SOCKET


class Choice(NamedTuple):
    """The destination of log lines."""

    journal: bool
    note: str | None = None
    """One line for the operator, if needed."""


def choose(
    wanted: bool | None, environ: Mapping[str, str], *, system: bool, path: str = SOCKET
) -> Choice:
    """Return where log lines go; `wanted` is the configured value, None if not set.

    By default the system's daemon uses the journal if systemd runs it. Without a journal, lines go
    to files.
    """
    by_systemd = bool(environ.get("NOTIFY_SOCKET") or environ.get("JOURNAL_STREAM"))
    if wanted is False or (wanted is None and not (system and by_systemd)):
        return Choice(False)
    why = _missing(path)
    if why is None:
        return Choice(True)
    return Choice(False, f"there is no journal ({path}: {why}), so log lines go to files")


def _missing(path: str) -> str | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        try:
            connection.connect(path)
        except OSError as error:
            return error.strerror or os.strerror(error.errno or 0)
    return None
