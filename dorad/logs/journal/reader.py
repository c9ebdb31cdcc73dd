"""Reading the journal with systemd's `journalctl`."""

from __future__ import annotations

import logging
import os
import re
import select
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from dorad.logrecord import LAST_MOMENT, RAW, LogRecord
from dorad.logs.journal.entry import DAEMON_STREAM
from dorad.logs.journal.sender import Sender, own
from dorad.logs.paths import DAEMON
from dorad.logs.record import parse_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dorad.logs.selection import Selection

FIELDS = (
    "MESSAGE",
    "DORA_NODE",
    "DORA_STREAM",
    "DORA_LEVEL",
    "DORA_TARGET",
    "DORA_TIME",
    "DORA_SEQ",
    "DORA_FIELDS",
    "CODE_FILE",
    "CODE_LINE",
    "CODE_FUNC",
)
"""The fields of an entry that are read."""

_DIGITS = re.compile(r"[0-9]{1,19}")

_decoder = msgspec.json.Decoder(dict[str, Any])
_fields_decoder = msgspec.json.Decoder(dict[str, Any])


class JournalEntry(NamedTuple):
    """One entry: its lines, and what identifies it."""

    records: list[LogRecord]
    node: str
    stream: str
    number: int
    cursor: str
    """Its position in the journal."""


def parse(line: bytes) -> JournalEntry | None:
    """Return the entry of one line of JSON; None if it is not one that dorad writes."""
    try:
        fields = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    node, stream, level, message, micros, number = (
        _text(fields, key)
        for key in ("DORA_NODE", "DORA_STREAM", "DORA_LEVEL", "MESSAGE", "DORA_TIME", "DORA_SEQ")
    )
    if message is None or node is None or stream not in ("stdout", "stderr", DAEMON_STREAM):
        return None
    known = RAW if level == RAW else parse_level(level or "")
    when, at = _number(micros, LAST_MOMENT * 1_000_000), _number(number, 1 << 63)
    if known is None or when is None or at is None:
        return None
    record = LogRecord(
        timestamp=when / 1e6,
        level=known,
        node=None if node == DAEMON else node,
        message=message,
        stream="stderr" if stream == "stderr" else "stdout",
        target=_text(fields, "DORA_TARGET"),
        fields=_fields(_text(fields, "DORA_FIELDS")),
        file=_text(fields, "CODE_FILE"),
        line=_number(_text(fields, "CODE_LINE"), 1 << 31),
        module_path=_text(fields, "CODE_FUNC"),
    )
    return JournalEntry(_parsed_lines(record), node, stream, at, _text(fields, "__CURSOR") or "")


def _number(text: str | None, limit: int) -> int | None:
    """Return a whole number of at least 0 and below `limit`; None for any other text."""
    if text is None or not _DIGITS.fullmatch(text):
        return None
    number = int(text)
    return number if number < limit else None


def _parsed_lines(record: LogRecord) -> list[LogRecord]:
    """Split joined raw lines: a raw line itself never contains a newline."""
    if record.level != RAW or "\n" not in record.message:
        return [record]
    lines = record.message.split("\n")
    return [msgspec.structs.replace(record, message=line) for line in lines]


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    """Return a field; the journal gives unprintable ones as a list of byte values."""
    value = fields.get(key)
    if isinstance(value, list) and value and not isinstance(value[0], int):
        value = value[0]  # the field occurs more than once
    if isinstance(value, list):
        try:
            return bytes(value).decode("utf-8", "replace")
        except (TypeError, ValueError, OverflowError):
            return None
    return value if isinstance(value, str) else None


def _fields(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return _fields_decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


TIMEOUT_S = 30.0
"""Seconds without output after which `journalctl` is given up."""
SYNC_S = 5.0

_log = logging.getLogger(__name__)
_BLOCK = 1 << 18
_SLACK_S = 60.0
"""How far nodes' times may differ from those of the journal: nodes have different clocks."""


class JournalError(OSError):
    """The journal cannot be read; the text gives the reason."""


class JournalPast:
    """The journal's entries of one dataflow, for one reader. `close` ends the reading."""

    def __init__(
        self,
        dataflow: str,
        selection: Selection,
        sender: Sender,
        *,
        last: Mapping[tuple[str, str], int] | None = None,
        before: int | None = None,
        program: Sequence[str] = ("journalctl",),
    ) -> None:
        """Only entries of `sender` are trusted.

        `last` has the numbers of the last entries to return, by node and stream; the node of the
        daemon's reports is "". For streams not in `last`, entries count whose number is below
        `before` (microseconds since 1970).
        """
        self._dataflow = dataflow
        self._selection = selection
        self._sender = sender
        self._last = last or {}
        self._before = before
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._newest: str | None = None
        self.skipped = 0
        """Number of invalid entries."""

    def close(self) -> None:
        """End `journalctl`, if it runs, and any iteration. Idempotent."""
        self._closed = True
        if self._process is not None:
            self._process.kill()

    def forwards(self) -> Iterator[LogRecord]:
        """Yield records, oldest first, also some that are not selected. Raises JournalError."""
        for entry in self._entries():
            self._newest = entry.cursor
            yield from entry.records

    def backwards(self) -> Iterator[LogRecord]:
        """Yield the same records, newest first."""
        for entry in self._entries("--reverse"):
            self._newest = self._newest or entry.cursor
            yield from reversed(entry.records)

    def follow(
        self, running: Callable[[], bool], *, skip: bool = False
    ) -> Iterator[list[LogRecord]]:
        """Yield what follows the records read so far, until the dataflow no longer runs.

        With `skip`, existing entries are skipped. While there are no new ones, it yields an empty
        list every half second.
        """
        options = ["--follow", "--lines=0" if skip else "--no-tail"]
        if self._newest is not None:
            options.append(f"--after-cursor={self._newest}")
        was_running = True
        for lines in self._blocks(options, wait=0.5):
            entries = [entry for entry in map(self._parse, lines) if entry is not None]
            if not entries and not was_running:
                return
            was_running = running()
            yield [record for entry in entries for record in entry.records]

    def _entries(self, *options: str) -> Iterator[JournalEntry]:
        sync(self._program)
        for lines in self._blocks(options):
            for line in lines:
                entry = self._parse(line)
                if entry is not None and self._counts(entry):
                    yield entry

    def _parse(self, line: bytes) -> JournalEntry | None:
        entry = parse(line)
        if entry is None:
            level = logging.DEBUG if self.skipped else logging.WARNING
            self.skipped += 1
            _log.log(level, "skipped an entry of the journal (no. %d): %.99r", self.skipped, line)
        return entry

    def _counts(self, entry: JournalEntry) -> bool:
        node = "" if entry.stream == DAEMON_STREAM else entry.node
        last = self._last.get((node, entry.stream))
        if last is not None:
            return entry.number <= last
        return self._before is None or entry.number < self._before

    def _command(self, options: Sequence[str]) -> list[str]:
        matches = [f"DORA_DATAFLOW={self._dataflow}", *self._sender.matches()]
        matches += [f"DORA_NODE={node}" for node in sorted(self._selection.nodes)]
        if self._selection.stream is not None:
            matches.append(f"DORA_STREAM={self._selection.stream}")
        since = self._selection.since
        times = [] if since is None else [f"--since=@{since - _SLACK_S:.0f}"]
        return [*_base(self._program), *options, *times, *matches]

    def _blocks(
        self, options: Sequence[str], *, wait: float | None = None
    ) -> Iterator[list[bytes]]:
        """Yield whole lines as they arrive; with `wait`, an empty list after that many seconds."""
        command = self._command(options)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
            )
        except OSError as error:
            raise JournalError(f"{command[0]} cannot be run: {error.strerror}") from error
        assert process.stdout is not None and process.stderr is not None
        self._process = process
        with process:
            try:
                if self._closed:
                    return
                yield from _lines(process.stdout.fileno(), wait)
                if process.wait(TIMEOUT_S) > 0 and not self._closed:
                    reason = process.stderr.read().decode("utf-8", "replace").strip()
                    reason = reason or "journalctl failed"
                    raise JournalError(f"the journal cannot be read: {reason}")
            finally:
                process.kill()


def _lines(pipe: int, wait: float | None) -> Iterator[list[bytes]]:
    rest = b""
    last_output = time.monotonic()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while True:
        if not poll.poll(1000 * (TIMEOUT_S if wait is None else wait)):
            if wait is None:
                silent = time.monotonic() - last_output
                raise JournalError(f"the journal cannot be read: no answer in {silent:.0f} s")
            yield []
            continue
        last_output = time.monotonic()
        block = os.read(pipe, _BLOCK)
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield lines


def arrived(
    dataflow: str,
    node: str,
    stream: str,
    number: int,
    program: Sequence[str] = ("journalctl",),
) -> bool:
    """Return True if the journal has this entry of this process's service.

    Returns False if unknown: a duplicate is better than a loss.
    """
    sync(program)
    matches = (
        f"DORA_DATAFLOW={dataflow}",
        f"DORA_NODE={node}",
        f"DORA_STREAM={stream}",
        f"DORA_SEQ={number}",
        *own().matches(),
    )
    try:
        done = subprocess.run(
            [*_base(program), "--lines=1", *matches],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SYNC_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(done.stdout.strip())


def sync(program: Sequence[str] = ("journalctl",)) -> None:
    """Wait until the journal has written what it got; return at once if that is not permitted."""
    try:
        subprocess.run(
            [*program, "--sync"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SYNC_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return  # the last entries may be missing then


def _base(program: Sequence[str]) -> list[str]:
    options = ("--output=json", "--all", "--no-pager", "--quiet")
    return [*program, *options, f"--output-fields={','.join(FIELDS)}"]
