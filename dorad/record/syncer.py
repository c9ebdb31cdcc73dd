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

from dorad.record.settings import min_free
from dorad.record.writer import drop_cached

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.record.blackbox import BlackBox
    from dorad.record.series import FileSeries
    from dorad.record.settings import Settings

_log = logging.getLogger(__name__)

SYNC_S = 0.5
AHEAD_S = 1.0
"""Seconds that the disk may need for what is written and not synced."""

MIN_AHEAD = 4 << 20
"""Bytes that may be ahead of any disk."""

FIRST_AHEAD = 16 << 20
"""Bytes that may be ahead of a disk whose speed is not yet known."""

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

    def _check_disk(self) -> None:
        bound = self._measure_disk()
        if self.free < bound and self._box is not None:
            self._box.make_room(bound - self.free)
            bound = self._measure_disk()
        if self.free < bound:
            self._fail(
                f"the disk has {self.free >> 20} MiB free, and {bound >> 20} MiB must stay free "
                "(--min-free)"
            )

    def _measure_disk(self) -> int:
        """Set `free`; return how much must stay free."""
        found = os.fstatvfs(self._series.file.descriptor)
        self.free = found.f_bavail * found.f_frsize
        return min_free(self._settings, found.f_blocks * found.f_frsize)
