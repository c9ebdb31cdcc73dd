"""The operator's end of one transfer: what a robot lacks goes over one command on it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import asyncssh
import msgspec

from dorad.release import frames
from dorad.release.errors import ReleaseError
from dorad.release.frames import Begin, Hello, Offer, Received, Refusal
from dorad.release.manifest import Object, all_files
from dorafleet.release.pieces import Bases, read_pieces
from dorafleet.release.progress import Meter, Progress, left
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dorafleet.release.pieces import Patch, Pieces
    from dorafleet.release.store import Bundle, Store

ANSWER_TIMEOUT_S = 90.0
"""How long a robot may take to check a manifest, or its lock."""
STALL_TIMEOUT_S = 60.0
"""How long one piece may take."""
HIGH_WATER = 256 << 10
"""Bytes that are written before waiting."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of a transfer."""

    objects: int
    """Files that were lacking."""
    size: int
    """Bytes of them."""
    sent: int
    """Bytes that went over the network, compressed, in all attempts."""
    patches: int
    seconds: float

    def __str__(self) -> str:
        if not self.objects:
            return "has it already"
        files = f"{self.objects} file{'' if self.objects == 1 else 's'}"
        patched = f", {self.patches} as patches" if self.patches else ""
        amounts = f"{self.size / 1e6:.1f} MB as {self.sent / 1e6:.2f} MB{patched}"
        return f"{files}, {amounts}, {self.seconds:.1f} s"


class Tracker:
    """The progress of one host over all attempts; reports each change."""

    def __init__(self, machine: str, on_progress: Callable[[Progress], object]) -> None:
        self.progress = Progress(machine, "waiting")
        self._report = on_progress
        self._meter = Meter()

    def set(self, **changes: object) -> None:
        """Change fields of the progress."""
        self.progress = msgspec.structs.replace(self.progress, **changes)
        self._report(self.progress)

    def begin(self, done: int, total: int) -> None:
        """Start to count: `done` bytes of `total` have arrived earlier."""
        self._meter = Meter()
        self._meter.add(time.monotonic(), done)
        self.set(state="sending", done=done, total=total, rate=0.0, left=None, message="")

    def add(self, done: int, sent: int) -> None:
        """Count bytes of files that have been sent, and what they were compressed to."""
        count = self.progress.done + done
        rate = self._meter.add(time.monotonic(), count)
        self.set(
            done=count,
            sent=self.progress.sent + sent,
            rate=rate,
            left=left(count, self.progress.total, rate),
        )


class Session:
    """One attempt over one process on the robot."""

    def __init__(
        self,
        process: asyncssh.SSHClientProcess[bytes],
        bundle: Bundle,
        store: Store,
        pieces: Pieces,
        tracker: Tracker,
    ) -> None:
        self._process = process
        self._bundle = bundle
        self._store = store
        self._pieces = pieces
        self._tracker = tracker
        self._result = Sent(0, 0, 0, 0, 0.0)
        self._unsent = 0

    async def run(self, *, patches: bool = True) -> Sent:
        """Send what is lacking. Without `patches` all objects go as they are.

        Raises:
            SshError: the robot refuses it, or the connection is lost.
            ReleaseError: codes `damaged` and `protocol`: another attempt may help.
        """
        self._write(frames.frame(frames.HELLO, Hello(frames.PROTOCOL)))
        self._write(frames.frame(frames.MANIFEST, self._bundle.content))
        self._write(frames.frame(frames.SIGNATURE, self._bundle.signature))
        offer = frames.decode(await self._expect(frames.OFFER), Offer)
        answer = asyncio.create_task(self._expect(frames.RECEIVED))
        try:
            try:
                await self._send(offer, answer, patches=patches)
            except OSError:
                # The robot has ended the command: its answer says why.
                await answer
                raise
            received = frames.decode(await answer, Received)
        finally:
            answer.cancel()
        if received.release != self._bundle.id:
            raise ReleaseError("protocol", "the robot has received another release")
        return self._result

    async def _send(self, offer: Offer, answer: asyncio.Task[bytes], *, patches: bool) -> None:
        known = {
            (file.sha256, file.executable): file.object for file in all_files(self._bundle.manifest)
        }
        lacking = []
        for each in offer.lacking:
            wanted = known.get((each.sha256, each.executable))
            if wanted is None:
                raise ReleaseError("protocol", f"the robot asks for {each.sha256}")
            lacking.append((wanted, min(each.arrived, wanted.size)))
        self._result = replace(
            self._result, objects=len(lacking), size=sum(each.size for each, _ in lacking)
        )
        arrived = sum(count for _, count in lacking)
        self._tracker.begin(arrived, self._result.size)
        bases = self._bases(offer) if patches else None
        for wanted, count in lacking:
            if answer.done():
                await answer
            patch = None
            if bases is not None and not count:
                patch = await self._alive(self._pieces.patch(wanted, bases.of(wanted)))
            if patch is None:
                await self._send_plain(wanted, count)
            else:
                await self._send_patch(wanted, patch, offer.arrived.get(patch.sha256, 0))
        self._write(frames.frame(frames.END))
        await self._drain()

    def _bases(self, offer: Offer) -> Bases:
        here = {each.id: each.manifest for each in self._store.all()}
        old = [here[each] for each in offer.releases if each in here]
        old = [each for each in old if each.name == self._bundle.manifest.name]
        newest_first = sorted(old, key=lambda each: -each.sequence)
        return Bases(self._bundle.manifest, newest_first, offer.machine)

    async def _send_plain(self, wanted: Object, arrived: int) -> None:
        path = await self._alive(self._pieces.compressed(wanted))
        first = arrived // frames.PIECE_SIZE
        offset = first * frames.PIECE_SIZE
        self._tracker.add(offset - arrived, 0)
        self._write(frames.frame(frames.BEGIN, Begin(wanted.sha256, wanted.executable, offset)))
        rest = wanted.size - offset
        for piece in read_pieces(path, first):
            self._write(frames.frame(frames.PIECE, piece))
            await self._drain()
            count = min(frames.PIECE_SIZE, rest)
            rest -= count
            self._count(count, len(piece))

    async def _send_patch(self, wanted: Object, patch: Patch, arrived: int) -> None:
        offset = min(arrived, len(patch.content))
        begin = Begin(
            wanted.sha256,
            wanted.executable,
            offset,
            patch.sha256,
            len(patch.content),
            patch.base.sha256,
            patch.base.size,
            patch.base.executable,
        )
        self._write(frames.frame(frames.BEGIN, begin))
        for start in range(offset, len(patch.content), frames.PIECE_SIZE):
            piece = patch.content[start : start + frames.PIECE_SIZE]
            self._write(frames.frame(frames.PIECE, piece))
            await self._drain()
            self._count(0, len(piece))
        self._result = replace(self._result, patches=self._result.patches + 1)
        self._count(wanted.size, 0)

    def _count(self, done: int, sent: int) -> None:
        self._result = replace(self._result, sent=self._result.sent + sent)
        self._tracker.add(done, sent)

    async def _alive(self, work: Coroutine[None, None, T]) -> T:
        """Wait for work on this side, and tell the robot meanwhile that it goes on."""
        task = asyncio.create_task(work)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=frames.ALIVE_INTERVAL_S)
                if done:
                    return task.result()
                self._write(frames.frame(frames.ALIVE))
                await self._drain(at_once=True)
        finally:
            task.cancel()

    def _write(self, content: bytes) -> None:
        self._process.stdin.write(content)
        self._unsent += len(content)

    async def _drain(self, *, at_once: bool = False) -> None:
        if self._unsent < HIGH_WATER and not at_once:
            return
        self._unsent = 0
        try:
            async with asyncio.timeout(STALL_TIMEOUT_S):
                await self._process.stdin.drain()
        except TimeoutError as error:
            message = f"nothing has moved for {STALL_TIMEOUT_S:g} s"
            raise SshError(Code.LOST, message) from error

    async def _expect(self, wanted: int) -> bytes:
        """Return the payload of the next frame, which must be of this kind."""
        # What is refused or complete comes only after the whole transfer.
        limit = ANSWER_TIMEOUT_S if wanted == frames.OFFER else None
        try:
            async with asyncio.timeout(limit):
                header = await self._process.stdout.readexactly(frames.HEADER.size)
                kind, size = frames.check_header(header)
                payload = await self._process.stdout.readexactly(size)
        except TimeoutError as error:
            message = f"the robot does not answer within {ANSWER_TIMEOUT_S:g} s"
            raise SshError(Code.TIMEOUT, message) from error
        except asyncio.IncompleteReadError as error:
            raise await self._ended() from error
        if kind == frames.REFUSAL:
            refusal = frames.decode(payload, Refusal).error()
            _log.debug("%s: %s", self._tracker.progress.machine, refusal)
            if refusal.code in ("damaged", "protocol", "missing"):
                raise refusal
            raise SshError(Code.REFUSED, refusal.message, refusal.hint)
        if kind != wanted:
            raise ReleaseError("protocol", f"the robot answers with a message of kind {kind}")
        return payload

    async def _ended(self) -> SshError:
        """Return why the command on the robot has ended without an answer."""
        try:
            async with asyncio.timeout(STALL_TIMEOUT_S):
                shown = await self._process.stderr.read(1 << 16)
                await self._process.wait_closed()
        except (TimeoutError, OSError, asyncssh.Error):
            return SshError(Code.LOST, "the connection was lost")
        code = self._process.returncode
        if code is None or code < 0:
            return SshError(Code.LOST, "the connection was lost")
        lines = shown.decode(errors="replace").strip().splitlines()
        reason = lines[-1].strip()[:300] if lines else f"exit code {code}"
        if "No such command" in reason:
            return SshError(Code.FAILED, "its dorad cannot receive releases", "upgrade the package")
        return SshError(Code.FAILED, f"`dorad-agent release receive` failed: {reason}")
