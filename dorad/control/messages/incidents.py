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
    """What asked for the incident: `command`, the name of a coordinator's client, `node NAME`, or
    the event that caused it."""
    note: str
    gone: Int64 = 0
    """Segments between the first and the last one that are not there any more."""


class BlackBox(Struct):
    """The black box of a dataflow on one machine."""

    dataflow: str
    """The UUID of the dataflow, or `ROBOT/NAME` if a release has brought it to a robot."""
    name: str | None
    folder: str
    incidents: list[Incident]
    """The newest incidents, in the order of their times."""
    left_out: Int64 = 0
    """Number of older incidents."""
    problem: str = ""
    """Why the daemon cannot read the folder."""
    machine: str | None = None
    """The machine of the black box; only from a coordinator."""


class IncidentList(Struct):
    """The black boxes of one dataflow, or of all, with their incidents."""

    boxes: list[BlackBox]
    missing: dict[str, str] = {}
    """Machines that did not answer, and why; only from a coordinator."""


class IncidentMark(Struct):
    """Keep what the black boxes of a dataflow have recorded around this moment."""

    dataflow: str | None = None
    """A coordinator needs it."""
    before: float = 60.0
    """Seconds before now to keep."""
    after: float = 20.0
    """Seconds after now to keep."""
    note: str = ""
    source: str = "command"
    """Who asks. A coordinator replaces it by the name of its client."""


class IncidentMarked(Struct):
    """On which machines incidents were made, at least one."""

    made: dict[str, str]
    """The id and the folder of each incident, by machine. The name of the machine is empty from a
    daemon."""
    failed: dict[str, str] = {}
    """Machines that have a black box but made no incident, or that did not answer, with the
    reason."""


RECORDER_S = 30.0
"""Seconds that a recorder has to make an incident."""

INCIDENT_LIST = CallMethod(
    "incident.list", "viewer", Ref, IncidentList, "List black boxes and their incidents."
)
INCIDENT_MARK = CallMethod(
    "incident.mark",
    "operator",
    IncidentMark,
    IncidentMarked,
    "Keep what the black boxes of a dataflow have recorded around this moment.",
    seconds=lambda _: RECORDER_S,
)
