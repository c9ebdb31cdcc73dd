"""The files of one recording: the one that is being written, and those of a split before it."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING

from dorad import __version__
from dorad.atomicfile import sync_folder
from dorad.record.box.ring import SEGMENT_S
from dorad.record.mcap.writer import RecordingFile, drop_cached

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.record.mcap.layout import Attachment
    from dorad.record.recorder.settings import Settings

_log = logging.getLogger(__name__)

MAX_PATHS = 1000
"""Names of files that are kept for the report at the end."""


class FileSeries:
    """One thread writes and splits; another one may call `sync_finished`."""

    def __init__(
        self,
        settings: Settings,
        about: Mapping[str, str],
        attachments: Sequence[Attachment],
        number: int = 0,
    ) -> None:
        """Create the first file, whose number follows `number`. Raises OSError."""
        self._settings = settings
        self._about = about
        self._attachments = attachments
        self._number = number
        self._first = {"first_part": str(number + 1)}
        self._split_s = settings.split_s if settings.box is None else SEGMENT_S
        self._finished: deque[RecordingFile] = deque()
        self._before: Counter[str] = Counter()
        """Messages by topic in the files before the present one."""
        self._messages_before = 0
        self._bytes_before = 0
        self.paths: deque[Path] = deque(maxlen=MAX_PATHS)
        """The newest files."""
        self.count = 0
        self.file = self._open()
        """The file to write to."""

    @property
    def messages(self) -> int:
        """The messages in all files."""
        return self._messages_before + self.file.messages

    @property
    def bytes(self) -> int:
        """The bytes of all files, without the open chunk."""
        return self._bytes_before + self.file.offset

    @property
    def messages_by_topic(self) -> Counter[str]:
        """The messages that are written, in all files."""
        # The copy is one step: another thread may add a topic.
        return Counter(dict(self._before)) + Counter(self.file.counts)

    @property
    def split_due(self) -> bool:
        """Whether the present file is as large or old as it may get. An empty one is kept."""
        file, limit = self.file, self._settings.split_bytes
        big = limit is not None and file.offset >= limit
        old = self._split_s is not None and time.monotonic() >= self._started_s + self._split_s
        return (big or old) and file.messages > 0

    def split_early(self) -> None:
        """Make a split by time due: the wall clock was set, and is in the names of segments."""
        self._started_s = float("-inf")

    def split(self, end: Mapping[str, str]) -> None:
        """Finish the present file, and write to a new one. Raises OSError."""
        file = self.file
        file.describe("dora.end", end)
        file.finish()
        self._bytes_before += file.offset
        self._messages_before += file.messages
        self._before.update(file.counts)
        # In this order: the other thread closes finished files, and syncs the present one.
        self.file = self._open()
        self._finished.append(file)

    def check_present(self) -> None:
        """Raise FileNotFoundError if the present file is nowhere: removed, or with its disk."""
        file = self.file
        # The kernel knows the name of an open file, also after it was renamed.
        name = Path(f"/proc/self/fd/{file.descriptor}").readlink()
        if not os.fstat(file.descriptor).st_nlink or not name.exists():
            text = "the file was removed, or its disk unmounted"
            raise FileNotFoundError(errno.ENOENT, text, str(file.path))

    def sync_finished(self) -> None:
        """Sync and close the files before the present one. Raises OSError."""
        while self._finished:
            file = self._finished.popleft()
            try:
                os.fsync(file.descriptor)
                drop_cached(file.descriptor)
            finally:
                file.close()

    def close(self, end: Mapping[str, str]) -> None:
        """Finish, sync and close the present file.

        Raises:
            OSError: it cannot be written, or was removed; it is closed all the same.
        """
        file = self.file
        try:
            if not file.finished:  # it is if the next file could not be created
                file.cut()
                file.flush()
                file.describe("dora.end", end)
                file.finish()
            os.fsync(file.descriptor)
            self.check_present()
            sync_folder(file.path.absolute().parent)
        finally:
            file.close()

    def _open(self) -> RecordingFile:
        settings, number = self._settings, self._number + 1
        path = settings.part(number)
        file = RecordingFile(path, f"dorad {__version__}", compression=settings.compression)
        _log.debug("recording to %s", path)
        self.paths.append(path)
        self.count += 1
        self._number = number
        self._started_s = time.monotonic()
        try:
            file.describe("dora.recording", {**self._about, **self._first, "part": str(number)})
            for item in self._attachments:
                file.attach(item)
            os.fsync(file.descriptor)
            sync_folder(path.absolute().parent)
        except OSError:
            file.close()
            raise
        return file
