"""`Node`: the object with which a program takes part in a dataflow."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from dorad.node import logbridge
from dorad.node.arguments import check, check_log, check_node, checked_timeout
from dorad.node.attachment import attached, show_as_one_line
from dorad.node.busy import Leases, checked_reason
from dorad.node.clock import as_datetime
from dorad.node.correlation import uuid7
from dorad.node.extensions import Table, check_names
from dorad.node.outputids import check_output_id
from dorad.node.patterns.helpers import Patterns
from dorad.node.raw import SampleHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime

    from numpy.typing import DTypeLike, NDArray

    from dorad.node.events import Event
    from dorad.node.externalinput import ExternalSource
    from dorad.node.offline.capture import Receiving
    from dorad.node.params import Params
    from dorad.node.patterns.goals import Goal
    from dorad.node.patterns.streams import StreamReader, StreamSender
    from dorad.node.sender import Sender

Handler = Any
"""A function of one argument, plain or async."""


class Node:
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
            self._attachment = attached(node_id, daemon_port)
        except RuntimeError as error:
            show_as_one_line(error)
            raise
        self._config: dict[str, Any] = self._attachment.config
        self._receiver: Receiving = self._attachment.receiver
        self._sender: Sender = self._attachment.sender
        self._outputs: Collection[str] = self._attachment.outputs
        self._extensions: Table = self._attachment.extensions
        self._leases: Leases = self._attachment.leases
        self._params: Params = self._attachment.params
        self._patterns = Patterns(self._attachment)
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

    def merge_external_events(self, subscription: ExternalSource) -> None:
        """Receive the messages of a `Ros2Subscription` among the events of this node.

        Each is an event with the `kind` "external" and the `value`, served in turn with the
        inputs. The subscription's own `next` is of no more use.

        Raises:
            TypeError: it is not a subscription.
            RuntimeError: it is merged already, or the node is without a dataflow.
        """
        if not callable(getattr(subscription, "merge_into", None)):
            raise TypeError(f"a Ros2Subscription can be merged, not {type(subscription).__name__}")
        self._attachment.merge(subscription)

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

    def mark(self, note: str = "", *, before: float = 60.0, after: float = 20.0) -> None:
        """Ask the black box of the dataflow, if it has one, to keep what happens around now.

        `before` and `after` are in seconds. The mark is a log line at level info.
        """
        self.log("info", note, logbridge.MARK_TARGET, {"before": before, "after": after})

    def log_error(self, message: str) -> None:
        """Log at level error."""
        self.log("error", message)

    def log_warn(self, message: str) -> None:
        """Log at level warn."""
        self.log("warn", message)

    def log_info(self, message: str) -> None:
        """Log at level info."""
        self.log("info", message)

    def log_debug(self, message: str) -> None:
        """Log at level debug."""
        self.log("debug", message)

    def log_trace(self, message: str) -> None:
        """Log at level trace."""
        self.log("trace", message)

    def param(self, name: str) -> Any:
        """Return the current value of a parameter, as JSON gives it.

        A new value is visible as soon as the daemon has sent it, perhaps before its PARAM_UPDATE
        event is received.

        Raises:
            KeyError: there is no parameter of this name; the text names the nearest one.
        """
        return self._params.get(name)

    def params(self) -> dict[str, Any]:
        """Return the current values of all parameters, by name."""
        return self._params.all()

    def extension_store(self, namespace: str, key: str, value: bytes) -> None:
        """Store opaque bytes that all nodes of the dataflow can load, until this node ends.

        Raises:
            RuntimeError: another node has stored this key, 8192 entries are there already, the
                value has more than 64 MiB, this node would store more than 128 MiB (all nodes
                together: 256 MiB), a name has more than 1024 characters, or the connection to the
                daemon was closed.
            TypeError: the value is not `bytes`, or a name is not a `str`.
            ValueError: a name is not valid Unicode.
        """
        if not isinstance(value, bytes):
            raise TypeError(f"the value must be bytes, got {type(value).__name__}")
        check_names(namespace, key)
        self._extensions.store(namespace, key, value)

    def extension_load(self, namespace: str, key: str, remove: bool = False) -> bytes | None:
        """Return a stored value, or None if there is none; `remove` also drops it.

        Raises:
            RuntimeError: the connection to the daemon was closed.
            TypeError: a name is not a `str`.
        """
        check_names(namespace, key)
        if not isinstance(remove, bool):
            raise TypeError(f"remove must be a bool, got {type(remove).__name__}")
        return self._extensions.load(namespace, key, remove)

    def extension_drop(self, namespace: str, key: str) -> None:
        """Drop a stored value; do nothing if there is none.

        Raises:
            RuntimeError: the connection to the daemon was closed.
            TypeError: a name is not a `str`.
        """
        check_names(namespace, key)
        self._extensions.drop(namespace, key)

    def drain_dropped_extension_keys(self, namespace: str) -> list[str]:
        """Return the keys dropped since the last call that this node had stored or loaded.

        A key is dropped by `extension_drop`, by loading with `remove`, and when its owner ends.
        Only the last 4096 keys are kept.

        Raises:
            RuntimeError: the connection to the daemon was closed.
            TypeError: the namespace is not a `str`.
        """
        check_names(namespace)
        return self._extensions.drain(namespace)

    @contextmanager
    def busy(self, reason: str) -> Iterator[None]:
        """Hold a lease inside a `with` block: no new release starts to run on this robot.

        The lease also ends with the process. It delays a switch, up to the rollout's `busy_max`,
        and prevents no stop that a user asks for, and no return to the release before.

        Raises:
            ValueError: the reason is empty or has more than 200 characters.
            RuntimeError: this node has 16 leases already, or the daemon cannot be reached.
        """
        number = self._leases.take(checked_reason(reason))
        try:
            yield
        finally:
            self._leases.end(number)

    def call(
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        *,
        reply: str | None = None,
    ) -> Event:
        """Send a request on `output` and wait for its reply, up to `timeout` seconds.

        The reply is the INPUT event with the same `request_id`. It comes on the input whose source
        is the node that receives `output`, or on the input `reply`. Other events stay queued.
        May be used from several threads at once, and while another thread receives.

        Raises:
            dora.patterns.NoPeerError: no node can reply, or it is ambiguous on which input.
            dora.patterns.NoAnswerError: the timeout is over; it is also a TimeoutError.
            dora.patterns.PeerLostError: the replying node has ended or was restarted.
            dora.patterns.StoppingError: the node is being stopped; STOP is not received yet.
            dora.patterns.RemoteError: the remote handler raised an exception.
            ValueError: `timeout` is negative or not finite.
            RuntimeError: the base of all of these but ValueError; and what `send_output` raises.
        """
        return self._patterns.call(self.send_output, output, data, metadata, timeout, reply).wait()

    async def call_async(
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        *,
        reply: str | None = None,
    ) -> Event:
        """Send a request and wait for its reply like `call`, without blocking the event loop."""
        return await self._patterns.call(
            self.send_output, output, data, metadata, timeout, reply
        ).wait_async()

    def send_goal(
        self,
        output: str,
        data: Any,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        *,
        feedback: str | None = None,
        result: str | None = None,
        cancel: str | None = None,
    ) -> Goal:
        """Send a goal on `output`; iterate over the goal for feedback, and call its `result`.

        Feedback and result come on the inputs whose source is the node that receives `output`, or
        on the named inputs. `cancel` is the output for cancels: by default the other output to that
        node. All waits for the goal end `timeout` seconds from now.

        Raises what `call` does.
        """
        inputs = (feedback, result)
        return self._patterns.goal(
            self.send_output, output, data, metadata, timeout, inputs, cancel
        )

    @overload
    def serve(self, *, others: Callable[[Event], Any] | None = None) -> Event | None: ...
    @overload
    def serve(self, request: str, response: str) -> Callable[[Handler], Handler]: ...
    @overload
    def serve(
        self,
        request: str,
        response: str,
        handler: Handler,
        *,
        others: Callable[[Event], Any] | None = None,
    ) -> Event | None: ...
    def serve(
        self,
        request: str | None = None,
        response: str | None = None,
        handler: Handler | None = None,
        *,
        others: Callable[[Event], Any] | None = None,
    ) -> Any:
        """Reply to requests on the input `request` with messages on the output `response`.

        `handler` gets each request's event and returns the data of the reply, or a tuple of data
        and metadata; None is an empty reply. An exception becomes an error at the caller. `others`
        gets all other events. Returns the STOP event, or None after the last event.

        With two arguments it decorates a handler. Without arguments it serves all handlers that
        were decorated with it and with `serve_goals`.

        Raises:
            ValueError: there is no handler, or the output `response` is not declared.
        """
        server = self._patterns.server(self)
        if request is None:
            return server.run(others)
        if response is None:
            raise ValueError("serve also needs the output for replies")
        if handler is None:
            return server.decorator(server.add_service, request, response)
        server.add_service(handler, request, response)
        return server.run(others)

    async def serve_async(
        self,
        request: str | None = None,
        response: str | None = None,
        handler: Handler | None = None,
        *,
        others: Callable[[Event], Any] | None = None,
    ) -> Event | None:
        """Serve like `serve`; handlers may be coroutine functions, and each request is a task."""
        server = self._patterns.server(self)
        if request is not None:
            if response is None or handler is None:
                raise ValueError(
                    "serve_async needs an input, an output and a handler, or no argument"
                )
            server.add_service(handler, request, response)
        return await server.run_async(others)

    def serve_goals(
        self,
        goal: str,
        result: str,
        *,
        feedback: str | None = None,
        cancel: str | None = None,
        concurrent: int = 8,
    ) -> Callable[[Handler], Handler]:
        """Decorate a handler of goals from the input `goal`; `serve` runs it.

        The handler gets a `ServedGoal`, and its return value is sent on the output `result`. Up to
        `concurrent` goals run at once, in threads (tasks with `serve_async`); further goals are
        queued. Cancels come on the input `cancel`.

        Raises:
            ValueError: an output is not declared, or `concurrent` is less than 1.
        """
        server = self._patterns.server(self)
        return server.decorator(server.add_goals, goal, result, feedback, cancel, concurrent)

    def open_stream(self, output: str, session_id: str | None = None) -> StreamSender:
        """Start a stream session on an output; its id is a UUIDv7 unless given."""
        from dorad.node.patterns.streams import StreamSender

        return StreamSender(self.send_output, output, session_id)

    def read_stream(self, input_id: str) -> StreamReader:
        """Return a reader of the stream sessions on an input; pass it every event."""
        from dorad.node.patterns.streams import StreamReader

        return StreamReader(input_id)

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
