"""Bring what a recorder writes to the disk, in a thread, and watch the disk.

Every `SYNC_S`, or when much is written: fdatasync, close files of a split, tend the black box, look
how much is free. The page cache takes what a slow disk cannot; so the writer waits here before more
is ahead of the disk than it takes in about a second. A power cut, or the end of the recorder, would
find any amount there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from dorad.record.mcap.writer import drop_cached
from dorad.record.recorder.settings import min_free

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.record.box.blackbox import BlackBox
    from dorad.record.recorder.series import FileSeries
    from dorad.record.recorder.settings import Settings

_log = logging.getLogger(__name__)

SYNC_S = 0.5
AHEAD_S = 1.0
"""Seconds that the disk may need for what is written and not synced."""

MIN_AHEAD = 4 << 20
"""Bytes that may be ahead of any disk."""

FIRST_AHEAD = 16 << 20
"""Bytes that may be ahead of a disk whose speed is not yet known."""

END_BYTES = 1 << 20
"""Bytes that the end of a file may take."""

_MEASURABLE = 1 << 20
"""Bytes from which on the time of a sync shows the speed of a disk, not only its latency."""


def allowed_ahead(before: int, synced: int, seconds: float) -> int:
    """Return how many bytes may be ahead after a sync of some bytes; `before` is the last answer.

    It grows to twice the last answer at most: a single fast sync says little.
    """
    if synced < _MEASURABLE or seconds <= 0:
        return before
    return max(MIN_AHEAD, min(int(synced / seconds * AHEAD_S), 2 * before))


class Syncer:
    """The syncing thread of one recording, and what it has found."""

    def __init__(
        self,
        series: FileSeries,
        settings: Settings,
        box: BlackBox | None,
        fail: Callable[[str], None],
    ) -> None:
        """Look at the disk. `fail` is called with the reason if the recording cannot continue."""
        self.free = 0
        """Free bytes of the disk."""
        self.incidents: list[str] = []
        """The ids of new incidents of the black box."""
        self._series = series
        self._settings = settings
        self._box = box
        self._fail = fail
        self._changed = threading.Condition()
        self._synced = 0
        """Bytes of the series that are on the disk."""
        self._allowed = FIRST_AHEAD
        self._wanted = END_BYTES
        """Bytes for which a black box makes room beyond what must stay free."""
        self._checks = 0
        """How often the disk was looked at."""
        self._wake = threading.Event()
        self._stopped = False
        self._check_disk()
        self._thread = threading.Thread(target=self._run, name="syncer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, then close the files before the present one. Raises OSError."""
        self._stopped = True
        self._wake.set()
        self._thread.join()
        self._series.sync_finished()

    def wait_for_disk(self, given_up: Callable[[], bool]) -> None:
        """Wait while too much is written that is not synced, or until `given_up` is true."""
        written = self._series.bytes
        if written - self._synced > self._allowed // 2:
            self._wake.set()
        with self._changed:
            while written - self._synced > self._allowed and not given_up():
                self._changed.wait(SYNC_S)

    def _run(self) -> None:
        synced = (-1, 0)
        while True:
            self._wake.wait(SYNC_S)
            self._wake.clear()
            if self._stopped:
                break
            try:
                synced = self._sync(synced)
                self._series.check_present()
                self._check_disk()
            except Exception as error:  # noqa: BLE001 - raised again in the thread that takes messages
                _log.warning("the recording cannot be synced: %s", error)
                text = error.strerror if isinstance(error, OSError) else error
                self._fail(f"cannot write to the disk: {text}")

    def _sync(self, synced: tuple[int, int]) -> tuple[int, int]:
        """Sync all files; `synced` is what this has returned before. Raises OSError."""
        written, began_s = self._series.bytes, time.monotonic()
        self._series.sync_finished()
        if self._box is not None:
            self.incidents += self._box.tend()
        file = self._series.file
        state = (file.descriptor, file.offset)
        if state != synced:
            os.fdatasync(file.descriptor)
            drop_cached(file.descriptor, synced[1] if state[0] == synced[0] else 0)
        with self._changed:
            seconds = time.monotonic() - began_s
            self._allowed = allowed_ahead(self._allowed, written - self._synced, seconds)
            self._synced = written
            self._changed.notify_all()
        return state

    def refusal(self, size: int) -> str:
        """Return why `size` bytes more must not be written; empty if they may be."""
        self._wanted = max(self._wanted, END_BYTES + size)
        free, bound = self._measure_disk()
        if self._box is not None and free < bound + END_BYTES + size:
            # The other thread removes old segments; a check that goes on may have looked before.
            with self._changed:
                due = self._checks + 2
                self._wake.set()
                self._changed.wait_for(lambda: self._checks >= due, 2 * SYNC_S)
            free, bound = self._measure_disk()
        return _too_full(free, bound) if bound and free < bound + END_BYTES + size else ""

    def _check_disk(self) -> None:
        free, bound = self._measure_disk()
        if self._box is not None and free < bound + self._wanted:
            self._box.make_room(bound + self._wanted - free)
            free, bound = self._measure_disk()
        if free < bound:
            self._fail(_too_full(free, bound))
        with self._changed:
            self._checks += 1
            self._changed.notify_all()

    def _measure_disk(self) -> tuple[int, int]:
        """Return how much is free, and how much must stay free."""
        status = os.fstatvfs(self._series.file.descriptor)
        # A variable: the other thread may measure, too.
        free = self.free = status.f_bavail * status.f_frsize
        return free, min_free(self._settings, status.f_blocks * status.f_frsize)


def _too_full(free: int, bound: int) -> str:
    return f"the disk has {free >> 20} MiB free, and {bound >> 20} MiB must stay free (--min-free)"
