"""The folder of incidents that robots have uploaded to a coordinator.

    <folder>/robot-ID/objects/      files of incidents, by their SHA-256: segments are shared
    <folder>/robot-ID/incoming/     incomplete ones
    <folder>/robot-ID/arriving/     manifests of incidents whose files have not all arrived
    <folder>/robot-ID/manifests/    those of complete ones, each written after all its files
    <folder>/robot-ID/removed.json  what was removed here and is not to come again

A robot may lie about everything. Nothing that it sends chooses a path: names are SHA-256. What it
has here is bounded, and it can push out nothing but its own, less urgent incidents.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from dorad.atomicfile import ANY_TEMPORARY, atomic_file, remove_abandoned
from dorad.control.incidentfiles import (
    MAX_LISTED,
    IncidentInfo,
    IncidentKey,
    IncidentManifest,
    urgency,
)
from dorad.phrases import size_text
from dorad.release.disk import modified, read_bounded, sync_file_system, write_whole
from dorad.release.errors import ReleaseError
from dorad.release.machine import Machine
from dorad.release.manifest import MAX_MANIFEST, Object, id_of
from dorad.release.objects import ObjectStore, make_folder

RESERVE = 256 << 20
"""Bytes of the disk that stay free: the coordinator's database may be on it."""
PER_FILE = 16 << 10
"""Bytes that a file counts at least: a file system has an inode for about as many."""
ARRIVING_S = 7 * 24 * 3600.0
"""Seconds for which an upload that was cut can be continued."""
MAX_ARRIVING = 8
"""Uploads of a robot that were cut; beyond them the oldest is forgotten."""
REMOVED = "removed.json"
_PREFIX = "robot-"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IncidentSettings:
    """What a coordinator keeps of incidents, in bytes and seconds."""

    limit: int = 20 << 30
    """Of all robots."""
    per_robot: int = 2 << 30
    keep_s: float = 30 * 24 * 3600.0
    """Seconds after its arrival until an incident is removed."""
    rate: int = 8 << 20
    """Bytes a second that are read of all robots together."""
    per_day: int | None = None
    """Bytes that one robot may send in 24 hours; None leaves that to the robot."""


class Kept(NamedTuple):
    """A complete incident."""

    manifest: str
    """The SHA-256 of its manifest."""
    info: IncidentInfo
    files: dict[str, int]
    """The size of each file, by its SHA-256."""
    names: dict[str, str]
    """The SHA-256 of each file, by its name on the robot."""
    at: float
    """When it was complete, in seconds since 1970."""


def size_of(incidents: Iterable[Kept]) -> int:
    """Return the bytes that these incidents take; files that they share count once."""
    files = {sha256: size for each in incidents for sha256, size in each.files.items()}
    return sum(max(size, PER_FILE) for size in files.values())


def to_remove(kept: Sequence[Kept], new: Kept, limit: int) -> list[Kept] | None:
    """Return which incidents have to go so that a new one fits. A pure function.

    The least urgent go first; None if a more urgent one would have to go.
    """
    remaining = sorted(kept, key=lambda each: urgency(each.info))
    going: list[Kept] = []
    while size_of([*remaining, new]) > limit or len(remaining) >= MAX_LISTED:
        if not remaining or urgency(remaining[-1].info) < urgency(new.info):
            return None
        going.append(remaining.pop())
    return going


def parse(content: bytes) -> IncidentManifest:
    """Return the manifest of an incident. Raises ReleaseError, code `manifest`."""
    if len(content) > MAX_MANIFEST:
        raise ReleaseError("manifest", "the manifest of the incident is too long")
    try:
        manifest = msgspec.json.decode(content, type=IncidentManifest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ReleaseError("manifest", f"not the manifest of an incident: {error}") from None
    names = [each.name for each in manifest.files]
    sizes = {(each.sha256, each.size) for each in manifest.files}
    if len(set(names)) < len(names) or len({sha256 for sha256, _ in sizes}) < len(sizes):
        raise ReleaseError("manifest", "the manifest of the incident has a file twice")
    return manifest


class KeptIncidents:
    """See the module. Methods block; they may be called from several threads."""

    def __init__(self, folder: Path, settings: IncidentSettings) -> None:
        self.folder = folder
        self.settings = settings
        self._robots: dict[str, RobotIncidents] = {}
        self._lock = threading.RLock()
        self._reserved: dict[Path, int] = {}
        """Bytes that uploads may still bring, by the folder of the robot."""

    def load(self) -> None:
        """Read what is here, and remove what a kill has left. Raises OSError."""
        for path in sorted(self.folder.glob(f"{_PREFIX}*")):
            if path.is_dir() and not path.is_symlink():
                self.of(path.name.removeprefix(_PREFIX))

    def of(self, robot: str) -> RobotIncidents:
        """Return the incidents of one robot. Raises OSError."""
        with self._lock:
            if robot not in self._robots:
                self._robots[robot] = RobotIncidents(self, self.folder / f"{_PREFIX}{robot}")
            return self._robots[robot]

    @property
    def all(self) -> dict[str, RobotIncidents]:
        """The incidents by robot."""
        with self._lock:
            return dict(self._robots)

    @property
    def used(self) -> int:
        """Bytes of all incidents, also of those that arrive."""
        return sum(each.used for each in self.all.values())

    def reserve(self, folder: Path, needed: int) -> None:
        """Keep room for what a robot with this folder uploads, until `release`.

        Raises:
            ReleaseError: code `space`.
        """
        with self._lock:
            others = sum(size for each, size in self._reserved.items() if each != folder)
            if needed and self.used + others + needed > self.settings.limit:
                limit = size_text(self.settings.limit)
                raise ReleaseError("space", f"all robots together have their {limit} already")
            disk = os.statvfs(folder)
            free = disk.f_bavail * disk.f_frsize
            if needed and needed + others + RESERVE > free:
                raise ReleaseError(
                    "space",
                    f"the disk of the coordinator is too full: {size_text(needed)} needed beside "
                    f"{size_text(RESERVE)} that stay free, {size_text(free)} free",
                )
            self._reserved[folder] = needed

    def release(self, robot: str) -> None:
        """End what `reserve` began."""
        with self._lock:
            self._reserved.pop(self.of(robot).folder, None)

    def collect(self) -> None:
        """Remove what is too old, and uploads that were given up. Raises OSError."""
        oldest = time.time() - self.settings.keep_s
        for each in self.all.values():
            each.collect(oldest)


class RobotIncidents:
    """The incidents of one robot. Methods block; one upload runs at a time."""

    def __init__(self, all_: KeptIncidents, folder: Path) -> None:
        self.folder = folder
        self.objects = ObjectStore(folder)
        self._all = all_
        self._manifests, self._arriving = folder / "manifests", folder / "arriving"
        self._lock = threading.RLock()
        self._kept = self._load(self._manifests)
        self._partly = self._load(self._arriving)
        """Those whose files have not all arrived, the oldest first."""
        self._removed: dict[IncidentKey, str] = self._read_removed()
        self._collect_objects()

    def _load(self, folder: Path) -> dict[IncidentKey, Kept]:
        if not folder.is_dir():
            return {}
        remove_abandoned(folder, ANY_TEMPORARY)
        loaded = {}
        for path in sorted(folder.iterdir(), key=modified):
            try:
                content = read_bounded(path, MAX_MANIFEST)
                kept = _kept(parse(content), path.name, modified(path))
                complete = folder == self._manifests
                if id_of(content) != path.name or (complete and self._lacking(kept)):
                    raise ReleaseError("damaged", "files of it are lacking")
                loaded[kept.info.key] = kept
            except (OSError, ReleaseError) as error:
                _log.warning("%s is removed: %s", path, error)
                path.unlink(missing_ok=True)
        return loaded

    def _lacking(self, kept: Kept) -> list[Object]:
        return self.objects.lacking(_objects(kept))

    def _read_removed(self) -> dict[IncidentKey, str]:
        path = self.folder / REMOVED
        try:
            rows = msgspec.json.decode(path.read_bytes(), type=list[tuple[str, str, str]])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeError) as error:
            _log.warning("%s cannot be read, what was removed may come again: %s", path, error)
            return {}
        return {IncidentKey(dataflow, id_): why for dataflow, id_, why in rows}

    @property
    def kept(self) -> list[Kept]:
        """The complete incidents, the most urgent first."""
        with self._lock:
            return sorted(self._kept.values(), key=lambda each: urgency(each.info))

    @property
    def removed(self) -> dict[IncidentKey, str]:
        """What was removed here, with the reason; it does not come again."""
        with self._lock:
            return dict(self._removed)

    @property
    def used(self) -> int:
        """Bytes of them, also of what has arrived of others."""
        with self._lock:
            return size_of(self._kept.values()) + sum(map(self._arrived, self._partly.values()))

    @property
    def arrived(self) -> dict[IncidentKey, int]:
        """Bytes that have arrived of incidents that are not complete."""
        with self._lock:
            return {key: self._arrived(kept) for key, kept in self._partly.items()}

    def _arrived(self, kept: Kept) -> int:
        lacking = self._lacking(kept)
        whole = sum(kept.files.values()) - sum(each.size for each in lacking)
        return whole + sum(self.objects.partial_size(each.sha256) for each in lacking)

    def find(self, key: IncidentKey) -> Kept | None:
        """Return a complete incident; None if it is not here."""
        with self._lock:
            return self._kept.get(key)

    def path(self, sha256: str, size: int) -> Path:
        """Return where a file of a complete incident is."""
        return self.objects.path(Object(sha256, size, executable=False))

    def forget_removed(self, listed: Iterable[IncidentKey]) -> None:
        """Forget what was removed and that the robot does not have any more. Raises OSError."""
        with self._lock:
            gone = self._removed.keys() - set(listed)
            if gone:
                self._remember({key: why for key, why in self._removed.items() if key not in gone})

    def remove(self, keys: Iterable[IncidentKey], why: str) -> None:
        """Remove incidents; they do not come again. Raises OSError."""
        with self._lock:
            chosen = [self._kept[key] for key in keys if key in self._kept]
            if chosen:
                # First this: otherwise a kill in between would let them come again.
                self._remember(self._removed | {each.info.key: why for each in chosen})
                self._discard(chosen, why)

    def _remember(self, removed: dict[IncidentKey, str]) -> None:
        newest = list(removed.items())[-2 * MAX_LISTED :]
        with atomic_file(self.folder / REMOVED) as file:
            file.write(msgspec.json.encode([(*key, why) for key, why in newest]))
        self._removed = dict(newest)

    def _discard(self, incidents: Iterable[Kept], why: str) -> None:
        for each in incidents:
            _log.info("incident %s in %s is removed: %s", each.info.id, self.folder.name, why)
            (self._manifests / each.manifest).unlink(missing_ok=True)
            del self._kept[each.info.key]
        self._collect_objects()

    def _give_up(self, keys: Iterable[IncidentKey]) -> None:
        """Forget incidents that have not arrived completely, and their files."""
        for key in list(keys):
            _log.info("the upload of incident %s in %s is given up", key.id, self.folder.name)
            (self._arriving / self._partly.pop(key).manifest).unlink(missing_ok=True)
        self._collect_objects()

    def _collect_objects(self) -> None:
        known = [*self._kept.values(), *self._partly.values()]
        self.objects.remove_unused({each for kept in known for each in _objects(kept)}, [])
        wanted = {sha256 for kept in known for sha256 in kept.files}
        self.objects.forget_partials(self.objects.partials().keys() - wanted)

    def collect(self, oldest: float) -> None:
        """Remove what arrived before `oldest`, and uploads that were given up. Raises OSError."""
        with self._lock:
            old = [each.info.key for each in self._kept.values() if each.at < oldest]
            self.remove(old, "it was here for the time that incidents are kept")
            begun = time.time() - ARRIVING_S
            self._give_up([key for key, kept in self._partly.items() if kept.at < begun])

    def check_space(self, new: Kept) -> None:
        """Make room for an incident, within the bounds of this robot and of all, and of the disk.

        Raises:
            ReleaseError: code `space`.
            OSError: something cannot be removed.
        """
        settings = self._all.settings
        with self._lock:
            others = [each for each in self._kept.values() if each.info.key != new.info.key]
            going = to_remove(others, new, settings.per_robot)
            if going is None:
                raise ReleaseError(
                    "space",
                    f"{size_text(size_of([new]))} do not fit beside more urgent incidents into the "
                    f"{size_text(settings.per_robot)} that a robot may have at the coordinator",
                )
            self._discard(going, "a more urgent one of this robot needs its room")
            partly = [key for key in self._partly if key != new.info.key]
            total = size_of([*self._kept.values(), new])
            if total + sum(self.arrived[key] for key in partly) > settings.per_robot:
                self._give_up(partly)
            needed = total - size_of(self._kept.values()) - self._arrived(new)
        self._all.reserve(self.folder, max(0, needed))

    def begin(self, content: bytes) -> None:
        """Keep the manifest of an incident that begins to arrive. Raises OSError."""
        make_folder(self._arriving)
        path = self._arriving / id_of(content)
        with self._lock:
            kept = _kept(parse(content), path.name, time.time())
            before = self._partly.pop(kept.info.key, None)
            if before is not None and before.manifest != kept.manifest:
                (self._arriving / before.manifest).unlink(missing_ok=True)
            if path.exists():
                os.utime(path)
            else:
                write_whole(path, content)
            self._partly[kept.info.key] = kept
            self._give_up(list(self._partly)[:-MAX_ARRIVING])

    def complete(self, content: bytes) -> None:
        """Keep an incident whose files are all here: first they, then it. Raises OSError."""
        sync_file_system(self.folder)
        make_folder(self._manifests)
        path = self._manifests / id_of(content)
        with self._lock:
            write_whole(path, content)
            kept = _kept(parse(content), path.name, time.time())
            before = self._kept.get(kept.info.key)
            if before is not None and before.manifest != kept.manifest:
                self._discard([before], "the robot has sent it again, changed")
            self._kept[kept.info.key] = kept
            self._partly.pop(kept.info.key, None)
            (self._arriving / path.name).unlink(missing_ok=True)


class IncidentArrival:
    """One incident that arrives. See `dorad.release.receive.Destination`."""

    machine = Machine("", "", "")

    def __init__(self, robot: RobotIncidents, key: IncidentKey) -> None:
        """`key` is the one that was asked for: no other one is accepted."""
        self._robot = robot
        self._key = key

    @property
    def folder(self) -> Path:
        """The folder of the robot's incidents."""
        return self._robot.folder

    @property
    def objects(self) -> ObjectStore:
        """Its files."""
        return self._robot.objects

    def verify(self, content: bytes, signature: bytes) -> tuple[Kept, None]:
        """Return what it will be. The connection has proved which robot sends it.

        Raises:
            ReleaseError: it is not the one that was asked for.
        """
        del signature
        kept = _kept(parse(content), id_of(content), time.time())
        if kept.info.key != self._key:
            raise ReleaseError("manifest", "the robot sends another incident than it was asked for")
        return kept, None

    @contextmanager
    def lock(self, *, wait: bool) -> Iterator[None]:
        """Do nothing: one upload of a robot runs at a time."""
        del wait
        make_folder(self._robot.folder)
        yield

    def check_space(self, manifest: Kept) -> None:
        """See `RobotIncidents.check_space`."""
        self._robot.check_space(manifest)

    def put_manifest(self, content: bytes, signature: bytes) -> Kept:
        """Note that it arrives. It counts only after `complete`."""
        self._robot.begin(content)
        return self.verify(content, signature)[0]

    def lacking(self, manifest: Kept) -> list[Object]:
        """Return the files that have not arrived."""
        return self._robot.objects.lacking(_objects(manifest))

    def ids(self) -> list[str]:
        """Return nothing: there are no patches."""
        return []

    def complete(self, content: bytes, signature: bytes) -> None:
        """See `RobotIncidents.complete`."""
        del signature
        self._robot.complete(content)


def _kept(manifest: IncidentManifest, id_: str, at: float) -> Kept:
    sizes = {each.sha256: each.size for each in manifest.files}
    return Kept(id_, manifest.info, sizes, {each.name: each.sha256 for each in manifest.files}, at)


def _objects(kept: Kept) -> list[Object]:
    return [Object(sha256, size, executable=False) for sha256, size in kept.files.items()]
