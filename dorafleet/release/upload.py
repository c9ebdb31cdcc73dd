"""The operator's end of one transfer: send the missing files to one command on a robot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import asyncssh
import msgspec

from dorad.phrases import size_text
from dorad.release import frames
from dorad.release.errors import ReleaseError
from dorad.release.frames import Begin, Hello, Offer, Received, Refusal
from dorad.release.manifest import Object, all_files
from dorafleet.release.pieces import Bases, Patch, Pieces, read_pieces
from dorafleet.release.progress import Meter, Progress, left
from dorafleet.ssh.errors import Code, SshError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dorafleet.release.store import Bundle, Store

ANSWER_TIMEOUT_S = 90.0
"""How long a robot may take to check a manifest, or its lock."""
STALL_TIMEOUT_S = 60.0
"""How long nothing may arrive."""
END_TIMEOUT_S = 5.0
"""How long a command that has closed its output may take to end."""

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
    """Bytes that have arrived, as they were sent: compressed, and patches."""
    patches: int
    seconds: float

    def __str__(self) -> str:
        if not self.objects:
            return "has it already"
        # Files with the same content are sent once.
        objects = f"{self.objects} object{'' if self.objects == 1 else 's'}"
        patched = f", {self.patches} as patches" if self.patches else ""
        amounts = f"{size_text(self.size)} sent as {size_text(self.sent)}{patched}"
        return f"{objects}, {amounts}, {self.seconds:.1f} s"


class Tracker:
    """The progress of one host over all attempts; reports each change."""

    def __init__(self, machine: str, on_progress: Callable[[Progress], object]) -> None:
        self.progress = Progress(machine, "waiting")
        self.least: int | None = None
        """The fewest bytes that were ever left; None until a robot has said what it lacks."""
        self._report = on_progress
        self._meter = Meter()

    def set(self, **changes: object) -> None:
        """Change fields of the progress."""
        self.progress = msgspec.structs.replace(self.progress, **changes)
        if self.progress.total:
            remaining = self.progress.total - self.progress.done
            self.least = remaining if self.least is None else min(self.least, remaining)
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


class Line(Protocol):
    """Bytes to the receiving end on a robot, and from there."""

    def write(self, content: bytes) -> None:
        """Send bytes, without waiting. Raises OSError if the other end is known to be gone."""

    async def readexactly(self, size: int) -> bytes:
        """Return so many bytes. Raises asyncio.IncompleteReadError at the end."""

    async def why_ended(self) -> SshError:
        """Return why there are no more bytes."""


class SshLine:
    """The pipes of one process on the robot."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._process = process

    def write(self, content: bytes) -> None:
        """See `Line`."""
        self._process.stdin.write(content)

    async def readexactly(self, size: int) -> bytes:
        """See `Line`."""
        return await self._process.stdout.readexactly(size)

    async def why_ended(self) -> SshError:
        """Return why the command on the robot has ended without an answer."""
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
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


class Session:
    """One attempt over one line to the robot."""

    def __init__(
        self,
        line: Line,
        bundle: Bundle,
        store: Store,
        pieces: Pieces,
        tracker: Tracker,
    ) -> None:
        self._line = line
        self._bundle = bundle
        self._store = store
        self._pieces = pieces
        self._tracker = tracker
        self._result = Sent(0, 0, 0, 0, 0.0)
        self._ahead = 0
        """Bytes of pieces that were sent and of which the robot has not said that it has them."""
        self._sent = 0
        """Bytes of pieces so far."""
        self._on_way: deque[tuple[int, int]] = deque()
        """For each piece on the way: `_sent` after it, and the bytes of a file that it brings."""
        self._moved = asyncio.Event()
        """Set when the robot has said that something has arrived."""

    async def run(self, *, patches: bool = True, protocol: int = frames.PROTOCOL) -> Sent:
        """Send what is lacking. Without `patches` all objects go as they are.

        `protocol` is the robot's, or that of the release before.

        Raises:
            SshError: the robot refuses it, or the connection is lost.
            ReleaseError: codes `damaged`, `missing` and `protocol`: another attempt may help.
        """
        manifest = self._bundle.content
        if protocol != frames.FORMER_PROTOCOL:
            manifest = frames.compress(manifest)
        self._write(frames.frame(frames.HELLO, Hello(protocol)))
        self._write(frames.frame(frames.MANIFEST, manifest))
        self._write(frames.frame(frames.SIGNATURE, self._bundle.signature))
        offer = frames.decode(await self._expect_offer(), Offer)
        listening = asyncio.create_task(self._listen())
        sending = asyncio.create_task(self._send(offer, patches=patches))
        try:
            await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and isinstance(sending.exception(), OSError):
                # The robot has ended the command: its answer says why.
                await asyncio.wait({listening}, timeout=ANSWER_TIMEOUT_S)
            if not listening.done():
                await sending
                await asyncio.wait({listening}, timeout=ANSWER_TIMEOUT_S)
            if not listening.done():
                raise _no_answer()
            received = listening.result()
        finally:
            for task in (listening, sending):
                task.cancel()
            await asyncio.wait({listening, sending})
        if received.release != self._bundle.id:
            raise ReleaseError("protocol", "the robot has received another release")
        return self._result

    async def _send(self, offer: Offer, *, patches: bool) -> None:
        every = all_files(self._bundle.manifest)
        known = {(file.sha256, file.executable): file.object for file in every}
        lacking = []
        for each in offer.lacking:
            # Each once: otherwise a robot could ask for the whole release without end.
            wanted = known.pop((each.sha256, each.executable), None)
            if wanted is None:
                raise ReleaseError("protocol", f"the robot asks for {each.sha256}")
            lacking.append((wanted, min(each.arrived, wanted.size)))
        size = sum(each.size for each, _ in lacking)
        self._result = replace(self._result, objects=len(lacking), size=size)
        # A piece that was cut off is sent again.
        arrived = sum(count - count % frames.PIECE_SIZE for _, count in lacking)
        self._tracker.begin(arrived, size)
        bases = self._bases(offer) if patches else None
        for wanted, count in lacking:
            patch = None
            if bases is not None and not count:
                patch = await self._alive(self._pieces.patch(wanted, bases.of(wanted)))
            if patch is None:
                await self._send_plain(wanted, count // frames.PIECE_SIZE)
            else:
                await self._send_patch(wanted, patch, offer.arrived.get(patch.sha256, 0))
        self._write(frames.frame(frames.END))

    def _bases(self, offer: Offer) -> Bases:
        here = {each.id: each.manifest for each in self._store.all()}
        old = [here[each] for each in offer.releases if each in here]
        old = [each for each in old if each.name == self._bundle.manifest.name]
        newest_first = sorted(old, key=lambda each: -each.sequence)
        return Bases(self._bundle.manifest, newest_first, offer.machine)

    async def _send_plain(self, wanted: Object, first: int) -> None:
        """Send an object from its piece `first` on."""
        path = await self._alive(self._pieces.compressed(wanted))
        offset = first * frames.PIECE_SIZE
        begin = Begin(wanted.sha256, wanted.executable, offset)
        self._write(frames.frame(frames.BEGIN, begin))
        rest = wanted.size - offset
        for piece in read_pieces(path, first):
            count = min(frames.PIECE_SIZE, rest)
            rest -= count
            await self._send_piece(piece, count)

    async def _send_patch(self, wanted: Object, patch: Patch, arrived: int) -> None:
        content = patch.content
        # The last byte always goes again, to be counted.
        offset = min(arrived, len(content) - 1)
        begin = Begin(
            wanted.sha256,
            wanted.executable,
            offset,
            patch.sha256,
            len(content),
            patch.base.sha256,
            patch.base.size,
            patch.base.executable,
        )
        self._write(frames.frame(frames.BEGIN, begin))
        for start in range(offset, len(content), frames.PIECE_SIZE):
            piece = content[start : start + frames.PIECE_SIZE]
            last = start + len(piece) == len(content)
            await self._send_piece(piece, wanted.size if last else 0)
        self._result = replace(self._result, patches=self._result.patches + 1)

    async def _send_piece(self, piece: bytes, brings: int) -> None:
        """Send a piece, as soon as the robot is not too far behind."""
        while self._ahead > frames.MAX_AHEAD:
            self._moved.clear()
            try:
                async with asyncio.timeout(STALL_TIMEOUT_S):
                    await self._moved.wait()
            except TimeoutError as error:
                message = f"nothing has arrived for {STALL_TIMEOUT_S:g} s"
                raise SshError(Code.LOST, message) from error
        self._write(frames.frame(frames.PIECE, piece))
        self._ahead += len(piece)
        self._sent += len(piece)
        self._on_way.append((self._sent, brings))

    async def _listen(self) -> Received:
        """Count what arrives, until the robot has everything."""
        while True:
            kind, payload = await self._next()
            if kind == frames.RECEIVED:
                self._count(self._sent)
                return frames.decode(payload, Received)
            if kind != frames.ARRIVED or len(payload) != frames.COUNT.size:
                raise ReleaseError("protocol", f"the robot answers with a message of kind {kind}")
            self._count(min(frames.COUNT.unpack(payload)[0], self._sent))

    def _count(self, arrived: int) -> None:
        """Count what has arrived; `arrived` is the total of bytes of pieces."""
        done = 0
        while self._on_way and self._on_way[0][0] <= arrived:
            done += self._on_way.popleft()[1]
        sent = arrived - (self._sent - self._ahead)
        self._ahead = self._sent - arrived
        self._result = replace(self._result, sent=self._result.sent + sent)
        self._tracker.add(done, sent)
        self._moved.set()

    async def _alive(self, work: Coroutine[None, None, T]) -> T:
        """Wait for work on this side, and send the robot signs of life meanwhile."""
        task = asyncio.create_task(work)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=frames.ALIVE_INTERVAL_S)
                if done:
                    return task.result()
                self._write(frames.frame(frames.ALIVE))
        finally:
            task.cancel()

    def _write(self, content: bytes) -> None:
        # It never waits: MAX_AHEAD bounds what is on the way.
        self._line.write(content)

    async def _expect_offer(self) -> bytes:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                kind, payload = await self._next()
        except TimeoutError as error:
            raise _no_answer() from error
        if kind != frames.OFFER:
            raise ReleaseError("protocol", f"the robot answers with a message of kind {kind}")
        return payload

    async def _next(self) -> tuple[int, bytes]:
        """Return the next frame of the robot. Raises what it refuses."""
        try:
            header = await self._line.readexactly(frames.HEADER.size)
            kind, size = frames.check_header(header)
            payload = await self._line.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise await self._line.why_ended() from error
        if kind != frames.REFUSAL:
            return kind, payload
        refusal = frames.decode(payload, Refusal).error()
        _log.debug("%s: %s", self._tracker.progress.machine, refusal)
        if refusal.code in ("damaged", "protocol", "missing"):
            raise refusal
        code = Code.REFUSED if refusal.refused else Code.FAILED
        raise SshError(code, refusal.message, refusal.hint)


def _no_answer() -> SshError:
    return SshError(Code.TIMEOUT, f"the robot does not answer within {ANSWER_TIMEOUT_S:g} s")
