"""Recover the recordings that a crash has left in a folder, before a new one begins there."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from dorad.record import mcap, mcapread
from dorad.record.recover import RecoveryError, recover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)


def recover_left(folder: Path) -> Iterator[str]:
    """Recover each recording in a folder that has no end; yield a line for people about each."""
    for path in sorted(folder.glob("*.mcap")):
        try:
            if has_summary(path):
                continue
            done = recover(path)
        except RecoveryError as error:
            _log.debug("%s", error)
        except OSError as error:
            yield f"warning: {path} cannot be recovered: {error.strerror}"
        else:
            lost = "" if done.lossless else ", with losses"
            yield f"recovered {path} after a crash: {done.messages} messages{lost}"


def has_summary(path: Path) -> bool:
    """Return True if a file ends as a complete recording does. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - mcap.END_SIZE))
        try:
            return mcapread.read_footer(file.read()).summary_start > 0
        except mcap.McapError:
            return False
