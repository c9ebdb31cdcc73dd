"""The compressed pieces and patches of objects, made once for all hosts."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import shutil
import struct
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dorad.release import frames
from dorad.release.machine import Machine, environment_for
from dorafleet.release.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dorad.release.manifest import Manifest, Object
    from dorafleet.release.store import Store

WORTHWHILE = 0.8
"""Maximum size of a patch that is sent, as a share of the compressed object."""
AT_ONCE = 2
"""Objects that are compressed at the same time."""
PREFIX = ".sending-"
LEFT_S = 7 * 24 * 3600.0
"""Upper bound of the seconds that a transfer takes."""
_SIZE = struct.Struct(">I")
_VERSIONED = re.compile(r"-[^/-]+(\.(?:dist-info|data)/)")
_HASHED = re.compile(r"-[0-9a-f]{8}(?=[.])")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch that makes an object of another one."""

    base: Object
    content: bytes
    sha256: str


class Pieces:
    """The objects of a release as they are sent. A context manager that removes its files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._tasks: dict[object, asyncio.Task[object]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    def __enter__(self) -> Self:
        # In the store, because /tmp may be in memory.
        self._folder = tempfile.TemporaryDirectory(
            prefix=PREFIX, dir=self._store.folder, ignore_cleanup_errors=True
        )
        self._remove_left()
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._folder is not None:
            self._folder.cleanup()

    def _remove_left(self) -> None:
        """Remove the files of processes that were killed."""
        for path in self._store.folder.glob(f"{PREFIX}*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > LEFT_S:
                    shutil.rmtree(path, ignore_errors=True)

    async def compressed(self, wanted: Object) -> Path:
        """Return a file with the compressed pieces of an object.

        Raises:
            BuildError: the object in the store is damaged.
        """
        made = await self._once(wanted.sha256, lambda: self._compress(wanted))
        assert isinstance(made, Path)
        return made

    async def patch(self, wanted: Object, bases: Iterable[Object]) -> Patch | None:
        """Return a patch for an object from one of `bases`; None if sending it is no worse."""
        if not frames.MIN_PATCHED <= wanted.size <= frames.MAX_PATCHED:
            return None
        for base in bases:
            if not frames.MIN_PATCHED <= base.size <= frames.MAX_PATCHED:
                continue
            if not self._store.objects.has(base):
                continue
            whole = await self.compressed(wanted)
            made = await self._once((base, wanted), partial(self._patch, base, wanted))
            if isinstance(made, Patch) and len(made.content) <= (WORTHWHILE * whole.stat().st_size):
                return made
        return None

    async def _once(self, name: object, make: Callable[[], object]) -> object:
        """Return what `make` returns; it runs once, in a thread."""
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._run(make))
        # One host that is cancelled must not end the work for the others.
        return await asyncio.shield(self._tasks[name])

    async def _run(self, make: Callable[[], object]) -> object:
        async with self._slots:
            return await asyncio.to_thread(make)

    def _compress(self, wanted: Object) -> Path:
        assert self._folder is not None
        path = Path(self._folder.name, wanted.sha256)
        digest = hashlib.sha256()
        with self._store.objects.path(wanted).open("rb") as source, path.open("wb") as target:
            while piece := source.read(frames.PIECE_SIZE):
                digest.update(piece)
                content = frames.compress(piece)
                target.write(_SIZE.pack(len(content)) + content)
        if digest.hexdigest() != wanted.sha256:
            self._store.objects.check(wanted)  # removes it: it is lacking then
            raise BuildError(
                f"the object {wanted.sha256} in {self._store.folder} was changed",
                "it was removed: build the release again, or `dorafleet release upload` it again",
            )
        return path

    def _patch(self, base: Object, wanted: Object) -> Patch | None:
        objects = self._store.objects
        content = frames.make_patch(objects.read(base), objects.read(wanted))
        _log.debug("patch of %d bytes for %d", len(content), wanted.size)
        return Patch(base, content, hashlib.sha256(content).hexdigest())


def read_pieces(path: Path, skip: int) -> Iterator[bytes]:
    """Yield the compressed pieces in a file, without the first `skip`."""
    with path.open("rb") as file:
        while head := file.read(_SIZE.size):
            (size,) = _SIZE.unpack(head)
            if skip:
                skip -= 1
                file.seek(size, 1)
            else:
                yield file.read(size)


class Bases:
    """For each object of a release, those that a robot has under the same path before."""

    def __init__(self, new: Manifest, old: Iterable[Manifest], machine: Machine) -> None:
        """`old` are the releases on the robot, the likeliest first."""
        self._paths: dict[Object, list[str]] = {}
        for path, each in _paths(new, machine):
            self._paths.setdefault(each, []).append(path)
        self._old = [dict(_paths(manifest, machine)) for manifest in old]

    def of(self, wanted: Object) -> list[Object]:
        """Return the objects that may resemble `wanted`, each once."""
        bases = {
            before[path]: None
            for path in self._paths.get(wanted, ())
            for before in self._old
            if path in before and before[path] != wanted
        }
        return list(bases)


def _paths(manifest: Manifest, machine: Machine) -> Iterator[tuple[str, Object]]:
    """Yield what a machine needs, under paths without versions and hashes."""
    for file in manifest.files:
        yield f"files/{file.path}", file.object
    environment = environment_for(manifest, machine)
    for index in () if environment is None else environment.packages:
        package = manifest.packages[index]
        for file in package.files:
            path = _HASHED.sub("", _VERSIONED.sub(r"\1", file.path))
            yield f"{package.name}/{path}", file.object
