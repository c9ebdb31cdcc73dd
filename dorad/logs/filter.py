"""Which log records are shown: `--log-level` and `--log-filter`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dorad.logs.record import LogRecord


@dataclass(frozen=True, slots=True)
class LogFilter:
    """The least severity shown, for all nodes and for some."""

    level: str = "stdout"
    by_node: Mapping[str, str] = field(default_factory=dict)

    def passes(self, record: LogRecord) -> bool:
        """Whether `record` is shown."""
        raise NotImplementedError


def parse_filter(level: str | None, by_node: str | None) -> LogFilter:
    """The filter of `--log-level LEVEL` and `--log-filter node=LEVEL,…`.

    Raises:
        ValueError: one line naming the wrong part and what is accepted.
    """
    raise NotImplementedError
