"""Streams: sessions of numbered segments and chunks; `flush` voids all earlier chunks."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dorad.node.correlation import FLUSH_KEY, SESSION_ID, id_in, uuid7

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.node.events import Event

_log = logging.getLogger(__name__)

SEGMENT_ID = "segment_id"
SEQ = "seq"
FIN = "fin"

MAX_SESSIONS = 1000
"""Sessions of one input that a reader remembers."""


class StreamSender:
    """The sender of one session; it numbers the segments and the chunks within each.

    As a context manager it closes the session when the block ends without an exception. May be used
    from several threads.
    """

    def __init__(
        self,
        send: Callable[[str, Any, dict[str, Any]], None],
        output: str,
        session_id: str | None,
    ) -> None:
        self.session_id = session_id or uuid7()
        self.segment_id = 0
        self._send = send
        self._output = output
        self._seq = 0
        self._lock = threading.RLock()

    def send(self, data: Any, metadata: dict[str, Any] | None = None, *, fin: bool = False) -> None:
        """Send a chunk; `fin` marks the last one of its segment.

        Raises what `send_output` does.
        """
        with self._lock:
            self._put(data, metadata, fin, flush=False)

    def flush(
        self, data: Any = b"", metadata: dict[str, Any] | None = None, *, fin: bool = False
    ) -> None:
        """Void all chunks of the session that were not received yet, and start a new segment.

        `data` is its first chunk. Other sessions on the same output are not affected.
        """
        with self._lock:
            if self._seq:
                self._next_segment()
            self._put(data, metadata, fin, flush=True)

    def react(self, event: Event) -> bool:
        """End the current segment if an event is a `flush` of this session; return True then.

        Call it with events from the receivers of the stream, which may interrupt it. The next chunk
        starts a new segment.
        """
        metadata = event.get("metadata") or {}
        if metadata.get(FLUSH_KEY) is not True or metadata.get(SESSION_ID) != self.session_id:
            return False
        with self._lock:
            if self._seq:
                self._next_segment()
        return True

    def close(self, data: Any = b"", metadata: dict[str, Any] | None = None) -> None:
        """Send a last chunk with `fin`, if the current segment has chunks."""
        with self._lock:
            if self._seq:
                self._put(data, metadata, True, flush=False)

    def _next_segment(self) -> None:
        self.segment_id += 1
        self._seq = 0

    def _put(self, data: Any, metadata: dict[str, Any] | None, fin: bool, *, flush: bool) -> None:
        sent = {
            **(metadata or {}),
            SESSION_ID: self.session_id,
            SEGMENT_ID: self.segment_id,
            SEQ: self._seq,
            FIN: fin,
        }
        if flush:
            sent[FLUSH_KEY] = True
        self._send(self._output, data, sent)
        self._seq += 1
        if fin:
            self._next_segment()

    def __enter__(self) -> StreamSender:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()


@dataclass(frozen=True, slots=True)
class Chunk:
    """One received chunk.

    `segment_id` and `seq` count from 0; `fin` marks the last chunk of a segment. `missing` is the
    number of chunks of its segment that were dropped just before it. With `flush`, all earlier
    chunks of the session are void.
    """

    session_id: str
    segment_id: int
    seq: int
    fin: bool
    flush: bool
    missing: int
    event: Event

    @property
    def value(self) -> Any:
        """The data of the chunk, a pyarrow array."""
        return self.event["value"]


class StreamReader:
    """Turns the events of one input into chunks, separately for each session.

    It remembers the last 1,000 sessions that had a chunk; an older one counts as new.
    """

    def __init__(self, input_id: str) -> None:
        self.input_id = input_id
        self._at: dict[str, tuple[int, int]] = {}
        """Segment and next chunk of each session; that of the newest chunk is the last."""

    def take(self, event: Event) -> Chunk | None:
        """Return the chunk in an event; None if it is not a chunk, or void.

        A chunk is void once a newer segment of its session has started.
        """
        if event.get("type") != "INPUT" or event.get("id") != self.input_id:
            return None
        metadata = event.get("metadata") or {}
        session = id_in(metadata, SESSION_ID)
        segment, seq = metadata.get(SEGMENT_ID, 0), metadata.get(SEQ, 0)
        if session is None or not isinstance(segment, int) or not isinstance(seq, int):
            return None
        fin, flush = metadata.get(FIN) is True, metadata.get(FLUSH_KEY) is True
        at = self._at.get(session)
        if at is not None and segment < at[0] and not flush:
            _log.debug("input %s: void chunk of session %s", self.input_id, session)
            return None
        expected = at[1] if at is not None and segment == at[0] and not flush else 0
        self._at.pop(session, None)
        self._at[session] = (segment, seq + 1)
        if len(self._at) > MAX_SESSIONS:
            del self._at[next(iter(self._at))]
        return Chunk(session, segment, seq, fin, flush, max(0, seq - expected), event)

    def forget(self, session_id: str) -> None:
        """Forget a session that has ended."""
        self._at.pop(session_id, None)
