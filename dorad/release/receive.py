"""The receiving end of a transfer: accepts the missing files of a release, and nothing else.

Parts of an object stay when the connection is cut, and the next transfer continues there.
"""

from __future__ import annotations

import logging
import os
import select
import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from dorad.atomicfile import DISK_FULL
from dorad.release import frames
from dorad.release.errors import ReleaseError
from dorad.release.frames import Begin, Hello, Lacking, Offer, Received, Refusal
from dorad.release.manifest import MAX_MANIFEST, Object, id_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import msgspec

    from dorad.release.machine import Machine
    from dorad.release.objects import ObjectStore

MAX_PARTIAL_PATCHES = 1000
IDLE_S = 900.0
"""Seconds in which a sender may prepare the next object, and say only that it is alive."""

T = TypeVar("T")
M = TypeVar("M")
"""The manifest of what arrives: that of a release, or of an incident."""
_log = logging.getLogger(__name__)


class Destination(Protocol[M]):
    """Where files arrive: the releases of a robot (`Trees`), or what a coordinator keeps."""

    @property
    def folder(self) -> Path:
        """Where it is, for messages."""

    @property
    def objects(self) -> ObjectStore:
        """The contents of files."""

    @property
    def machine(self) -> Machine:
        """What the files are for; patches are chosen by it."""

    def verify(self, content: bytes, signature: bytes) -> tuple[M, object]:
        """Return the manifest in `content`. Raises ReleaseError if it is not accepted."""

    def lock(self, *, wait: bool) -> AbstractContextManager[None]:
        """Keep others from changing the folder. Raises ReleaseError with code `busy`."""

    def check_space(self, manifest: M) -> None:
        """Check that there is room. Raises ReleaseError with code `space`."""

    def put_manifest(self, content: bytes, signature: bytes) -> M:
        """Keep a manifest whose files begin to arrive. Raises ReleaseError or OSError."""

    def lacking(self, manifest: M) -> list[Object]:
        """Return the objects that have not arrived."""

    def ids(self) -> list[str]:
        """Return the releases that are complete."""

    def complete(self, content: bytes, signature: bytes) -> None:
        """Take a release whose files have all arrived. Raises OSError."""


class SenderLostError(Exception):
    """The sender is gone. What has arrived is kept."""


class Receiver(Generic[M]):
    """One transfer to this machine, over two descriptors."""

    def __init__(
        self,
        destination: Destination[M],
        source: int,
        target: int,
        *,
        silence: float = frames.SILENCE_S,
    ) -> None:
        """`silence` is how many seconds the sender may be quiet."""
        self._destination = destination
        self._source = source
        self._target = target
        self._silence = silence
        self._arrived = 0
        """Bytes of pieces so far."""
        self._told = 0
        self._lacking: set[str] = set()
        """The SHA-256 of what was lacking at first."""

    def run(self) -> str:
        """Receive one release and return its id.

        Raises:
            ReleaseError: it is refused, or not complete; the sender has the reason.
            SenderLostError: the sender is gone.
        """
        try:
            release = self._receive()
        except ReleaseError as error:
            _log.debug("refused: %s", error)
            self._send(frames.REFUSAL, Refusal(error.code, error.message, error.hint))
            raise
        self._send(frames.RECEIVED, Received(release))
        return release

    def _receive(self) -> str:
        hello = frames.decode(self._expect(frames.HELLO), Hello)
        if hello.protocol not in (frames.PROTOCOL, frames.FORMER_PROTOCOL):
            message = f"it speaks protocol {hello.protocol}, this one {frames.PROTOCOL}"
            raise ReleaseError("protocol", message, "install the same release of dorad on both")
        content = self._expect(frames.MANIFEST)
        if hello.protocol != frames.FORMER_PROTOCOL:
            content = frames.decompress(content, MAX_MANIFEST)
        signature = self._expect(frames.SIGNATURE)
        destination = self._destination
        # Before the lock, so that a sender without a trusted key cannot keep others out.
        destination.verify(content, signature)
        with destination.lock(wait=True):
            manifest, _ = destination.verify(content, signature)
            try:
                destination.check_space(manifest)
                destination.put_manifest(content, signature)
                self._receive_objects(destination.lacking(manifest))
                if lacking := destination.lacking(manifest):
                    message = f"{len(lacking)} files were not sent"
                    raise ReleaseError("missing", message, "try again")
                destination.complete(content, signature)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                destination.objects.forget_partials()
                message = f"{destination.folder} is full: {error.strerror}"
                raise ReleaseError("space", message, "remove something there") from error
        return id_of(content)

    def _receive_objects(self, lacking: list[Object]) -> None:
        objects = self._destination.objects
        offer = Offer(
            [
                Lacking(each.sha256, each.executable, objects.partial_size(each.sha256))
                for each in lacking
            ],
            self._destination.machine,
            self._destination.ids(),
            objects.partials(MAX_PARTIAL_PATCHES),
        )
        _log.debug("%d objects are lacking", len(lacking))
        self._send(frames.OFFER, offer)
        wanted = {(each.sha256, each.executable): each for each in lacking}
        self._lacking = {each.sha256 for each in lacking}
        while True:
            kind, payload = self._next()
            if kind == frames.END:
                return
            if kind != frames.BEGIN:
                raise ReleaseError("protocol", f"a message of kind {kind} is out of place")
            begin = frames.decode(payload, Begin)
            each = wanted.pop((begin.sha256, begin.executable), None)
            if each is None:
                raise ReleaseError(
                    "protocol", f"{begin.sha256} was sent although it is not lacking"
                )
            if begin.patch is None:
                self._receive_plain(each, begin)
            else:
                self._receive_patched(each, begin, begin.patch)

    def _receive_plain(self, each: Object, begin: Begin) -> None:
        """Append to what has arrived of an object until it is complete."""
        objects = self._destination.objects
        have = self._start(begin, objects.partial_size(each.sha256))
        with objects.open_partial(each.sha256) as file:
            file.truncate(have)
            while have < each.size:
                limit = min(frames.PIECE_SIZE, each.size - have)
                content = self._expect(frames.PIECE)
                piece = frames.decompress(content, limit)
                if not piece:
                    raise ReleaseError("protocol", "a piece is empty")
                file.write(piece)
                have += len(piece)
                self._count(len(content))
        objects.finish(each)

    def _receive_patched(self, each: Object, begin: Begin, patch: str) -> None:
        """Append to what has arrived of a patch, then make the object with it."""
        objects = self._destination.objects
        base = begin.base_object
        if base is None or not objects.has(base) or each.size > frames.MAX_PATCHED:
            raise ReleaseError("protocol", f"{each.sha256} cannot come as a patch")
        have = self._start(begin, objects.partial_size(patch))
        # Parts of other patches would fill the disk, one transfer after the other.
        objects.forget_partials(objects.partials().keys() - self._lacking - {patch})
        with objects.open_partial(patch) as file:
            file.truncate(have)
            while have < begin.patch_size:
                piece = self._expect(frames.PIECE)
                if not 0 < len(piece) <= begin.patch_size - have:
                    raise ReleaseError("protocol", "a piece of a patch is longer than the patch")
                file.write(piece)
                have += len(piece)
                self._count(len(piece))
        try:
            if not objects.check(base):
                raise ReleaseError("damaged", "a file that a patch starts from is damaged")
            content = frames.decompress(
                objects.partial(patch).read_bytes(), each.size, objects.read(base)
            )
        finally:
            objects.forget_partials({patch})
        with objects.open_partial(each.sha256) as file:
            file.truncate(0)
            file.write(content)
        objects.finish(each)

    def _count(self, size: int) -> None:
        """Count a written piece, and report to the sender from time to time."""
        self._arrived += size
        if self._arrived - self._told >= frames.ARRIVED_STEP:
            self._told = self._arrived
            self._send_bytes(frames.frame(frames.ARRIVED, frames.COUNT.pack(self._arrived)))

    def _start(self, begin: Begin, arrived: int) -> int:
        if begin.offset > arrived:
            message = f"{begin.sha256} continues at {begin.offset}, but {arrived} bytes arrived"
            raise ReleaseError("protocol", message)
        return begin.offset

    def _expect(self, wanted: int) -> bytes:
        kind, payload = self._next()
        if kind != wanted:
            raise ReleaseError("protocol", f"a message of kind {kind} is out of place")
        return payload

    def _next(self) -> tuple[int, bytes]:
        """Return the next frame that is not just a sign of life."""
        end = time.monotonic() + IDLE_S
        while True:
            kind, size = frames.check_header(self._read(frames.HEADER.size))
            payload = self._read(size)
            if kind != frames.ALIVE:
                return kind, payload
            if time.monotonic() > end:
                # It would keep all others out.
                raise SenderLostError(f"the sender has sent nothing for {IDLE_S:g} s")

    def _read(self, size: int) -> bytes:
        pieces, rest = [], size
        while rest:
            ready, _, _ = select.select([self._source], [], [], self._silence)
            if not ready:
                raise SenderLostError(f"the sender was silent for {self._silence:g} s")
            piece = os.read(self._source, min(rest, 1 << 20))
            if not piece:
                raise SenderLostError("the sender has ended the connection")
            pieces.append(piece)
            rest -= len(piece)
        return b"".join(pieces)

    def _send(self, kind: int, message: msgspec.Struct) -> None:
        self._send_bytes(frames.frame(kind, message))

    def _send_bytes(self, content: bytes) -> None:
        rest = memoryview(content)
        end = time.monotonic() + self._silence
        while rest:
            _, ready, _ = select.select([], [self._target], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise SenderLostError("the sender reads no answer")
            try:
                # No more than a pipe takes at once, so that it cannot block.
                rest = rest[os.write(self._target, rest[: select.PIPE_BUF]) :]
            except BrokenPipeError as error:
                raise SenderLostError("the sender has ended the connection") from error
