"""Busy leases of a node: while it holds one, no new release is switched to on its robot."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Protocol

from dorad.node.protocol import ProtocolError

if TYPE_CHECKING:
    from dorad.node.connection import DaemonConnection

MAX_REASON = 200
"""Maximum characters of a reason."""

_log = logging.getLogger(__name__)


class Leases(Protocol):
    """Takes and ends leases of one node."""

    def take(self, reason: str) -> int:
        """Take a lease; return its number. Raises RuntimeError."""

    def end(self, number: int) -> None:
        """End a lease."""


def checked_reason(reason: str) -> str:
    """Return the reason of a lease. Raises ValueError."""
    if not isinstance(reason, str) or not 0 < len(reason) <= MAX_REASON:
        raise ValueError(f"a reason is a text of 1 to {MAX_REASON} characters")
    return reason


class NoLeases:
    """The leases of a node without a daemon: nothing could interrupt it."""

    def take(self, reason: str) -> int:
        """Do nothing."""
        _log.debug("busy without a daemon: %s", reason)
        return 0

    def end(self, number: int) -> None:
        """Do nothing."""


class DaemonLeases:
    """Leases that the daemon keeps for this node's connection."""

    def __init__(self, connection: DaemonConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._known = bool(connection.config.get("leases"))

    def take(self, reason: str) -> int:
        """Take a lease; it holds when this returns."""
        number = next(self._numbers)
        if not self._known:
            _log.warning("this daemon is older than the node and has no leases: %s", reason)
            return 0
        try:
            answer = self._connection.ask("busy", {"lease": number, "reason": reason})
        except (OSError, ProtocolError) as error:
            raise RuntimeError(f"the daemon cannot be reached: {error}") from error
        if answer.kind != "busy_taken":
            raise RuntimeError(answer.text("error"))
        return number

    def end(self, number: int) -> None:
        """End a lease. A daemon that has gone has ended it already."""
        if number:
            self._connection.idle(number)
