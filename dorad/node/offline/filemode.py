"""A node without a dataflow: its inputs come from a file, its outputs go to another.

The mode of `DORA_TEST_WITH_INPUTS`, for testing a complete node program. Each output becomes a line
of JSON with its `id`, the seconds since the node's start, `data` and `data_type`.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.node import events, forking
from dorad.node import metadata as metadata_codec
from dorad.node.busy import NoLeases
from dorad.node.clock import Clock, as_datetime
from dorad.node.extensions import OwnTable
from dorad.node.offline import testfile
from dorad.node.outputids import well_formed
from dorad.node.params import Params
from dorad.node.sharedarrays import SharedArrays, flat
from dorad.shm.mapping import Mapping
from dorad.shm.pool import Pool, Sample

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from collections.abc import Mapping as Environment

    from dorad.node.events import Event
    from dorad.node.offline.testfile import TimedEvent

OUTPUTS = "DORA_TEST_WRITE_OUTPUTS_TO"
NO_OFFSETS = "DORA_TEST_NO_OUTPUT_TIME_OFFSET"
DEFAULT_OUTPUTS = "outputs.jsonl"

_monotonic = time.monotonic


class LocalAttachment:
    """What attachments of a `Node` without a dataflow have in common.

    See `dorad.node.attachment.Attachment`.
    """

    receiver: Any
    sender: LocalSender

    def __init__(
        self,
        description: dict[str, Any],
        params: dict[str, Any],
        *,
        inputs: Any = (),
        outputs: Sequence[str] = (),
    ) -> None:
        """`description` is the node as a dataflow file would have it."""
        self.config: dict[str, Any] = {
            "node_id": description["id"],
            "dataflow_id": str(uuid.uuid4()),
            "descriptor": {"nodes": [description]},
            "run_config": {"inputs": inputs or {}, "outputs": [*outputs]},
            "inputs": [],
            "outputs": [*outputs],
            "restart_count": 0,
            "dynamic": False,
        }
        self.clock = Clock()
        self.outputs: Container[str] = WellFormed()
        self.extensions = OwnTable()
        self.leases = NoLeases()
        self.params = Params(params)
        forking.watch(self)

    def merge(self, source: object) -> None:
        """Raise NotImplementedError: all events come from the file or the terminal."""
        raise NotImplementedError(
            "merge_external_events needs a dataflow: here all events come from a file or a terminal"
        )

    def abandon(self) -> None:
        """Leave the node to the parent process: this one is a forked child."""
        forking.refuse(self.receiver)
        forking.refuse(self.sender)
        forking.refuse(self.extensions)
        forking.refuse(self.params)


class FileAttachment(LocalAttachment):
    """The attachment of a `Node` whose inputs come from a file."""

    def __init__(self, inputs: Path, environ: Environment[str, str]) -> None:
        """Read the inputs and create the file of outputs.

        Raises:
            RuntimeError: one of the files cannot be used.
        """
        content = testfile.load(inputs)
        outputs = Path(environ.get(OUTPUTS) or inputs.with_name(DEFAULT_OUTPUTS))
        node = {"id": content.node_id, **content.description}
        super().__init__(node, content.params, inputs=content.inputs, outputs=content.outputs)
        started = _monotonic()
        self.receiver = FileReceiver(content.events, started, self.clock.now())
        self.sender = FileSender(outputs, None if NO_OFFSETS in environ else started)


class WellFormed:
    """The set of all valid output ids, because a test file declares none."""

    def __contains__(self, output_id: object) -> bool:
        return isinstance(output_id, str) and well_formed(output_id)


class FileReceiver:
    """A receiver that returns events when they are due, up to a STOP or the last one."""

    def __init__(self, timed: list[TimedEvent], started: float, start_ns: int) -> None:
        """Start at `started` on the monotonic clock, which is `start_ns` ns since 1970."""
        stops = [at for at, item in enumerate(timed) if item.event["type"] == "STOP"]
        self._waiting = timed[: stops[0] + 1] if stops else timed
        self._waiting.reverse()
        self._started = started
        self._start_ns = start_ns
        self._lock = threading.RLock()  # a signal handler may send, too

    @property
    def ended(self) -> bool:
        """True after the last event."""
        return not self._waiting

    def _wait_s(self) -> float:
        """Return the seconds until the next event is due."""
        waiting = self._waiting
        return self._started + waiting[-1].offset - _monotonic() if waiting else 0.0

    def try_recv(self) -> Event | None:
        """Return the next event if it is due."""
        with self._lock:
            if not self._waiting or self._wait_s() > 0:
                return None
            item = self._waiting.pop()
        event = item.event
        if event["type"] == "INPUT":
            stamp = as_datetime(self._start_ns + int(item.offset * 1e9))
            event["metadata"] = {"timestamp": stamp, **event["metadata"]}
        return event

    def next(self, timeout: float | None) -> Event | None:
        """Wait for the next event and return it, None after the last. `timeout` in seconds."""
        deadline = None if timeout is None else _monotonic() + timeout
        while True:
            event = self.try_recv()
            if event is not None or self.ended:
                return event
            left = self._left(deadline)
            if left <= 0:
                return events.timed_out(timeout or 0.0)
            time.sleep(left)

    async def recv_async(self, timeout: float | None) -> Event | None:
        """Wait for the next event without blocking the event loop."""
        import asyncio

        deadline = None if timeout is None else _monotonic() + timeout
        while True:
            await asyncio.sleep(0)
            event = self.try_recv()
            if event is not None or self.ended:
                return event
            left = self._left(deadline)
            if left <= 0:
                return events.timed_out(timeout or 0.0)
            await asyncio.sleep(left)

    def _left(self, deadline: float | None) -> float:
        """Return the seconds until the next event or the deadline; <= 0 if the deadline is over."""
        due = max(self._wait_s(), 1e-6)
        return due if deadline is None else min(due, deadline - _monotonic())

    def drain(self) -> list[Event]:
        """Return all events that are due.

        Raises:
            RuntimeError: the last event was already received.
        """
        if self.ended:
            raise RuntimeError("the event stream is closed")
        drained = []
        while (event := self.try_recv()) is not None:
            drained.append(event)
        return drained

    def is_empty(self) -> bool:
        """Return True if `try_recv` would return None."""
        return self.ended or self._wait_s() > 0


class LocalSender:
    """A sender without receivers; subclasses define `_put`. Its samples are in private memory."""

    def __init__(self) -> None:
        self._segments = 0
        self._lock = threading.RLock()  # a signal handler may send, too
        self.pool = Pool(self._grow, lambda _: None)
        self.shared_arrays = SharedArrays(self.pool)

    def _grow(self, size: int) -> tuple[int, Mapping]:
        descriptor = os.memfd_create("dorad-test", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            self._segments += 1
            return self._segments, Mapping(descriptor)
        finally:
            os.close(descriptor)

    def send(self, output: str, data: Any, metadata: dict[str, Any] | None) -> None:
        """Check `data` and metadata as in a dataflow, and pass the array to `_put`.

        Raises:
            RuntimeError: `data` is not Arrow data, or cannot be written.
            TypeError, OverflowError: the metadata cannot be sent.
        """
        from dorad.shm.arrow import as_array

        if metadata:
            # Checked as in a dataflow, although it is not written.
            metadata_codec.encode(metadata)
        with self._lock:
            sample = self.shared_arrays.find(data) if self.shared_arrays else None
            self._put(output, as_array(data) if sample is None else flat(data))
            if sample is not None and sample[0] is not None:
                sample[0].freeze()

    def _put(self, output: str, array: Any) -> None:
        """Write or print an Arrow array. Raises RuntimeError if it cannot be written."""
        raise NotImplementedError

    def send_sample(
        self, output: str, sample: Sample, length: int, metadata: dict[str, Any] | None
    ) -> None:
        """Send the first `length` bytes of a sample taken from `pool`, as UInt8."""
        start = sample.offset
        self.send(output, bytes(sample.segment.mapping.memory[start : start + length]), metadata)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Return an uninitialised numpy array; see `SharedArrays.empty`."""
        with self._lock:
            return self.shared_arrays.empty(shape, dtype)

    def take_sample(self, size: int) -> Sample:
        """Return a sample for `send_sample`, held by the caller until `pool.give_back`."""
        with self._lock:
            sample = self.pool.take(max(size, 1))
        sample.held = True
        return sample


class FileSender(LocalSender):
    """Writes outputs as lines of JSON."""

    def __init__(self, path: Path, started: float | None) -> None:
        """Create an empty file; if `started` is None, the lines have no time.

        Raises:
            RuntimeError: it cannot be written.
        """
        super().__init__()
        try:
            # Unbuffered: each output is in the file, however the process ends.
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise RuntimeError(f"{path}: cannot be written: {error.strerror}") from error
        self._started = started

    def _put(self, output: str, array: Any) -> None:
        from dorad.node.offline.arrowjson import to_json

        line: dict[str, Any] = {"id": output}
        if self._started is not None:
            line["time_offset_secs"] = _monotonic() - self._started
        try:
            line |= to_json(array)
        except ValueError as error:
            raise RuntimeError(f"output {output!r}: {error}") from error
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        self._file.write(text.encode() + b"\n")
