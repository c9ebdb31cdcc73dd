"""The log lines that a reader requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from dorad.logs.filter import LogFilter, parse_filter
from dorad.logs.paths import DAEMON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorad.logrecord import LogRecord, Stream


class Selection(Struct, frozen=True):
    """Conditions on a line; unset ones always hold. Times are in seconds since 1970."""

    nodes: frozenset[str] = frozenset()
    """Empty means all nodes and the daemon; `dora` means the daemon's reports about no node."""
    shown: LogFilter = field(default_factory=LogFilter)
    since: float | None = None
    until: float | None = None
    grep: str | None = None
    """Text within the message, ignoring case."""
    stream: Stream | None = None

    def passes(self, record: LogRecord) -> bool:
        """Return True if `record` is wanted."""
        if self.nodes and (record.node or DAEMON) not in self.nodes:
            return False
        if self.since is not None and record.timestamp < self.since:
            return False
        if self.until is not None and record.timestamp > self.until:
            return False
        if self.stream is not None and record.stream != self.stream:
            return False
        if not self.shown.passes(record):
            return False
        return self.grep is None or self.grep.casefold() in record.message.casefold()


def select(
    nodes: Iterable[str] = (),
    *,
    level: str | None = None,
    by_node: Mapping[str, str] | None = None,
    since: float | None = None,
    until: float | None = None,
    grep: str | None = None,
) -> Selection:
    """Return the selection of these texts. Raises ValueError if a level is unknown."""
    pairs = ",".join(f"{node}={least}" for node, least in (by_node or {}).items())
    shown = parse_filter(level, pairs)
    return Selection(frozenset(nodes), shown, since, until, grep or None)
