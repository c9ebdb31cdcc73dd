"""Write a recording in its own threads, so that a slow disk never delays taking messages.

put       appends to a bounded queue and never waits; beyond the bound, messages are dropped
writer    encodes, fills chunks, writes them, starts the next file of a split
syncer    see `Syncer`; the writer waits for it while much is written that is not on the disk
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from dorad.record.box.blackbox import BlackBox, Limits
from dorad.record.encoding.extras import is_own
from dorad.record.encoding.messages import Encoded
from dorad.record.mcap.chunk import CHUNK_BYTES
from dorad.record.mcap.items import size_of, stamp_of
from dorad.record.mcap.layout import McapError
from dorad.record.recorder.outcome import Progress, RecordingOutcome
from dorad.record.recorder.series import FileSeries
from dorad.record.recorder.syncer import Syncer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dorad.record.mcap.items import Item
    from dorad.record.mcap.layout import Attachment
    from dorad.record.mcap.writer import RecordingFile
    from dorad.record.recorder.settings import Settings

_log = logging.getLogger(__name__)

CHUNK_S = 0.25
"""A chunk is written when it has `CHUNK_BYTES`, or this long after its first message."""

WAKE_BYTES = CHUNK_BYTES // 4
"""Queued bytes at which the writer wakes before a chunk is due: each time costs as much as writing
fifty small messages. With two chunks it takes 4 % less CPU, and loses twice as much at SIGKILL."""

LARGE = 1 << 20
"""Bytes from which on a message is large: it has three quarters of the memory at most."""

HURRY_S = 2.0
"""Seconds in which a recorder that must end writes what is queued; it drops the rest."""

STEP_NS = 50_000_000
"""A change of the difference between wall clock and monotonic clock that counts as a step."""


class Recorder:
    """One recording. `put` from one thread; `end` once."""

    def __init__(
        self,
        settings: Settings,
        about: Mapping[str, str],
        attachments: Sequence[Attachment] = (),
    ) -> None:
        """Create the first file and start the threads. Raises OSError."""
        self._settings = settings
        self._queue: list[Item] = []
        self._queued_s = 0.0
        """When the first message of the queue came, on the monotonic clock."""
        self._batch: list[Item] = []
        """What the writer has taken out of the queue and not yet added to the file."""
        self._queued_bytes = 0
        self._large_bytes = 0
        """Of large messages; see `LARGE`."""
        self._changed = threading.Condition()
        self._ending = False
        self._deadline_s = math.inf
        """When to drop what is still queued, on the monotonic clock."""
        self.dropped: Counter[str] = Counter()
        """Messages that are not in the recording, by topic."""
        self._refused: set[str] = set()
        """Topics with a message that could not be recorded."""
        self.reason = ""
        """Why the recording ended by itself; empty while it runs."""
        self._failed = False
        self._box = _black_box(settings)
        self._clock_ns = _clock_difference()
        self._steps: list[int] = []
        self._chunk_due = 0.0
        self._started_s = time.monotonic()
        last = 0 if self._box is None else self._box.last_number
        try:
            self._series = FileSeries(settings, about, attachments, last)
        except OSError:
            if self._box is not None:
                self._box.close()
            raise
        self._syncer = Syncer(self._series, settings, self._box, self._disk_failed)
        self._writer = threading.Thread(target=self._write_all, name="writer", daemon=True)
        self._writer.start()
        self._syncer.start()

    @property
    def incidents(self) -> list[str]:
        """The ids of new incidents of the black box; the caller takes them out."""
        return self._syncer.incidents

    @property
    def ended(self) -> bool:
        """True once the recording has ended by itself; `end` must still be called."""
        return bool(self.reason)

    @property
    def progress(self) -> Progress:
        """What has been recorded so far."""
        series = self._series
        counts = series.messages_by_topic
        return Progress(
            sum(count for topic, count in counts.items() if not is_own(topic)),
            series.bytes + series.file.pending,
            self._syncer.free,
            sum(self.dropped.values()),
            series.count,
        )

    def put(self, items: Sequence[Item]) -> None:
        """Queue messages; drop and count those for which there is no memory."""
        if not items:
            return
        total = sum(map(size_of, items))
        with self._changed:
            if self.reason:
                if self._failed:
                    self.dropped.update(item.topic for item in items)
                return  # recording has ended
            if not self._queue:
                self._queued_s = time.monotonic()
            if self._queued_bytes + total <= self._settings.memory:
                self._queue += items
                self._queued_bytes += total
                if total > LARGE:
                    self._large_bytes += _large_bytes(items)
            else:
                self._put_some(items)
            if self._queued_bytes >= WAKE_BYTES:
                self._changed.notify()

    def _put_some(self, items: Sequence[Item]) -> None:
        """Queue the messages for which there is memory; drop and count the others.

        A quarter of the memory is for small messages, and one large message is always taken: a
        picture that is larger than the memory must not cost the others theirs.
        """
        memory = self._settings.memory
        for item in items:
            size = size_of(item)
            fits = self._queued_bytes + size <= memory
            if size > LARGE:
                fits = not self._large_bytes or (
                    fits and self._large_bytes + size <= memory * 3 // 4
                )
                self._large_bytes += size * fits
            else:
                fits = fits or self._queued_bytes - self._large_bytes + size <= memory // 4
            if fits:
                self._queue.append(item)
                self._queued_bytes += size
            else:
                self.dropped[item.topic] += 1

    def hurry(self) -> None:
        """End within moments, even if the disk is too slow for what is queued.

        May be called by a signal handler: it takes no lock.
        """
        self._deadline_s = min(self._deadline_s, time.monotonic() + HURRY_S)

    def end(
        self, reason: str, dropped: Mapping[str, int], *, complete: bool = True
    ) -> RecordingOutcome:
        """Write what is queued, close the file and return how it went.

        `dropped` are messages that left their queues before `put` could get them, by topic.
        """
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._writer.join()
        try:
            self._syncer.stop()
        except OSError as error:
            self._failed = True
            _log.warning("a part of the recording cannot be synced: %s", error.strerror)
        self.dropped.update(dropped)
        self.dropped += Counter()  # drop the zeros
        reason = self.reason or reason
        complete = complete and not self._failed and not self.dropped
        closed = self._close_file(reason, complete=complete)
        if self._box is not None:
            self._end_box(self._box)
        series = self._series
        return RecordingOutcome(
            complete and not self._failed,
            self.reason or reason,
            series.messages,
            series.bytes,
            tuple(series.paths) if self._settings.box is None else (self._settings.box,),
            dict(self.dropped),
            dict(series.messages_by_topic),
            closed,
        )

    def _end_box(self, box: BlackBox) -> None:
        """Make the incidents that were asked for last, of all that was recorded."""
        try:
            self.incidents.extend(box.tend())
        except OSError as error:
            _log.warning("the last incidents are not kept: %s", error.strerror)
        box.close()

    def _close_file(self, reason: str, *, complete: bool) -> bool:
        """Finish the last file as far as the disk allows; return True if that worked."""
        try:
            self._series.close(self._end_values(reason, complete=complete))
        except OSError as error:
            path = self._series.file.path
            _log.warning("%s is not closed properly: %s", path, error.strerror)
            self._failed = True
            self.reason = self.reason or f"cannot write: {error.strerror}"
            return False
        return True

    def _end_values(self, reason: str, *, complete: bool) -> dict[str, str]:
        values = {
            "status": "COMPLETE" if complete else "INCOMPLETE",
            "reason": reason,
            "end_ns": str(time.time_ns()),
            "dropped": str(sum(self.dropped.values())),
            "clock_steps_ns": ",".join(map(str, self._steps)),
        }
        return values | {f"dropped.{topic}": str(n) for topic, n in self.dropped.items() if n}

    def _write_all(self) -> None:
        try:
            while self._write_some():
                pass
        except OSError as error:
            self._fail(f"cannot write {self._series.file.path}: {error.strerror}")
        except McapError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - raised again in the thread that takes messages
            _log.error("the recorder has failed", exc_info=error)
            self._fail(f"the recorder has failed: {error!r}")

    def _write_some(self) -> bool:
        """Write what is queued, and the open chunk if it is due; return False at the end."""
        with self._changed:
            if not self._ending and not self.reason and self._queued_bytes < WAKE_BYTES:
                self._changed.wait(self._wait_s())
            items, self._queue = self._queue, []
            chunk_due = self._queued_s + CHUNK_S
            ending = self._ending or bool(self.reason)
        items.sort(key=stamp_of)
        self._batch = items
        if not self._series.file.pending:
            self._chunk_due = chunk_due
        while self._batch:
            if self._late:
                count = self._drop_queued()
                _log.warning("%d messages are dropped: the disk is too slow for them", count)
                break
            self._add_some(self._batch)
            if self._series.file.pending >= CHUNK_BYTES:
                if not self._flush():
                    return False
                self._chunk_due = chunk_due
                self._check_limits()
                self._syncer.wait_for_disk(lambda: bool(self.reason) or self._late)
        due = ending or time.monotonic() >= self._chunk_due
        if self._series.file.pending and due and not self._flush():
            return False
        self._check_limits()
        self._check_clock()
        return not ending or bool(self._queue)

    def _flush(self) -> bool:
        """Write the open chunk; end the recording and return False if the disk has no room."""
        if reason := self._syncer.refusal(self._series.file.pending):
            self._fail(reason)
            return False
        self._series.file.flush()
        return True

    @property
    def _late(self) -> bool:
        return time.monotonic() >= self._deadline_s

    def _drop_queued(self) -> int:
        """Drop and count what is not yet in the file; return the number of messages."""
        with self._changed:
            left = [*self._batch, *self._queue]
            self.dropped.update(item.topic for item in left)
            self._batch, self._queue = [], []
            self._queued_bytes = self._large_bytes = 0
        return len(left)

    def _wait_s(self) -> float:
        """Return the seconds until a chunk is due; there may be none yet."""
        now = time.monotonic()
        if self._series.file.pending:
            return max(0.0, self._chunk_due - now)
        if self._queue:
            return max(0.0, self._queued_s + CHUNK_S - now)
        return CHUNK_S

    def _add_some(self, batch: list[Item]) -> None:
        """Add messages of a batch until the chunk is full; take them out of the batch."""
        file, at = self._series.file, 0
        try:
            while at < len(batch) and file.pending < CHUNK_BYTES:
                at = file.add_small(batch, at, CHUNK_BYTES)
                if at < len(batch) and file.pending < CHUNK_BYTES:
                    self._add(file, batch[at])
                    at += 1
        finally:
            written = sum(map(size_of, batch[:at]))
            large = _large_bytes(batch[:at]) if written > LARGE else 0
            del batch[:at]
            with self._changed:
                self._queued_bytes -= written
                self._large_bytes -= large

    def _add(self, file: RecordingFile, item: Item) -> None:
        content = item.content
        try:
            if isinstance(content, Encoded):
                file.add(item.topic, item.sequence, item.stamp, content)
            else:
                file.add_raw(item.topic, item.sequence, item.stamp, *content)
        except McapError:
            raise
        except (ValueError, OverflowError) as error:
            # Once for each topic: a node can send any number of such messages.
            level = logging.DEBUG if item.topic in self._refused else logging.WARNING
            self._refused.add(item.topic)
            _log.log(level, "a message on %s cannot be recorded: %s", item.topic, error)
            self.dropped[item.topic] += 1

    def _check_limits(self) -> None:
        """Start the next file, or stop, if a limit is reached."""
        settings, series = self._settings, self._series
        total = series.bytes
        if settings.max_bytes is not None and self._box is None and total >= settings.max_bytes:
            self._stop("the size that --max-size allows is reached")
        duration_s = settings.duration_s
        if duration_s is not None and time.monotonic() >= self._started_s + duration_s:
            self._stop("the time of --duration is over")
        if series.split_due and not self.reason and self._flush():
            series.split(self._end_values("split", complete=not self.dropped))

    def _check_clock(self) -> None:
        difference = _clock_difference()
        if abs(difference - self._clock_ns) > STEP_NS:
            self._steps = [*self._steps[-99:], difference - self._clock_ns]
            _log.warning("the wall clock was set by %.3f s", self._steps[-1] / 1e9)
            if self._box is not None:
                self._series.split_early()
        self._clock_ns = difference

    def _stop(self, reason: str) -> None:
        """End the recording; what was recorded is complete."""
        with self._changed:
            if not self.reason:
                _log.info("the recording ends: %s", reason)
                self.reason = reason
            self._changed.notify()

    def _fail(self, reason: str) -> None:
        """End the recording; messages are missing at its end."""
        self._failed = True
        self._drop_queued()
        self._stop(reason)
        try:
            if not self._series.file.finished:
                self._series.file.cut()
        except OSError as error:
            _log.warning("%s cannot be cut: %s", self._series.file.path, error.strerror)
        self.dropped.update(self._series.file.drop_pending())

    def _disk_failed(self, reason: str) -> None:
        """End the recording unless it has ended: its disk is full or broken."""
        if not self.reason:
            self._failed = True
            self._stop(reason)


def _large_bytes(items: Iterable[Item]) -> int:
    return sum(size for size in map(size_of, items) if size > LARGE)


def _black_box(settings: Settings) -> BlackBox | None:
    if settings.box is None or settings.keep_s is None:
        return None
    limits = Limits(
        settings.keep_s, settings.max_bytes, settings.incident_s, settings.incident_bytes
    )
    return BlackBox(settings.box, limits)


def _clock_difference() -> int:
    return time.time_ns() - time.monotonic_ns()
