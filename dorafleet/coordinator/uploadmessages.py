"""What clients and a coordinator send each other about the files of releases that it keeps."""

from typing import Literal

from dorad.control.messages import CallMethod, Nothing, Struct
from dorad.int64 import Int64
from dorafleet.rollout.messages import ReleaseRef

UPLOAD_PATH = "/upload"
"""Where a client connects to upload a release, in the frames of `dorad.release.frames`."""
UPLOAD_TICKET = "Upload-Ticket"
"""The header with the ticket."""
COPIES_PATH = "/copies"
"""Where another coordinator connects for copies of uploaded files: it sends a `CopyState`, gets a
`CopyOrder`, and then the frames of one release follow."""


class ReleaseLacking(Struct):
    """What the coordinator lacks of the files of a release."""

    release: str
    """Its id."""
    label: str
    """`name@sequence`"""
    sends: bool
    """Whether the coordinator can send the release to robots now."""
    objects: Int64
    """Files with different content that its folder of uploads does not have; 0 if it sends."""
    size: Int64
    """Bytes of them."""
    why: str = ""
    """Why it cannot send the release."""


class UploadTicket(Struct):
    """Permission to upload a release. It allows one connection, which must come soon."""

    path: str
    ticket: str


class StoredRelease(Struct):
    """A release whose files operators have uploaded."""

    release: str
    label: str
    """`name@sequence`; empty if it is no longer registered and its manifest is not here."""
    state: Literal["complete", "partial", "elsewhere"]
    """`partial`: an upload has not ended. `elsewhere`: another coordinator, or this one before its
    disk was lost, has received it, and its files are not here."""
    size: Int64 = 0
    """Bytes of its files that are here."""
    lacking: Int64 = 0
    """Bytes of its files that are not here, as far as they are known."""
    at: float = 0.0
    by: str = ""
    """The user who has uploaded it."""
    host: str = ""
    """The machine of the coordinator that has received it."""
    needed: str = ""
    """What needs it; empty: it is removed, see `until`."""
    until: float = 0.0
    """When it may be removed, if nothing needs it."""


class OtherCoordinator(Struct):
    """A coordinator that waits to lead, and copies the files that something needs."""

    name: str
    """Its machine and port."""
    at: float
    """When it was last heard of."""
    lacking: list[str] = []
    """Ids of the releases that something needs, that the leader can send, and that it lacks."""
    trouble: str = ""
    """Why its last copy has failed."""


class StoredReleases(Struct):
    """The uploaded releases, the newest first."""

    releases: list[StoredRelease]
    folder: str
    used: Int64
    """Bytes of all files there, each once."""
    limit: Int64
    """What they may take."""
    others: list[OtherCoordinator] = []
    """The coordinators that this one has heard of since it leads."""


class CopyState(Struct):
    """What a coordinator that does not lead has."""

    name: str
    complete: list[str]
    """Ids of the releases in its folder."""
    failed: str = ""
    """The release whose last copy has failed."""
    trouble: str = ""
    """Why."""


class CopyOrder(Struct):
    """What the leader answers."""

    keep: list[str]
    """Ids of releases that something needs."""
    send: str = ""
    """The release whose files follow."""
    take: str = ""
    """The release whose files the leader lacks, and takes."""


RELEASE_LACKING = CallMethod(
    "release.lacking",
    "viewer",
    ReleaseRef,
    ReleaseLacking,
    "Return what the coordinator lacks of the files of a release.",
)
RELEASE_UPLOAD = CallMethod(
    "release.upload",
    "operator",
    ReleaseRef,
    UploadTicket,
    "Allow a connection that uploads the files of a registered release.",
)
RELEASE_STORED = CallMethod(
    "release.stored",
    "viewer",
    Nothing,
    StoredReleases,
    "List the releases whose files were uploaded, and what needs each.",
)
