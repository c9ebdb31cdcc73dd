"""The log of one dataflow: its folder, its nodes' logs, what the daemon says, and who follows."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import msgspec

from dorad.logs import about, disk
from dorad.logs.fileline import encode
from dorad.logs.history import History
from dorad.logs.hub import LogHub
from dorad.logs.journal.entry import DAEMON_STREAM
from dorad.logs.journal.forward import DaemonJournal, NodeJournal
from dorad.logs.journal.reader import JournalPast
from dorad.logs.journal.sender import own, own_service
from dorad.logs.logfile import LogFile, Trouble
from dorad.logs.nodelog import Batch, NodeLog
from dorad.logs.paths import DAEMON, log_folder
from dorad.logs.record import LogRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dorad.dataflow.model import Dataflow, NodeSpec
    from dorad.logs.hub import Follower
    from dorad.logs.journal.writer import Journal
    from dorad.logs.record import Sink
    from dorad.logs.selection import Selection

ROOM_S = 60.0
"""Seconds between looks at how much of the disk logs take."""
SPARE_FILE = 16 << 20
"""Bytes at which a node's file is rotated that has only what the journal does not take."""
DAEMON_FILE = 16 << 20
"""Bytes at which the file of what the daemon says is rotated."""


class DataflowLog:
    """Belongs to one event loop. Never raises for what happens to the files."""

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
        journal: Journal | None = None,
    ) -> None:
        """Make a log that has written nothing yet; its files lie beside the dataflow's, or in
        `folder`.

        `watch` gets every line that `min_log_level` lets through, and what the daemon says; `route`
        gets every batch of a node's lines, and may raise OSError. `started_at` (seconds since 1970)
        is now, unless the dataflow was found running. With `journal`, which is owned, lines go
        there, and to files only what it does not take.

        Raises:
            ValueError: DORA_LOG_DISK_LIMIT cannot be understood.
        """
        self._limit = disk.limit(os.environ)
        self._timer: asyncio.TimerHandle | None = None
        self.folder = folder or log_folder(dataflow.base_dir, dataflow_id)
        self.hub = LogHub()
        self.trouble = Trouble(self._tell)
        """`trouble.text` says why log files are not written; None while all is well."""
        self.route = route
        self._watch = watch
        self._unsent = False
        """Whether the last batch could not be sent to other nodes, which is told once."""
        self._nodes: dict[str, NodeLog] = {}
        self._ids = {node.id for node in dataflow.nodes}
        self._file = LogFile(self.folder, DAEMON, self.trouble, max_size=DAEMON_FILE, max_rotated=1)
        self._journal = journal
        self._said: DaemonJournal | None = None
        if journal is not None:
            journal.tell = lambda level, text: self.say(level, None, text)
            self._said = DaemonJournal(journal, dataflow_id, name, time.time_ns() // 1000)
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
        """The nodes there are, and those there were."""
        return sorted(self._ids)

    def begin(self) -> None:
        """Say in the folder that the dataflow runs, and begin to look after the disk."""
        try:
            disk.prepare(self.folder)
            about.write(self.folder, self._about)
        except OSError as error:
            self.trouble.failed(self.folder, error)
        self._make_room()

    def update(self, dataflow: Dataflow) -> None:
        """Take note that nodes came or went."""
        self._ids |= {node.id for node in dataflow.nodes}
        changed = msgspec.structs.replace(self._about, nodes=tuple(n.id for n in dataflow.nodes))
        self._rewrite(changed)

    def end(self, status: str) -> None:
        """Say in the folder that the dataflow has ended, `finished` or `failed`; close all files.

        Those who follow see the last lines, then the end.
        """
        self._rewrite(msgspec.structs.replace(self._about, status=status, ended_at=time.time()))
        self.trouble.end()
        self.close()

    def close(self) -> None:
        """Close all files; as far as they say, the dataflow goes on. Idempotent."""
        self.hub.end()
        if self._timer is not None:
            self._timer.cancel()
        for log in self._nodes.values():
            log.file.close()
        self._file.close()
        if self._journal is not None:
            self._journal.close()

    def node(self, node: NodeSpec) -> NodeLog:
        """Return the log of a node, the same for all its processes; its settings are taken anew."""
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
            of = self._about
            journal = NodeJournal(self._journal, of.uuid, of.name, node.id, self.say)
        log = NodeLog(node.id, node.logging, file, self._take, journal, self._record)
        self._nodes[node.id] = log
        return log

    def say(self, level: str, node: str | None, text: str) -> None:
        """Record one sentence of the daemon about the dataflow, or about a node of it."""
        self._record(LogRecord(time.time(), level, node, text))

    def follow(self, selection: Selection) -> tuple[History, Follower]:
        """Return what was logged so far, and a follower that goes on exactly where it ends.

        Both have to be closed.

        Raises:
            OSError: a file cannot be read.
        """
        return self.history(selection), self.hub.follow(selection)

    def history(self, selection: Selection) -> History:
        """Return what was logged so far. It has to be closed. Raises OSError as `follow`."""
        past = None
        if self._said is not None:
            last = {
                (node, stream): number
                for node, log in self._nodes.items()
                if log.journal is not None
                for stream, number in log.journal.last.items()
            }
            last["", DAEMON_STREAM] = self._said.last
            before = time.time_ns() // 1000
            past = JournalPast(self._about.uuid, selection, own(), last=last, before=before)
        return History(self.folder, self.nodes, selection, past)

    def _record(self, record: LogRecord) -> None:
        if self._said is None or not self._said.say(record):
            self._file.write(encode([record])[0], 1)
        self._show([record])

    def _tell(self, level: str, text: str) -> None:
        """Show a line about the files, which is not for the files while they cannot be written."""
        if self.trouble.text is None:
            self.say(level, None, text)
        else:
            self._show([LogRecord(time.time(), level, None, text)])

    def _take(self, batch: Batch) -> None:
        if batch.records:
            self._show(batch.records)
        if self.route is None:
            return
        try:
            self.route(batch)
        except OSError as error:
            if not self._unsent:
                self.say("warn", batch.node, f"its lines do not reach other nodes: {error}")
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
        self._timer = loop.call_later(ROOM_S, self._make_room)
        out, mine = self.folder.parent, {self.folder.name}
        loop.run_in_executor(None, lambda: disk.make_room(out, keep=mine, limit=self._limit))
