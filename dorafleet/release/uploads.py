"""The folder of releases that operators have uploaded to a coordinator, for robots.

    <folder>/objects/      contents of files
    <folder>/incoming/     incomplete objects
    <folder>/arriving/     manifests of releases whose files have not all arrived
    <folder>/manifests/    those of complete releases: a manifest is written after all its files

Nothing in a release chooses a path here: all names are SHA-256 of what is in the files.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from dorad.atomicfile import ANY_TEMPORARY, remove_abandoned
from dorad.phrases import size_text
from dorad.release.disk import (
    locked,
    modified,
    read_bounded,
    sync_file_system,
    write_whole,
)
from dorad.release.errors import ReleaseError
from dorad.release.machine import Machine
from dorad.release.manifest import MAX_MANIFEST, Manifest, Object, all_files, id_of, parse
from dorad.release.objects import ObjectStore, make_folder
from dorad.release.signature import signing_key
from dorafleet.release.errors import BuildError
from dorafleet.release.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path


LIMIT = 20 << 30
"""Bytes that all uploaded files may take, unless the coordinator is told another number."""
RESERVE = 256 << 20
"""Bytes of the disk that stay free: the coordinator's database may be on it."""
PER_FILE = 4096
"""Bytes of the disk that a file needs beyond its content."""
ARRIVING_S = 24 * 3600.0
"""Seconds for which an upload that was interrupted can be continued."""
MAX_ARRIVING = 20
"""Interrupted uploads; beyond them the oldest is forgotten."""
LOCK_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """A release in the folder."""

    release: str
    at: float
    """When it was complete, or its upload began."""
    complete: bool
    size: int
    """Bytes of its files that are here."""
    lacking: int
    """Bytes of those that are not."""


class Uploads:
    """See the module. Methods block; `receive` and `collect` exclude each other."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self.store = Store(folder)
        self._arriving = folder / "arriving"

    def destination(self, release: str, *, patches: bool = True) -> Arrival:
        """Return where one release arrives, given by its id: no other one is accepted.

        Without `patches` no file comes as a patch to one that is here: that may be damaged.
        """
        return Arrival(self, release, patches=patches)

    def lacking(self, manifest: Manifest) -> list[Object]:
        """Return the objects of a release that are not here."""
        return self.store.lacking(manifest)

    def kept(self) -> list[Kept]:
        """Return what is here, the newest first. Raises OSError.

        A manifest that cannot be read counts as one without files.
        """
        kept = []
        for folder, complete in ((self.store.manifests, True), (self._arriving, False)):
            for path in _manifests(folder):
                try:
                    manifest = parse(read_bounded(path, MAX_MANIFEST))
                except (OSError, ReleaseError) as error:
                    _log.warning("%s cannot be read: %s", path, error)
                    kept.append(Kept(path.name, 0.0, complete=False, size=0, lacking=0))
                    continue
                objects = {each.object for each in all_files(manifest)}
                lost = self.store.objects.lacking(sorted(objects))
                size = sum(each.size for each in objects)
                lacking = sum(each.size for each in lost)
                kept.append(
                    Kept(path.name, modified(path), complete and not lost, size - lacking, lacking)
                )
        return sorted(kept, key=lambda each: -each.at)

    def used(self) -> int:
        """Return the bytes of all files that are here or arriving. Raises OSError."""
        objects = sum(path.lstat().st_size for path in self.store.objects.files())
        return objects + sum(self.store.objects.partials().values())

    def collect(self, keep: Collection[str]) -> int:
        """Remove complete releases that are not in `keep`, uploads that were given up, their files.

        Return how many bytes were freed.

        Raises:
            ReleaseError: code `busy`: a release is arriving.
            OSError: a file cannot be removed.
        """
        if not self.folder.is_dir():
            return 0
        with self.lock(wait=False):
            for folder in (self.store.manifests, self._arriving):
                remove_abandoned(folder, ANY_TEMPORARY)
            self._give_up()
            for path in _manifests(self.store.manifests):
                if path.name not in keep:
                    _log.info("the files of release %.12s are removed", path.name)
                    # First the manifest: a release is never here without its files.
                    path.unlink()
                    path.with_name(f"{path.name}.sig").unlink(missing_ok=True)
            for path in list(self.store.manifests.glob("*.sig")):
                if not path.with_suffix("").exists():
                    path.unlink()
            wanted: set[Object] = set()
            for folder in (self.store.manifests, self._arriving):
                for path in _manifests(folder):
                    manifest = parse(read_bounded(path, MAX_MANIFEST))
                    wanted |= {each.object for each in all_files(manifest)}
            if not _manifests(self._arriving):
                self.store.objects.forget_partials()
            return self.store.objects.remove_unused(wanted, [])

    def _give_up(self) -> None:
        """Forget uploads that nobody has continued for long, and those that cannot be read."""
        now = time.time()
        newest = sorted(_manifests(self._arriving), key=modified, reverse=True)
        for place, path in enumerate(newest):
            recent = now - ARRIVING_S < modified(path) <= now + ARRIVING_S
            if not recent or place >= MAX_ARRIVING:
                _log.info("the upload of release %.12s is given up", path.name)
                path.unlink()
        for folder in (self.store.manifests, self._arriving):
            for path in _manifests(folder):
                try:
                    parse(read_bounded(path, MAX_MANIFEST))
                except ReleaseError as error:
                    _log.warning("%s is damaged and removed: %s", path, error)
                    path.unlink()

    @contextmanager
    def lock(self, *, wait: bool) -> Iterator[None]:
        """Keep others from receiving and collecting. Raises ReleaseError with code `busy`."""
        make_folder(self.folder)
        with locked(self.folder / ".lock", LOCK_TIMEOUT_S if wait else 0.0) as mine:
            if not mine:
                message = f"another upload to {self.folder} is in progress"
                raise ReleaseError("busy", message, "try again when it has ended")
            yield

    def begin(self, content: bytes) -> None:
        """Keep the manifest of a release that begins to arrive. Raises OSError."""
        make_folder(self._arriving)
        path = self._arriving / id_of(content)
        if path.exists():
            os.utime(path)
        else:
            write_whole(path, content)

    def complete(self, content: bytes, signature: bytes) -> None:
        """Add a release whose files are all here: first they, then its manifest. Raises OSError."""
        sync_file_system(self.folder)
        self.store.add(content, signature)
        (self._arriving / id_of(content)).unlink(missing_ok=True)
        if not _manifests(self._arriving):
            self.store.objects.forget_partials()

    def check_space(self, manifest: Manifest) -> None:
        """Check that a release fits into the limit, and on the disk.

        Raises:
            ReleaseError: code `space`.
        """
        lacking = self.lacking(manifest)
        arrived = sum(self.store.objects.partial_size(each.sha256) for each in lacking)
        needed = max(0, sum(each.size for each in lacking) - arrived)
        hint = "`dorafleet release stored` shows what needs each; `dorafleet serve --upload-limit`"
        if lacking and self.used() + needed > self.limit:
            raise ReleaseError(
                "space",
                f"{size_text(needed)} more would exceed the {size_text(self.limit)} that uploaded "
                f"releases may take in {self.folder}, which has {size_text(self.used())}",
                hint,
            )
        disk = os.statvfs(self.folder)
        free = disk.f_bavail * disk.f_frsize
        if lacking and needed + len(lacking) * PER_FILE + RESERVE > free:
            raise ReleaseError(
                "space",
                f"the disk of {self.folder} is too full: {size_text(needed)} needed beside "
                f"{size_text(RESERVE)} that stay free, {size_text(free)} free",
                hint,
            )


class Arrival:
    """One release that arrives. See `dorad.release.receive.Destination`."""

    machine = Machine("", "", "")
    """No machine in particular: files for all are kept."""

    def __init__(self, uploads: Uploads, release: str, *, patches: bool) -> None:
        self._uploads = uploads
        self._release = release
        self._patches = patches

    @property
    def folder(self) -> Path:
        """The folder of all uploads."""
        return self._uploads.folder

    @property
    def objects(self) -> ObjectStore:
        """The contents of files."""
        return self._uploads.store.objects

    def verify(self, content: bytes, signature: bytes) -> tuple[Manifest, object]:
        """Return the manifest, and the key of its signature. Robots judge whom they trust.

        Raises:
            ReleaseError: it is not the release that was announced, or not signed.
        """
        if (release := id_of(content)) != self._release:
            raise ReleaseError(
                "manifest", f"the manifest is that of {release[:12]}, not of {self._release[:12]}"
            )
        return parse(content), signing_key(content, signature)

    def lock(self, *, wait: bool) -> AbstractContextManager[None]:
        """See `Uploads.lock`."""
        return self._uploads.lock(wait=wait)

    def check_space(self, manifest: Manifest) -> None:
        """See `Uploads.check_space`."""
        self._uploads.check_space(manifest)

    def put_manifest(self, content: bytes, signature: bytes) -> Manifest:
        """Note that it arrives. It counts only after `complete`."""
        del signature
        self._uploads.begin(content)
        return parse(content)

    def lacking(self, manifest: Manifest) -> list[Object]:
        """Return the objects that have not arrived."""
        return self._uploads.lacking(manifest)

    def ids(self) -> list[str]:
        """Return the complete releases, which patches may start from."""
        if not self._patches:
            return []
        try:
            return [bundle.id for bundle in self._uploads.store.all()]
        except BuildError as error:
            _log.warning("no patches: %s", error)
            return []

    def complete(self, content: bytes, signature: bytes) -> None:
        """Add it. Raises OSError."""
        self._uploads.complete(content, signature)


def _manifests(folder: Path) -> list[Path]:
    """Return the manifests in a folder, without signatures and what a kill has left."""
    try:
        return sorted(path for path in folder.iterdir() if len(path.name) == 64)
    except FileNotFoundError:
        return []
