"""Messages about incidents: what the black boxes of dataflows have kept."""

from __future__ import annotations

from dorad.control.messages.base import Struct
from dorad.control.messages.dataflows import Ref
from dorad.control.messages.method import CallMethod
from dorad.int64 import Int64


class Incident(Struct):
    """What a black box has kept around one moment."""

    id: str
    time: float
    before: float
    """Seconds before `time` that are kept."""
    after: float
    segments: Int64
    bytes: Int64
    """Size of its segments, which other incidents may share."""
    source: str
    """Who asked for it: `command`, `node NAME`, or what happened."""
    note: str


class BlackBox(Struct):
    """The black box of a dataflow on one machine."""

    dataflow: str
    """The dataflow by its UUID, or `ROBOT/NAME` if a release has brought it to a robot."""
    name: str | None
    folder: str
    incidents: list[Incident]
    """The newest ones, by time."""
    left_out: Int64 = 0
    """The number of older incidents."""
    problem: str = ""
    """Why the folder cannot be read."""
    machine: str | None = None
    """The machine that it is on; only from a coordinator."""


class IncidentList(Struct):
    """The black boxes of one dataflow, or of all, with their incidents."""

    boxes: list[BlackBox]
    missing: dict[str, str] = {}
    """Machines that did not answer, and why; only from a coordinator."""


INCIDENT_LIST = CallMethod(
    "incident.list", "viewer", Ref, IncidentList, "List what black boxes have kept."
)
