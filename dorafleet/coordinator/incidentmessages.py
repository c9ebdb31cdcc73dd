"""What clients and a coordinator send each other about the incidents that robots have uploaded."""

from typing import Literal

from dorad.control.messages import CallMethod, Nothing, Struct
from dorad.int64 import Int64

INCIDENT_FILES_PATH = "/incident-files"
"""Where a client connects for the files of an incident, in the frames of `dorad.release.frames`."""
INCIDENT_TICKET = "Incident-Ticket"
"""The header with the ticket."""

IncidentPlace = Literal["complete", "partial", "waiting", "left-out", "removed"]


class UploadedIncident(Struct):
    """An incident of a robot: one that is here, or that the robot has said that it has."""

    robot: str
    dataflow: str
    id: str
    time: float
    """By the robot's clock."""
    before: float
    after: float
    source: str
    note: str
    bytes: Int64
    state: IncidentPlace
    """`waiting`: it comes when its turn is there. `left-out`: see `why`. `removed`: it was here."""
    arrived: Int64 = 0
    """Bytes of it that are here."""
    at: float | None = None
    """When it was complete."""
    why: str = ""
    """Why it is not here."""


class IncidentRobot(Struct):
    """What a robot says of its uploads, and what it has here."""

    robot: str
    used: Int64
    """Bytes of its incidents that are here."""
    heard: float | None = None
    """When it sent its list last, since this coordinator leads; None if it has not."""
    per_day: Int64 = 0
    """Its budget in bytes for 24 hours, as it says."""
    spent: Int64 = 0
    left_out: Int64 = 0
    """Number of incidents on it that are in no list: it has too many."""


class UploadedIncidents(Struct):
    """Incidents by robot, the most urgent first."""

    incidents: list[UploadedIncident]
    robots: list[IncidentRobot]
    folder: str
    used: Int64
    """Bytes of all of them."""
    limit: Int64
    per_robot: Int64
    keep: float
    """Seconds for which a complete one stays."""


class UploadedRef(Struct):
    """An incident that a robot has uploaded."""

    id: str
    robot: str | None = None
    """Needed if several robots, or dataflows, have one of this id."""
    dataflow: str | None = None


class IncidentTicket(Struct):
    """Permission for one connection, which must come soon, that gets an incident's files."""

    path: str
    ticket: str
    incident: UploadedIncident


INCIDENTS_UPLOADED = CallMethod(
    "incidents.uploaded",
    "viewer",
    Nothing,
    UploadedIncidents,
    "List the incidents that robots upload, also those that are not here, with the reasons.",
)
INCIDENTS_FETCH = CallMethod(
    "incidents.fetch",
    "viewer",
    UploadedRef,
    IncidentTicket,
    "Allow a connection that gets the files of an uploaded incident.",
)
INCIDENTS_REMOVE = CallMethod(
    "incidents.remove",
    "operator",
    UploadedRef,
    UploadedIncident,
    "Remove an uploaded incident from the coordinator; it does not come again.",
)
