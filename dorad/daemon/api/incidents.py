"""The method `incident.list`: what the black boxes of this machine have kept."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.control import messages as m
from dorad.control.session import HandlerTable
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.recording import NODE_ID
from dorad.launch.programs import folder_of
from dorad.record import incidents as kept

if TYPE_CHECKING:
    from dorad.control.server import Call
    from dorad.daemon.record import Record
    from dorad.daemon.registry import Registry

MAX_LISTED = 100
"""Incidents of one black box in an answer."""


class IncidentMethods:
    """Answers the method `incident.list`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @property
    def table(self) -> HandlerTable:
        """The handler of each method."""
        table = HandlerTable()
        table.call(m.INCIDENT_LIST, self.list_all)
        return table

    async def list_all(self, _call: Call, params: m.Ref) -> m.IncidentList:
        """List the incidents of one dataflow or of all, also of those that have ended."""
        if params.dataflow is None:
            records = self._registry.records
        else:
            records = [self._registry.find(params.dataflow, ended_too=True)]
        boxes: dict[Path, Record] = {}
        for record in records:
            folder = self._box_of(record)
            if folder is not None:
                # The runs of a dataflow share a folder: the newest one stands for all.
                boxes[folder] = record
        return m.IncidentList(
            boxes=[await asyncio.to_thread(_read, *each) for each in boxes.items()]
        )

    def _box_of(self, record: Record) -> Path | None:
        """Return the folder of a dataflow's black box, None if it has none."""
        try:
            dataflow = self._registry.dataflow_of(record)
        except DataflowError:
            return None  # of another version; it cannot run here
        block = dataflow.record
        recorder = next((node for node in dataflow.nodes if node.id == NODE_ID), None)
        if block is None or block.keep is None or recorder is None:
            return None
        return Path(os.path.normpath(folder_of(recorder, dataflow) / block.folder))


def _read(folder: Path, record: Record) -> m.BlackBox:
    # A node can write there: nothing that is there may block or fill the daemon.
    box = m.BlackBox(dataflow=record.uuid, name=record.name, folder=str(folder), incidents=[])
    try:
        os.close(os.open(folder / kept.INCIDENTS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError:
        return box  # the recorder has not begun
    except OSError as error:
        box.problem = error.strerror or str(error)
        return box
    known = kept.incidents(folder)
    box.incidents = [_incident(own, mark) for own, mark in known[-MAX_LISTED:]]
    box.left_out = len(known) - len(box.incidents)
    return box


def _incident(own: Path, mark: kept.Mark) -> m.Incident:
    files = kept.files_of(own)
    return m.Incident(
        id=own.name,
        time=mark.time_ns / 1e9,
        before=mark.before_s,
        after=mark.after_s,
        segments=len(files),
        bytes=sum(size for _, size in files),
        source=mark.source[: kept.MAX_NOTE],
        note=mark.note[: kept.MAX_NOTE],
    )
