"""What a robot and its coordinator send each other about the incidents that the robot uploads.

The robot connects at `INCIDENTS_PATH` and sends an `IncidentsState`; the coordinator answers with
an `IncidentsOrder`. If that takes an incident, its files follow in the frames of a release: with
an `IncidentManifest` instead of the manifest, and an empty signature.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

from dorad.control.messages.base import Struct

INCIDENTS_PATH = "/incidents"
"""Where a robot connects to upload an incident."""
MAX_LISTED = 1000
"""Incidents of one robot in a list."""
MAX_FILES = 2000
"""Files of one incident: 100 minutes in segments of three seconds."""
MAX_STATE = 4 << 20
"""Bytes of a list."""

Dataflow = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{1,64}$(?!\n)")]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{1,100}\.mcap$(?!\n)")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Text = Annotated[str, msgspec.Meta(max_length=1000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Moment = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
Size = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class IncidentKey(NamedTuple):
    """Which incident of a robot: an id is unique in the black box of one dataflow."""

    dataflow: str
    id: str


class _Frozen(msgspec.Struct, frozen=True, kw_only=True):
    pass


class IncidentFile(_Frozen, frozen=True, array_like=True):
    """One segment of an incident."""

    name: FileName
    sha256: Sha256
    size: Size


class IncidentInfo(_Frozen, frozen=True):
    """One incident of a robot."""

    dataflow: Dataflow
    """What the robot calls it: its name, or its UUID without one."""
    id: Name
    time: Moment
    """By the robot's clock."""
    before: Seconds
    after: Seconds
    source: Text
    note: Text
    bytes: Size
    problem: Text = ""
    """Why the robot cannot upload it now."""

    @property
    def key(self) -> IncidentKey:
        """Which one it is."""
        return IncidentKey(self.dataflow, self.id)


class IncidentManifest(_Frozen, frozen=True):
    """An incident that is uploaded, and its files."""

    info: IncidentInfo
    files: Annotated[list[IncidentFile], msgspec.Meta(min_length=1, max_length=MAX_FILES)]


class IncidentsState(Struct):
    """What a robot has, and may send."""

    incidents: Annotated[list[IncidentInfo], msgspec.Meta(max_length=MAX_LISTED)]
    left_out: Size = 0
    """Number of incidents that are not in the list: there are too many."""
    per_day: Size = 0
    """Its budget in bytes for 24 hours."""
    spent: Size = 0
    """Bytes of it that are spent."""
    pause: Text = ""
    """Why it sends nothing now."""


class IncidentsOrder(Struct):
    """What a coordinator answers."""

    take: tuple[Dataflow, Name] | None = None
    """The incident whose files are to follow."""
    again: Seconds | None = None
    """Seconds after which the robot asks again; None until its list changes."""
    per_day: Size | None = None
    """The budget that the coordinator allows it, if that is smaller than its own."""


_RANKS = {"command": 0, "node-failed": 1, "node-restarting": 1, "input-broken": 2}


def urgency(info: IncidentInfo) -> tuple[int, float, str, str]:
    """Return the key that sorts incidents, the most urgent first.

    First what somebody has asked for, then failures, broken inputs, and marks of nodes, which may
    come in masses; the newest first among equals.
    """
    rank = 4 if info.source.startswith("node ") else _RANKS.get(info.source, 3)
    return rank, -info.time, info.dataflow, info.id
