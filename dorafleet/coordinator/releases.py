"""The releases that operators have registered: manifests and signatures, in the store."""

import asyncio
import logging
import re
import time
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.dataflow.nearest import did_you_mean
from dorad.int64 import Int64
from dorad.release.errors import ReleaseError
from dorad.release.manifest import (
    MAX_MANIFEST,
    MAX_SIGNATURE,
    Manifest,
    Place,
    all_files,
    id_of,
    parse,
)
from dorad.release.signature import signing_key
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.placement import Requirements
from dorafleet.coordinator.requirements import requirements_at
from dorafleet.coordinator.storerecords import read
from dorafleet.coordinator.writer import COORDINATOR
from dorafleet.rollout.messages import ReleaseContent, ReleaseInfo, ReleaseList, ReleasePut
from dorafleet.store.errors import StoreError
from dorafleet.store.model import Store

RELEASES = "release/"
CONTENTS = "release-content/"
UPLOADS = "release-upload/"
"""By id: the number of parts of a release that is being registered. It goes with the last write."""

PART = 256 << 10
"""Bytes of a manifest in one transaction."""

MAX_RELEASES = 500
"""The oldest ones that nothing uses are forgotten first."""

MIN_PREFIX = 6

_PREFIX = re.compile(f"[0-9a-f]{{{MIN_PREFIX},64}}")

_log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """The value of `release/<id>`; it is written last, when all parts are in the store."""

    info: ReleaseInfo
    signature: str
    parts: int
    places: dict[str, Place] | None = None
    """Where each node may run; None of a release that an earlier version has registered, until its
    manifest is read."""


class Releases:
    """The registered releases. `load` reads what is known of them; manifests are read later."""

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet
        self._known: dict[str, Kept] = {}
        self._manifests: dict[str, Manifest] = {}

    async def load(self) -> None:
        """Read what is registered. Raises StoreError."""
        self._known = {
            entry.key.removeprefix(RELEASES): kept
            for entry, kept in await read(self._store, RELEASES, Kept)
        }
        for id_ in self._fleet.releases_in_use:
            kept = self._known.get(id_)
            if kept is not None and kept.places is None:
                try:
                    await self.manifest(id_)
                except (ControlError, ReleaseError) as error:
                    _log.warning(
                        "what the nodes of release %.12s need is not known: %s", id_, error
                    )

    async def forget_unfinished(self) -> None:
        """Remove the parts of releases whose registration a kill has interrupted.

        Call it before any `put`. What cannot be removed now stays until the next start.
        """
        for entry, parts in await read(self._store, UPLOADS, Int64):
            id_ = entry.key.removeprefix(UPLOADS)
            _log.info("release %.12s was not registered completely; its parts are removed", id_)
            try:
                await self._remove(id_, parts, COORDINATOR)
            except StoreError as error:
                _log.warning("the parts of release %.12s stay: %s", id_, error)

    @property
    def all(self) -> ReleaseList:
        """All releases, the newest first."""
        infos = [kept.info for kept in self._known.values()]
        return ReleaseList(releases=sorted(infos, key=lambda info: info.put_at, reverse=True))

    def label(self, id_: str) -> str:
        """Return `name@sequence` of a release; the beginning of its id if it is not known."""
        kept = self._known.get(id_)
        return id_[:12] if kept is None else f"{kept.info.name}@{kept.info.sequence}"

    def needs(self, id_: str) -> tuple[Requirements, ...]:
        """Return the requirements of the nodes of a release; none if they are not known."""
        kept = self._known.get(id_)
        return () if kept is None else requirements_at(kept.places or {})

    def nodes(self, id_: str) -> list[str]:
        """Return the nodes of a release; none if it is not known."""
        kept = self._known.get(id_)
        return [] if kept is None else kept.info.nodes

    def find(self, text: str) -> ReleaseInfo:
        """Return the release with this id, beginning of an id, name, or `name@sequence`.

        Raises:
            ControlError: there is none, or several.
        """
        infos = self.all.releases
        name, at, sequence = text.partition("@")
        if at and sequence.isdecimal():
            matching = [i for i in infos if i.name == name and i.sequence == int(sequence[:16])]
        else:
            matching = [info for info in infos if info.name == text]
            # The name alone is its newest.
            matching = sorted(matching, key=lambda info: (-info.sequence, -info.put_at))[:1]
        if not matching and _PREFIX.fullmatch(text):
            matching = [info for info in infos if info.id.startswith(text)]
        if not matching:
            names = {info.name for info in infos}
            register = f"where it was built, `dorafleet plan {text[:100]}` registers it"
            hint = "" if name in names else did_you_mean(name, names)
            raise ControlError(
                "not-found", f"no release `{text[:100]}` is registered", hint or register
            )
        if len(matching) > 1:
            ids = ", ".join(info.id[:12] for info in matching[:5])
            raise ControlError("ambiguous", f"`{text[:100]}` is one of {ids}", "give the whole id")
        return matching[0]

    async def content(self, id_: str) -> ReleaseContent:
        """Return a release with its manifest. Raises ControlError or StoreError."""
        kept = self._known.get(id_)
        if kept is None:
            raise ControlError("not-found", f"no release {id_[:12]} is registered")
        entries = (await self._store.get(f"{CONTENTS}{id_}/")).entries
        content = b"".join(entry.value for entry in entries)
        return ReleaseContent(info=kept.info, content=content, signature=kept.signature)

    async def manifest(self, id_: str) -> Manifest | None:
        """Return a manifest; None if it is no longer registered. Raises StoreError."""
        if id_ not in self._known:
            return None
        if id_ not in self._manifests:
            content = await self.content(id_)
            if len(self._manifests) >= 8:
                del self._manifests[next(iter(self._manifests))]
            manifest = await asyncio.to_thread(parse, unpacked(content.content))
            self._manifests[id_] = manifest
            kept = self._known.get(id_)
            if kept is not None:
                self._known[id_] = msgspec.structs.replace(kept, places=manifest.places)
        return self._manifests[id_]

    async def put(
        self, params: ReleasePut, by: str, actor: Mapping[str, Any], used: Collection[str]
    ) -> ReleaseInfo:
        """Register a release; one that is registered already stays as it is.

        `used` are those that must not be forgotten.

        Raises:
            ControlError: the manifest is not valid, or the signature is not one of it.
            StoreError: it cannot be written.
        """
        if not 0 < len(params.signature) <= MAX_SIGNATURE:
            raise ControlError("bad-request", "the signature is missing, or too large")
        content = unpacked(params.content)
        try:
            # In threads: a large one takes a second.
            manifest = await asyncio.to_thread(parse, content)
            # Whether the key is trusted, robots judge.
            signature = params.signature.encode("ascii", "replace")
            key = await asyncio.to_thread(signing_key, content, signature)
        except ReleaseError as error:
            raise ControlError("bad-request", error.message, error.hint) from None
        id_ = id_of(content)
        async with self._fleet.writer.changing:
            if id_ in self._known:
                return self._known[id_].info
            await self._forget_oldest(used, actor)
            info = _info(id_, manifest, by)
            packed = zlib.compress(content, 6)
            parts = [packed[at : at + PART] for at in range(0, len(packed), PART)]
            audited = {**actor, "action": "release.put", "release": id_, "name": info.name}
            for number, part in enumerate(parts):
                puts = {f"{CONTENTS}{id_}/{number:04}": part}
                if number == 0:
                    puts[f"{UPLOADS}{id_}"] = str(len(parts)).encode()
                await self._fleet.put_orders({}, {**audited, "part": number}, puts=puts)
            kept = Kept(info, params.signature, len(parts), manifest.places)
            await self._fleet.put_orders(
                {},
                audited,
                puts={f"{RELEASES}{id_}": msgspec.json.encode(kept)},
                deletes=[f"{UPLOADS}{id_}"],
            )
            self._known[id_] = kept
        _log.info(
            "release %s (%s), signed by %s, is registered by %s",
            self.label(id_), id_[:12], key.get_fingerprint(), by,
        )  # fmt: skip
        return info

    async def _forget_oldest(self, used: Collection[str], actor: Mapping[str, Any]) -> None:
        """Make room for one more. Raises ControlError if all are in use."""
        if len(self._known) < MAX_RELEASES:
            return
        free = [info for info in reversed(self.all.releases) if info.id not in used]
        if not free:
            raise ControlError("refused", f"{MAX_RELEASES} releases are in use")
        id_ = free[0].id
        await self._remove(id_, self._known[id_].parts, actor)
        del self._known[id_]
        self._manifests.pop(id_, None)

    async def _remove(self, id_: str, parts: int, actor: Mapping[str, Any]) -> None:
        await self._fleet.put_orders(
            {},
            {**actor, "action": "release.forget", "release": id_},
            deletes=[
                f"{RELEASES}{id_}",
                f"{UPLOADS}{id_}",
                *(f"{CONTENTS}{id_}/{number:04}" for number in range(parts)),
            ],
        )


def unpacked(content: bytes) -> bytes:
    """Return what was compressed with zlib. Raises ControlError if it is not, or too large."""
    engine = zlib.decompressobj()
    try:
        unpacked_content = engine.decompress(content, MAX_MANIFEST + 1)
    except zlib.error:
        raise ControlError("bad-request", "the manifest is not compressed with zlib") from None
    if len(unpacked_content) > MAX_MANIFEST:
        raise ControlError("too-large", f"a manifest has at most {MAX_MANIFEST} bytes")
    if not engine.eof or engine.unused_data:
        raise ControlError("bad-request", "the compressed manifest is not complete")
    return unpacked_content


def _info(id_: str, manifest: Manifest, by: str) -> ReleaseInfo:
    sizes = {file.sha256: file.size for file in all_files(manifest)}
    return ReleaseInfo(
        id=id_,
        name=manifest.name,
        sequence=manifest.sequence,
        created=float(manifest.created),
        put_at=time.time(),
        by=by,
        files=len(manifest.files),
        size=sum(sizes.values()),
        targets=[str(target) for target in manifest.targets],
        nodes=sorted(manifest.nodes),
    )
