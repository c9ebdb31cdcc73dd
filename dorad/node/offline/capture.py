"""Record the events of a node as a file of test inputs: `DORA_WRITE_EVENTS_TO`."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from dorad.node import logbridge
from dorad.node.offline import testfile
from dorad.node.offline.arrowjson import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.node.attachment import WatchedReceiver
    from dorad.node.events import Event
    from dorad.node.offline.filemode import FileReceiver
    from dorad.node.offline.interactive import PromptReceiver
    from dorad.node.receiver import Receiver

TICK = {"data": [], "data_type": "Null"}


class CapturingReceiver:
    """A receiver that records the events of another one."""

    def __init__(self, receiver: Receiving, recording: Recorder) -> None:
        self._receiver = receiver
        self._recording = recording

    @property
    def ended(self) -> bool:
        """True after the last event."""
        return self._receiver.ended

    def next(self, timeout: float | None) -> Event | None:
        """Receive and record the next event."""
        event = self._receiver.next(timeout)
        if event is not None:
            self._recording.add(event)
        return event

    async def recv_async(self, timeout: float | None) -> Event | None:
        """Receive and record the next event."""
        event = await self._receiver.recv_async(timeout)
        if event is not None:
            self._recording.add(event)
        return event

    def try_recv(self) -> Event | None:
        """Receive and record the next event if there is one."""
        event = self._receiver.try_recv()
        if event is not None:
            self._recording.add(event)
        return event

    def drain(self) -> list[Event]:
        """Receive and record all queued events."""
        drained = self._receiver.drain()
        for event in drained:
            self._recording.add(event)
        return drained

    def is_empty(self) -> bool:
        """Return True if no event is queued."""
        return self._receiver.is_empty()


Receiving: TypeAlias = (
    "Receiver | WatchedReceiver | FileReceiver | PromptReceiver | CapturingReceiver"
)
"""The receiver of a node, in a dataflow or without one."""


class Recorder:
    """Writes `inputs-<node>.json`. The file is valid after every event, however the node ends.

    An event that cannot be written marks the recording as incomplete: `testfile.load` refuses it.
    """

    def __init__(
        self, directory: Path, node_id: str, params: Mapping[str, Any] | None = None
    ) -> None:
        """Start the recording; its times count from now. `params` are the node's parameters now.

        Raises:
            RuntimeError: the file cannot be written.
        """
        self._node_id = node_id
        self._path = directory / f"inputs-{node_id}.json"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            raise RuntimeError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._count = 0
        self._status: dict[str, Any] = {"state": "clean"}
        given = f'"params": {json.dumps(dict(params))},\n' if params else ""
        head = f'{{\n"id": {json.dumps(node_id)},\n{given}"events": ['.encode()
        self._end = len(head)
        self._file.write(head + self._trailer())

    def _trailer(self) -> bytes:
        return f'\n],\n"recording_status": {json.dumps(self._status)}\n}}\n'.encode()

    def add(self, event: Event) -> None:
        """Write an event that was received now."""
        offset = time.monotonic() - self._started
        with self._lock:
            try:
                entry = _entry(event, offset)
            except ValueError as error:
                self._mark_incomplete(offset, error)
                entry = None
            text = b""
            if entry is not None:
                text = (",\n" if self._count else "\n").encode() + json.dumps(entry).encode()
                self._count += 1
            # The event and a new trailer overwrite the old trailer; the file never shrinks.
            if not self._file.closed:
                self._write(text)

    def _write(self, text: bytes) -> None:
        """Insert text before the trailer; a full disk ends the recording, not the node."""
        try:
            os.pwrite(self._file.fileno(), text + self._trailer(), self._end)
            self._end += len(text)
        except OSError as error:
            self._file.close()
            message = f"{self._path}: the recording ends here: {error.strerror}"
            logbridge.emit(logbridge.line(self._node_id, "error", message))

    def _mark_incomplete(self, offset: float, error: ValueError) -> None:
        if self._status["state"] == "poisoned":
            self._status["additional_failures"] += 1
            return
        self._status = {
            "state": "poisoned",
            "first_failure_event_index": self._count,
            "first_failure_time_offset_secs": offset,
            "first_failure_error": str(error),
            "additional_failures": 0,
        }


def _entry(event: Event, offset: float) -> dict[str, Any] | None:
    """Return the entry of an event in the file, None if test files have no such event.

    Raises:
        ValueError: its value cannot be written as JSON.
    """
    timed: dict[str, Any] = {"time_offset_secs": offset}
    match event["type"]:
        case "INPUT":
            return {"type": "Input", "id": event["id"], **timed} | _content(event)
        case "INPUT_CLOSED":
            return {"type": "InputClosed", "id": event["id"], **timed}
        case "STOP" if event["id"] == "MANUAL":
            return {"type": "Stop", **timed}
        case "STOP":
            return {"type": "AllInputsClosed", **timed}
    return None


def _content(event: Event) -> dict[str, Any]:
    if isinstance(event["value"], dict):
        raise ValueError(f"the event {event['id']!r} of synchronised inputs cannot be recorded")
    metadata = testfile.tag(event["metadata"])
    content: dict[str, Any] = {"metadata": metadata} if metadata else {}
    written = to_json(event["value"])
    # A tick is written without data, so that it is read as a tick again.
    return content if written == TICK else content | written
