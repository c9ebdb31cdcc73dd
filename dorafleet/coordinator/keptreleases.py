"""The files of releases that a coordinator keeps for robots: what needs each, what is removed."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from dorad.control.errors import ControlError
from dorad.phrases import first_of
from dorad.problems import ProblemError
from dorad.release.errors import ReleaseError
from dorad.release.manifest import Manifest, Object
from dorad.release.receive import Destination
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.releases import Releases
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.storerecords import read
from dorafleet.coordinator.uploadmessages import StoredRelease, StoredReleases
from dorafleet.coordinator.writer import COORDINATOR
from dorafleet.rollout.model import Member, Rollout
from dorafleet.store.model import Store

UPLOADED = "uploaded/"
"""The record of each release that was uploaded: which coordinator has received it."""

RECENT_S = 24 * 3600.0
"""Seconds for which an uploaded release stays although nothing needs it yet."""
MAX_NAMED = 3

_log = logging.getLogger(__name__)


class Kept(Protocol):
    """A release in the folder."""

    @property
    def release(self) -> str:
        """Its id."""

    @property
    def at(self) -> float:
        """When it was complete, or its upload began."""

    @property
    def complete(self) -> bool:
        """Whether all its files are here."""

    @property
    def size(self) -> int:
        """Bytes of its files that are here."""

    @property
    def lacking(self) -> int:
        """Bytes of those that are not."""


class Folder(Protocol):
    """The folder of uploaded releases. See `dorafleet.release.uploads`. Methods block."""

    folder: Path
    limit: int

    def destination(self, release: str, *, patches: bool = True) -> Destination[Manifest]:
        """Return where one release arrives, as `patches` to others, too."""

    def lacking(self, manifest: Manifest) -> list[Object]:
        """Return the objects of a release that are not here."""

    def kept(self) -> Sequence[Kept]:
        """Return what is here, the newest first. Raises OSError."""

    def used(self) -> int:
        """Return the bytes of all files. Raises OSError."""

    def collect(self, keep: set[str]) -> int:
        """Remove releases that are not in `keep`. Raises ReleaseError or OSError."""


class Uploaded(msgspec.Struct, frozen=True):
    """The value of `uploaded/<id>`."""

    at: float
    by: str
    host: str
    """The machine of the coordinator that has received it."""


class KeptReleases:
    """What is in the folder of uploaded releases, and why."""

    def __init__(
        self,
        folder: Folder | None,
        store: Store,
        fleet: Fleet,
        robots: Robots,
        releases: Releases,
        rollouts: Rollouts,
    ) -> None:
        """`folder` is None if this coordinator keeps no files."""
        self.folder = folder
        self._store = store
        self._fleet = fleet
        self._robots = robots
        self._releases = releases
        self._rollouts = rollouts
        self._records: dict[str, Uploaded] = {}
        self.looking = asyncio.Lock()
        """One look at the disk at a time, however many clients ask."""
        self._host = socket.gethostname()
        self.lost: dict[str, str] = {}
        """By release that is needed, and was uploaded: the coordinator that received its files,
        which are not here. As of the last look."""

    async def look(self) -> tuple[dict[str, str], Sequence[Kept]]:
        """Return what needs each release, and what is in the folder.

        Raises:
            StoreError: the store cannot be read.
            OSError: of the folder.
        """
        assert self.folder is not None
        needed = await self.needed()
        async with self.looking:
            kept = await asyncio.to_thread(self.folder.kept)
        self._find_lost(needed, kept)
        return needed, kept

    def _find_lost(self, needed: Mapping[str, str], kept: Sequence[Kept]) -> None:
        here = {each.release for each in kept if each.complete}
        self.lost = {
            release: record.host
            for release, record in self._records.items()
            if release in needed and release not in here
        }

    async def load(self) -> None:
        """Read which releases were uploaded. Raises StoreError."""
        self._records = {
            entry.key.removeprefix(UPLOADED): uploaded
            for entry, uploaded in await read(self._store, UPLOADED, Uploaded)
        }

    def elsewhere(self, release: str) -> str:
        """Return which other coordinator has received a release; empty if none has."""
        record = self._records.get(release)
        return "" if record is None or record.host == self._host else record.host

    async def add(self, release: str, by: str, audited: Mapping[str, Any]) -> None:
        """Store that a release has arrived here, with a record in the audit."""
        record = Uploaded(time.time(), by, self._host)
        puts = {f"{UPLOADED}{release}": msgspec.json.encode(record)}
        try:
            async with self._fleet.writer.changing:
                await self._fleet.put_orders({}, audited, puts=puts)
        except ProblemError as error:
            _log.warning("%.12s is here, but that is not stored: %s", release, error)
            return
        self._records[release] = record

    async def listing(self) -> StoredReleases:
        """Return what was uploaded, the newest first. Raises ControlError."""
        if self.folder is None:
            raise ControlError("unsupported", "this coordinator keeps no files of releases")
        try:
            needed, kept = await self.look()
            async with self.looking:
                used = await asyncio.to_thread(self.folder.used)
        except OSError as error:
            raise ControlError("unavailable", f"{self.folder.folder}: {error.strerror}") from None
        here = {each.release for each in kept if each.complete}
        rows = [
            self._row(each, needed) for each in kept if each.complete or each.release not in here
        ]
        known = {each.release for each in kept}
        rows += [
            StoredRelease(
                release=id_,
                label=self.label(id_),
                state="elsewhere",
                lacking=self._size(id_),
                at=record.at,
                by=record.by,
                host=record.host,
                needed=needed.get(id_, ""),
            )
            for id_, record in self._records.items()
            if id_ not in known
        ]
        return StoredReleases(
            releases=sorted(rows, key=lambda each: -each.at),
            folder=str(self.folder.folder),
            used=used,
            limit=self.folder.limit,
        )

    def _row(self, kept: Kept, needed: Mapping[str, str]) -> StoredRelease:
        record = self._records.get(kept.release)
        return StoredRelease(
            release=kept.release,
            label=self.label(kept.release),
            state="complete" if kept.complete else "partial",
            size=kept.size,
            lacking=kept.lacking,
            at=kept.at,
            by="" if record is None else record.by,
            host="" if record is None else record.host,
            needed=needed.get(kept.release, ""),
            until=kept.at + RECENT_S,
        )

    def label(self, id_: str) -> str:
        """Return `name@sequence` of a release; empty if it is no longer registered."""
        return self._releases.label(id_) if self._size(id_) else ""

    def _size(self, id_: str) -> int:
        """Return the bytes of a release; 0 if it is no longer registered."""
        return next((each.size for each in self._releases.all.releases if each.id == id_), 0)

    async def collect(self) -> None:
        """Remove the files that nothing needs, and the records of releases that nothing has."""
        if self.folder is None:
            return
        try:
            kept = await asyncio.to_thread(self.folder.kept)
            # No rollout starts between the look and the removal.
            async with self._fleet.writer.changing:
                now = time.time()
                needed = await self.needed()
                self._find_lost(needed, kept)
                keep = {each.release for each in kept if stays(each.release, each.at, needed, now)}
                for id_, record in list(self._records.items()):
                    if id_ not in keep and not stays(id_, record.at, needed, now):
                        audited = {**COORDINATOR, "action": "release.collect", "release": id_}
                        await self._fleet.put_orders({}, audited, deletes=[f"{UPLOADED}{id_}"])
                        del self._records[id_]
                freed = await asyncio.to_thread(self.folder.collect, keep)
        except ReleaseError as error:
            _log.debug("nothing is removed now: %s", error)
        except (OSError, ProblemError) as error:
            _log.warning("files of releases that nothing needs stay: %s", error)
        else:
            _log.debug("%d bytes of releases that nothing needs were removed", freed)

    async def needed(self) -> dict[str, str]:
        """Return what needs each release. Raises StoreError."""
        by_number = sorted(self._rollouts.heads.items())
        newest = {head.dataflow: head for _, head in by_number}
        heads = {head.number: head for head in (*self._rollouts.open, *newest.values())}
        members = {number: (await self._rollouts.members(number)).values() for number in heads}
        desired = (
            (robot.id, order.release)
            for robot in self._robots.all
            for order in self._fleet.orders(robot.id).values()
        )
        return needed_by(desired, [(head, members[number]) for number, head in heads.items()])


def needed_by(
    desired: Iterable[tuple[str, str]],
    rollouts: Iterable[tuple[Rollout, Iterable[Member]]],
) -> dict[str, str]:
    """Return what needs each release, for people. A pure function.

    `desired` has robots and the releases that they are to run. Of `rollouts`, those that are not
    over need their release; all of them what their robots would go back to.
    """
    robots: dict[str, list[str]] = {}
    for robot, release in desired:
        robots.setdefault(release, []).append(robot)
    baselines: dict[str, set[str]] = {}
    needed: dict[str, list[str]] = {}
    for head, members in rollouts:
        if not head.over:
            needed.setdefault(head.release, []).append(f"rollout {head.number}")
        for member in members:
            if member.before:
                baselines.setdefault(member.before, set()).add(member.robot)
    for release, names in robots.items():
        needed.setdefault(release, []).append(f"desired on {first_of(names, MAX_NAMED)}")
    for release, back in baselines.items():
        text = f"{first_of(sorted(back), MAX_NAMED)} would go back to it"
        needed.setdefault(release, []).append(text)
    return {release: "; ".join(each) for release, each in needed.items() if release}


def stays(release: str, at: float, needed: Mapping[str, str], now: float) -> bool:
    """Return True for a release that something needs, or that came lately. A pure function.

    One whose time lies ahead, because a clock was wrong, counts as recent for as long again.
    """
    return release in needed or now - RECENT_S < at < now + RECENT_S
