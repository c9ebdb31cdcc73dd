"""The method `logs.read`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dorad.daemon.logreads import read_logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dorad.control import messages as m
    from dorad.control.server import Call
    from dorad.daemon.registry import Registry


class LogMethods:
    """Log lines of dataflows, running or ended."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def read(self, _call: Call, params: m.LogRead) -> AsyncIterator[m.LogLines]:
        """Read, and follow, log lines."""
        record = self._registry.find(params.dataflow, ended_too=True)
        folder = Path(record.row.log_dir)
        log = None if record.run is None else record.run.log
        async for lines in read_logs(params, record.uuid, folder, log):
            yield lines
