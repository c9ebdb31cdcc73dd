"""The methods `incident.…`: what the black boxes of this machine have kept, and are to keep."""

import asyncio
import logging
import os
import time
from pathlib import Path

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.incidents import RECORDER_S
from dorad.control.session import Call, handles
from dorad.daemon.record import Record
from dorad.daemon.registry import Registry
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.recording import NODE_ID
from dorad.launch.programs import folder_of
from dorad.logs.hub import Follower
from dorad.logs.selection import select
from dorad.record.box import incidents as kept
from dorad.record.recorder.outcome import MARK_PARAM, MARK_WORD, Marked, read_marked

MAX_LISTED = 100
"""Incidents of one black box in an answer."""

_log = logging.getLogger(__name__)


class IncidentMethods:
    """Answers the methods `incident.…`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._marking: set[str] = set()
        """Dataflows whose recorder makes an incident now."""

    @handles(m.INCIDENT_LIST)
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

    @handles(m.INCIDENT_MARK)
    async def mark(self, _call: Call, params: m.IncidentMark) -> m.IncidentMarked:
        """Let the recorder of a dataflow make an incident, and wait until it has.

        The recorder does it with the rights of its node: the daemon writes into no folder of nodes.
        """
        record, run, _ = self._registry.find_run(params.dataflow)
        name = record.name or record.uuid
        if self._box_of(record) is None:
            raise ControlError(
                "not-found",
                f"dataflow {name!r} has no black box",
                "write `record: {keep: 60s}` into its file",
            )
        if record.uuid in self._marking:
            # Answers are lines of one log: which of two orders one is about, it does not say.
            raise ControlError("conflict", f"an incident of {name!r} is being made", "ask again")
        mark = kept.Mark(
            time.time_ns(),
            params.before,
            params.after,
            params.note[: kept.MAX_NOTE],
            params.source[: kept.MAX_NOTE],
        )
        self._marking.add(record.uuid)
        lines = run.log.hub.follow(select((NODE_ID,), grep=MARK_WORD))
        try:
            _log.debug("dataflow %s: the recorder is to make an incident", record.uuid)
            if not run.broker.params.update(NODE_ID, MARK_PARAM, msgspec.to_builtins(mark)):
                raise ControlError(
                    "refused",
                    f"the recorder of {name!r} is not connected",
                    f"`dora logs {name} {NODE_ID}` says why",
                )
            async with asyncio.timeout(RECORDER_S):
                answer = await _answer(lines)
        except TimeoutError:
            raise ControlError(
                "deadline", f"the recorder of {name!r} did not answer within {RECORDER_S:g} s"
            ) from None
        finally:
            run.broker.params.delete(NODE_ID, MARK_PARAM)
            lines.close()
            self._marking.discard(record.uuid)
        _log.debug("dataflow %s: %s", record.uuid, answer.text)
        if not answer.made:
            raise ControlError("refused", answer.text)
        return m.IncidentMarked(made={"": answer.text})

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


async def _answer(lines: Follower) -> Marked:
    """Return what a recorder says of the incident that it was to make. Raises ControlError."""
    async for each in lines:
        for line in each.records:
            if (answer := read_marked(line.target, line.fields)) is not None:
                return answer
    raise ControlError("refused", "the dataflow has ended meanwhile")


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
        gone=kept.segments_gone(own),
    )
