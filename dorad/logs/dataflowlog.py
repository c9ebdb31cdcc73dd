"""The log of one dataflow: its folder, its nodes' logs, the daemon's reports, its followers."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dorad.logrecord import Level, LogRecord, is_error
from dorad.logs import about, disk
from dorad.logs.fileline import encode
from dorad.logs.history import History
from dorad.logs.hub import Follower, LogHub
from dorad.logs.journal.sender import own, own_service
from dorad.logs.logfile import LogFile, Trouble
from dorad.logs.nodelog import Batch, NodeLog
from dorad.logs.paths import DAEMON, log_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.logs.journal.forward import DaemonJournal
    from dorad.logs.journal.writer import Journal
    from dorad.logs.record import Sink
    from dorad.logs.selection import Selection

DISK_CHECK_S = 60.0
"""Seconds between checks of the disk space that logs use."""
SPARE_FILE = 16 << 20
"""Size in bytes at which a node's file is rotated if its lines normally go to the journal."""
DAEMON_FILE = 16 << 20
"""Size in bytes at which the file of the daemon's reports is rotated."""


class LineCounts(NamedTuple):
    """How much a node has logged since this log was opened."""

    lines: int = 0
    errors: int = 0
    """Lines that tell of an error, also in their text alone."""


class DataflowLog:
    """The log of one run. Belongs to one event loop. Never raises when a file cannot be written."""

    def __init__(
        self,
        dataflow_id: str,
        dataflow: Dataflow,
        *,
        folder: Path | None = None,
        name: str | None = None,
        started_at: float | None = None,
        watch: Sink | None = None,
        route: Callable[[Batch], None] | None = None,
        journal: str | None = None,
    ) -> None:
        """Create a log; nothing is written yet. Its files lie beside the dataflow's, or in
        `folder`.

        `watch` gets every line that passes `min_log_level`, and the daemon's reports. `route` gets
        every batch of a node's lines, and may raise OSError. `started_at` (seconds since 1970)
        defaults to now. With `journal`, its socket, lines go there, and only those that it does
        not take go to files.

        Raises:
            ValueError: DORA_LOG_DISK_LIMIT cannot be understood.
        """
        self._limit = disk.limit(os.environ)
        self._timer: asyncio.TimerHandle | None = None
        self.folder = folder or log_folder(dataflow.base_dir, dataflow_id)
        self.hub = LogHub()
        self.trouble = Trouble(self._report_trouble)
        """`trouble.text` is the reason why log files are not written; None if they are."""
        self.route = route
        self._watch = watch
        self._unsent = False
        """Whether the last batch could not be sent to other nodes, which is reported once."""
        self._nodes: dict[str, NodeLog] = {}
        self.counts: dict[str, LineCounts] = {}
        """By node."""
        self._ids = {node.id for node in dataflow.nodes}
        self._file = LogFile(self.folder, DAEMON, self.trouble, max_size=DAEMON_FILE, max_rotated=1)
        self._journal: Journal | None = None
        self._daemon_journal: DaemonJournal | None = None
        if journal is not None:
            from dorad.logs.journal.forward import DaemonJournal  # `dora run` has no journal
            from dorad.logs.journal.writer import Journal

            self._journal = Journal(journal, lambda level, text: self.report(level, None, text))
            began = time.time_ns() // 1000
            self._daemon_journal = DaemonJournal(self._journal, dataflow_id, name, began)
        self._about = about.About(
            uuid=dataflow_id,
            name=name,
            path=os.fspath(dataflow.path.absolute()),
            nodes=tuple(node.id for node in dataflow.nodes),
            started_at=time.time() if started_at is None else started_at,
            pid=os.getpid(),
            pid_started=about.own_start(),
            journal=journal is not None,
            unit=own_service(),
        )

    @property
    def nodes(self) -> list[str]:
        """All present and past nodes."""
        return sorted(self._ids)

    def begin(self) -> None:
        """Record in the folder that the dataflow runs, and begin to check the disk space."""
        try:
            disk.prepare(self.folder)
            about.write(self.folder, self._about)
        except OSError as error:
            self.trouble.failed(self.folder, error)
        self._make_room()

    def update(self, dataflow: Dataflow) -> None:
        """Record that nodes were added or removed."""
        self._ids |= {node.id for node in dataflow.nodes}
        changed = msgspec.structs.replace(self._about, nodes=tuple(n.id for n in dataflow.nodes))
        self._rewrite(changed)

    def end(self, status: str) -> None:
        """Record in the folder that the dataflow has `finished` or `failed`; close all files.

        Followers get the last lines, then the end.
        """
        self._rewrite(msgspec.structs.replace(self._about, status=status, ended_at=time.time()))
        self.trouble.end()
        self.close()

    def close(self) -> None:
        """Close all files without recording an end: the dataflow may continue. Idempotent."""
        self.hub.end()
        if self._timer is not None:
            self._timer.cancel()
        for log in self._nodes.values():
            log.file.close()
        self._file.close()
        if self._journal is not None:
            self._journal.close()

    def node(self, node: NodeSpec) -> NodeLog:
        """Return the log of a node, shared by all its processes, with its present settings."""
        known = self._nodes.get(node.id)
        if known is not None and known.logging == node.logging:
            return known
        if known is not None:
            known.file.close()
        file = LogFile(
            self.folder,
            node.id,
            self.trouble,
            max_size=node.logging.max_log_size
            or (disk.share(self._limit) if self._journal is None else SPARE_FILE),
            max_rotated=node.logging.max_rotated_files,
            others=self._ids,
        )
        journal = None
        if known is not None:
            journal = known.journal
        elif self._journal is not None:
            from dorad.logs.journal.forward import NodeJournal

            of = self._about
            journal = NodeJournal(self._journal, of.uuid, of.name, node.id, self.report)
        log = NodeLog(node.id, node.logging, file, self._take, journal, self._record)
        self._nodes[node.id] = log
        return log

    def report(self, level: Level, node: str | None, text: str) -> None:
        """Record a sentence of the daemon about the dataflow, or about one of its nodes."""
        self._record(LogRecord(time.time(), level, node, text))

    def follow(self, selection: Selection) -> tuple[History, Follower]:
        """Return what was logged so far, and a follower that continues exactly where it ends.

        The caller closes both.

        Raises:
            OSError: a file cannot be read.
        """
        return self.history(selection), self.hub.follow(selection)

    def history(self, selection: Selection) -> History:
        """Return what was logged so far; the caller closes it. Raises OSError as `follow`."""
        past = None
        if self._daemon_journal is not None:
            from dorad.logs.journal.entry import DAEMON_STREAM
            from dorad.logs.journal.reader import JournalPast

            last = {
                (node, stream): number
                for node, log in self._nodes.items()
                if log.journal is not None
                for stream, number in log.journal.last.items()
            }
            last["", DAEMON_STREAM] = self._daemon_journal.last
            before = time.time_ns() // 1000
            past = JournalPast(self._about.uuid, selection, own(), last=last, before=before)
        return History(self.folder, self.nodes, selection, past)

    def _record(self, record: LogRecord) -> None:
        if self._daemon_journal is None or not self._daemon_journal.report(record):
            self._file.write(encode([record])[0], 1)
        self._show([record])

    def _report_trouble(self, level: Level, text: str) -> None:
        """Report trouble with the files; write it to them only once they can be written."""
        if self.trouble.text is None:
            self.report(level, None, text)
        else:
            self._show([LogRecord(time.time(), level, None, text)])

    def _take(self, batch: Batch) -> None:
        lines, errors = self.counts.get(batch.node, LineCounts())
        errors += sum(map(is_error, batch.records))
        self.counts[batch.node] = LineCounts(lines + len(batch.raw), errors)
        if batch.records:
            self._show(batch.records)
        if self.route is None:
            return
        try:
            self.route(batch)
        except OSError as error:
            if not self._unsent:
                self.report("warn", batch.node, f"its lines do not reach other nodes: {error}")
            self._unsent = True
        else:
            self._unsent = False

    def _show(self, records: Sequence[LogRecord]) -> None:
        self.hub.publish(records)
        if self._watch is not None:
            self._watch(records)

    def _rewrite(self, changed: about.About) -> None:
        self._about = changed
        try:
            about.write(self.folder, changed)
        except OSError as error:
            self.trouble.failed(self.folder, error)

    def _make_room(self) -> None:
        """Delete old logs in a thread, now and once a minute."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(DISK_CHECK_S, self._make_room)
        out, mine = self.folder.parent, {self.folder.name}
        loop.run_in_executor(None, lambda: disk.make_room(out, keep=mine, limit=self._limit))
