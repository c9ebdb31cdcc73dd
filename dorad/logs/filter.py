"""Which log records are shown: `--log-level` and `--log-filter`.

A line without a severity counts as `info` when it came on stdout and as `warn` when it came on
stderr: asking for warnings silences the chatter of `print`, but not what libraries and
interpreters complain about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from dorad.logs.record import RAW, LogRecord, parse_level

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = ("error", "warn", "info", "debug", "trace", RAW)
"""From the gravest down; `stdout` shows everything."""

_RANK = {level: rank for rank, level in enumerate(LEVELS)}


class LogFilter(Struct, frozen=True):
    """The least severity shown, for all nodes and for some."""

    level: str = RAW
    by_node: Mapping[str, str] = field(default_factory=dict)

    def passes(self, record: LogRecord) -> bool:
        """Whether `record` is shown."""
        level = record.level
        if level == RAW:
            level = "warn" if record.stream == "stderr" else "info"
        least = self.level if record.node is None else self.by_node.get(record.node, self.level)
        return _RANK[level] <= _RANK[least]


def parse_filter(level: str | None, by_node: str | None) -> LogFilter:
    """The filter of `--log-level LEVEL` and `--log-filter node=LEVEL,…`.

    Raises:
        ValueError: one line naming the wrong part and what is accepted.
    """
    levels: dict[str, str] = {}
    for part in filter(None, map(str.strip, (by_node or "").split(","))):
        node, equals, wanted = part.partition("=")
        if not equals or not node.strip():
            raise ValueError(f"`{part}` is not of the form node=level")
        levels[node.strip()] = _level(wanted.strip())
    return LogFilter(_level(level) if level else RAW, levels)


def _level(text: str) -> str:
    level = parse_level(text)
    if level is None:
        raise ValueError(f"`{text}` is not a log level; there are {', '.join(LEVELS)}")
    return level
