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
    """Answers the method `logs.read`, for running and ended dataflows."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def read(self, _call: Call, params: m.LogRead) -> AsyncIterator[m.LogLines]:
        """Yield log lines, and follow them if asked to."""
        record = self._registry.find(params.dataflow, ended_too=True)
        folder = Path(record.row.log_dir)
        log = None if record.run is None else record.run.log
        async for lines in read_logs(params, record.uuid, folder, log):
            yield lines
