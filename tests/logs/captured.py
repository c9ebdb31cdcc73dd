"""The pipes of a process with a log behind them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

from dorad.dataflow.settings import Logging
from dorad.logrecord import LogRecord
from dorad.logs import staging
from dorad.logs.capture import Capture
from dorad.logs.fileline import decode
from dorad.logs.logfile import LogFile, Trouble
from dorad.logs.nodelog import Batch, NodeLog
from dorad.logs.paths import files_of
from dorad.logs.staging import Staging
from tests.harness.waiting import DEADLINE_S


class Captured:
    """Use it as a context manager, within a running loop."""

    def __init__(self, folder: Path, **logging: object) -> None:
        self.folder = folder
        self.batches: list[Batch] = []
        self.reported: list[tuple[str, str]] = []
        self.first = asyncio.Event()
        settings = Logging(**logging)
        self.trouble = Trouble(lambda level, text: self.reported.append((level, text)))
        self.file = LogFile(
            folder,
            "cam",
            self.trouble,
            max_size=settings.max_log_size,
            max_rotated=settings.max_rotated_files,
        )
        self.log = NodeLog("cam", settings, self.file, self._take)
        self.out_read, self.out = os.pipe()
        self.err_read, self.err = os.pipe()
        self.memory = staging.create()
        self.capture = Capture(self.out_read, self.err_read, Staging(self.memory), self.log)

    def __enter__(self) -> Captured:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.capture.finish()
        self.file.close()
        os.close(self.memory)

    def _take(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.first.set()

    @property
    def records(self) -> list[LogRecord]:
        return [record for batch in self.batches for record in batch.records]

    @property
    def messages(self) -> list[str]:
        return [record.message for record in self.records]

    @property
    def written(self) -> list[str]:
        """The messages in the files, oldest first."""
        return [record.message for record in in_files(self.folder)]

    def written_by(self, *argv: str) -> subprocess.Popen[bytes]:
        """A process whose stdout is the pipe; it is the only writer."""
        process = subprocess.Popen(argv, stdout=self.out)
        self.close()
        return process

    def close(self) -> None:
        """Close the writing ends."""
        for end in {self.out, self.err} - {-1}:
            os.close(end)
        self.out = self.err = -1

    async def until_closed(self) -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            await self.capture.wait_closed()
        return self.messages


def in_files(folder: Path, node: str = "cam") -> list[LogRecord]:
    """Return the records in the log files of a node, oldest first."""
    return [
        decode(line)
        for path in files_of(folder, node)
        for line in path.read_bytes().splitlines(keepends=True)
    ]
