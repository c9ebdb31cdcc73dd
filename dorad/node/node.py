"""`Node`: the object with which a program takes part in a dataflow."""

from __future__ import annotations

import gc
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from dorad.node import attach, logbridge
from dorad.node.arguments import check, check_log, check_node, checked_timeout
from dorad.node.attachment import Attachment
from dorad.node.busy import BusyMethods
from dorad.node.clock import as_datetime
from dorad.node.correlation import uuid7
from dorad.node.extensions import ExtensionMethods
from dorad.node.logbridge import LogMethods
from dorad.node.outputids import check_output_id
from dorad.node.params import ParamMethods
from dorad.node.patterns.helpers import PatternMethods
from dorad.node.raw import SampleHandler

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import datetime
    from types import TracebackType

    from numpy.typing import DTypeLike, NDArray

    from dorad.node.events import Event
    from dorad.node.offline.capture import Receiving
    from dorad.node.sender import Sender

_attached: weakref.WeakValueDictionary[str, Attachment] = weakref.WeakValueDictionary()
_attaching = threading.RLock()


def _reset_in_child() -> None:
    """Discard the parent's nodes, and replace a lock that one of its threads may hold."""
    global _attaching
    _attaching = threading.RLock()
    _attached.clear()


os.register_at_fork(after_in_child=_reset_in_child)


def _attachment(node_id: str | None, daemon_port: int | None) -> Any:
    """Return what connects a node to its dataflow, or to what replaces that.

    Raises:
        RuntimeError: there is no dataflow for the node, or the dataflow could not start.
    """
    terminal = sys.stdin is not None and sys.stdin.isatty()
    place = attach.decide(node_id, daemon_port, os.environ, terminal=terminal)
    if isinstance(place, attach.FromFile):
        from dorad.node.offline.filemode import FileAttachment

        return FileAttachment(place.inputs, os.environ)
    if isinstance(place, attach.OnTerminal):
        from dorad.node.offline.interactive import InteractiveAttachment

        return InteractiveAttachment()
    with _attaching:
        existing = _attached.get(place.node_id)
        if existing is None:
            existing = Attachment(attach.connect(place))
            _attached[place.node_id] = existing
    return existing


def _show_as_one_line(error: RuntimeError) -> None:
    """If `error` ends the program, print its text alone: the program's code has no part in it."""
    previous = sys.excepthook

    def show(kind: type[BaseException], shown: BaseException, trace: TracebackType | None) -> None:
        if shown is error:
            print(error, file=sys.stderr)
        else:
            previous(kind, shown, trace)

    sys.excepthook = show


class Node(BusyMethods, ExtensionMethods, ParamMethods, PatternMethods, LogMethods):
    """A node of a running dataflow.

    Without arguments the environment names the node, as `dora run` sets it. With an id the node
    joins a running dataflow that declares it with `path: dynamic`; `daemon_port` is then the
    DORA_DAEMON_LOCAL_LISTEN_PORT of that dataflow. Without either, on a terminal, it asks the user
    for its inputs. Blocks until all nodes of the dataflow are ready.

    Raises:
        RuntimeError: there is no dataflow for this node, or the dataflow could not start.
    """

    def __init__(self, node_id: str | None = None, daemon_port: int | None = None) -> None:
        check_node(node_id, daemon_port)
        try:
            self._attachment = _attachment(node_id, daemon_port)
        except RuntimeError as error:
            _show_as_one_line(error)
            raise
        self._config: dict[str, Any] = self._attachment.config
        self._receiver: Receiving = self._attachment.receiver
        self._sender: Sender = self._attachment.sender
        self._outputs: Collection[str] = self._attachment.outputs
        self._extensions = self._attachment.extensions
        self._leases = self._attachment.leases
        self._params = self._attachment.params
        self._warned: set[str] = set()
        # Existing objects stay until the process ends: later collections can skip them.
        gc.freeze()
        logbridge.bridge(self._config["node_id"])

    def next(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event and return it, None after the last event.

        An event is a dictionary with `type` and the keys of its type; an INPUT has `id`, `value`
        (a pyarrow array) and `metadata`. After `timeout` seconds without an event, return one of
        type ERROR, as in dora.

        Raises:
            ValueError: `timeout` is negative or not finite.
            RuntimeError: a signal handler has interrupted this thread while it was receiving.
        """
        return self._receiver.next(None if timeout is None else checked_timeout(timeout))

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self._receiver.next(None)
        if event is None:
            raise StopIteration
        return event

    async def recv_async(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event like `next`, without blocking the event loop.

        Several tasks may wait: each event goes to the one that has waited longest.

        Raises:
            ValueError: `timeout` is negative or not finite.
        """
        return await self._receiver.recv_async(
            None if timeout is None else checked_timeout(timeout)
        )

    def try_recv(self) -> Event | None:
        """Return the next event if one is queued, else None."""
        return self._receiver.try_recv()

    def drain(self) -> list[Event]:
        """Return all queued events.

        Raises:
            RuntimeError: the last event was already received.
        """
        return self._receiver.drain()

    def is_empty(self) -> bool:
        """Return True if no event is queued."""
        return self._receiver.is_empty()

    def merge_external_events(self, subscription: Any) -> NoReturn:
        """Raise NotImplementedError: there is no ROS 2 bridge.

        Raises:
            NotImplementedError: always; it is a RuntimeError.
        """
        raise NotImplementedError(
            "merge_external_events is not available: there is no ROS 2 bridge for Python here"
        )

    def send_output(
        self, output_id: str, data: Any, metadata: dict[str, Any] | None = None
    ) -> None:
        """Send `data` on an output.

        `data` is a pyarrow array, a RecordBatch (arrives as a struct array), `bytes` (arrives as
        UInt8), or an array from `empty`, which is sent without a copy and is read-only from
        then on. Values of `metadata` are bool, int (64 bits), float, str, datetime, and lists of
        int, float or str. Blocks only for an input with `backpressure`. An output that the dataflow
        does not declare is ignored with one warning.

        Raises:
            RuntimeError: the type of the data is not accepted, the id is malformed, a metadata key
                is not a string, or /dev/shm is full.
            TypeError, OverflowError: a metadata value cannot be sent, or the id is not a string.
        """
        try:
            declared = output_id in self._outputs
        except TypeError:  # it cannot even be looked up
            declared = False
        if declared:
            self._sender.send(output_id, data, metadata)
        else:
            self._undeclared(output_id)

    def send_output_raw(
        self, output_id: str, data_length: int, metadata: dict[str, Any] | None = None
    ) -> SampleHandler:
        """Return a writable buffer of `data_length` bytes in shared memory, to fill and send.

        `metadata` is copied now. The receiver gets a UInt8 array.

        Raises:
            RuntimeError: the output is not declared, a metadata key is not a string, or /dev/shm is
                full.
            TypeError, OverflowError: the length is not an integer, or negative; or a metadata value
                cannot be sent.
        """
        check("output_id", output_id, str)
        if output_id not in self._outputs:
            self._undeclared(output_id)
            raise RuntimeError(f"Output `{output_id}` not in node's output list.")
        return SampleHandler(self._attachment, self._sender, output_id, data_length, metadata)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = "uint8") -> NDArray[Any]:
        """Return an uninitialised numpy array of `shape` in shared memory.

        The dtype is a native integer or float of up to 8 bytes. `send_output` sends the array, or a
        pyarrow array over all of it, without a copy, flattened in C order. From then on the array
        is read-only, because receivers read it. Its memory is reused when the last receiver has
        released it.

        Raises:
            ValueError: the dtype is not a native integer or float, or the shape is negative.
            RuntimeError: /dev/shm is full.
        """
        array: NDArray[Any] = self._sender.empty(shape, dtype)
        return array

    def _undeclared(self, output_id: str) -> None:
        check_output_id(output_id)
        if output_id not in self._warned:
            self._warned.add(output_id)
            self.log(
                "warn",
                f"Ignoring output `{output_id}` not in node's output list. "
                f"Add it to `outputs` of the node in the dataflow: "
                f"`outputs: [{', '.join([*sorted(self._outputs), output_id])}]`",
            )

    def send_service_request(
        self, output_id: str, data: Any, metadata: dict[str, Any] | None = None
    ) -> str:
        """Send `data` as a request and return its new `request_id`, a UUIDv7.

        The server echoes the id in the metadata of its response. Raises what `send_output` does.
        """
        check("metadata", metadata, dict, optional=True)
        sent = dict(metadata or {})
        if "request_id" in sent:
            self.log("warn", "the given request_id is replaced by a new one")
        request_id = sent["request_id"] = uuid7()
        self.send_output(output_id, data, sent)
        return request_id

    def send_service_response(self, output_id: str, data: Any, metadata: dict[str, Any]) -> None:
        """Send `data` as the response to the request whose `request_id` is in `metadata`.

        Raises what `send_output` does. Without an id it warns, because no client can match it.
        """
        check("metadata", metadata, dict)
        if "request_id" not in metadata:
            self.log("warn", "a service response has no request_id: no client can match it")
        self.send_output(output_id, data, metadata)

    def log(
        self,
        level: str,
        message: str,
        target: str | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Print a structured log line.

        `level` is error, warn, info, debug or trace; an unknown one counts as info. `fields` of
        more than 60 KiB are left out.
        """
        check_log(level, message, target, fields)
        logbridge.emit(logbridge.line(self._config["node_id"], level, message, target, fields))

    def dataflow_descriptor(self) -> dict[str, Any]:
        """Return the parsed dataflow file, without the `env` of other nodes."""
        return dict(self._config["descriptor"])

    def dataflow_id(self) -> str:
        """Return the UUID of the running dataflow."""
        return str(self._config["dataflow_id"])

    def node_config(self) -> dict[str, Any]:
        """Return `inputs`, a dictionary by id, and `outputs`, a list, as in the dataflow file."""
        return dict(self._config["run_config"])

    def is_restart(self) -> bool:
        """Return True if the daemon has restarted the node."""
        return self.restart_count() > 0

    def restart_count(self) -> int:
        """Return how often the daemon has restarted the node."""
        return int(self._config["restart_count"])

    def timestamp(self) -> datetime:
        """Return the time of the dataflow, UTC, from a hybrid logical clock.

        It is never earlier than a message that this node has received. As in dora, a timestamp of
        more than 0.5 s ahead of this machine's clock does not move it.
        """
        return as_datetime(self._attachment.clock.now())
