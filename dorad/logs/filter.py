"""Which log records are shown: `--log-level` and `--log-filter`.

A line without a severity counts as `info` if it came on stdout and as `warn` if it came on
stderr: a filter for warnings hides what `print` writes, but not what libraries and interpreters
report.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from dorad.logrecord import RAW, LogRecord
from dorad.logs.record import parse_level

LEVELS = ("error", "warn", "info", "debug", "trace", RAW)
"""Most severe first; `stdout` shows everything."""

_RANK = {level: rank for rank, level in enumerate(LEVELS)}


class LogFilter(Struct, frozen=True):
    """The least severity shown, for all nodes and for some."""

    level: str = RAW
    by_node: Mapping[str, str] = field(default_factory=dict)

    def passes(self, record: LogRecord) -> bool:
        """Return True if `record` is shown."""
        level = record.level
        if level == RAW:
            level = "warn" if record.stream == "stderr" else "info"
        least = self.level if record.node is None else self.by_node.get(record.node, self.level)
        return _RANK[level] <= _RANK[least]


def parse_filter(level: str | None, by_node: str | None) -> LogFilter:
    """Return the filter of `--log-level LEVEL` and `--log-filter node=LEVEL,…`.

    Raises:
        ValueError: one line that names the wrong part and what is accepted.
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
