"""`Node`: the object with which a program takes part in a dataflow."""

from __future__ import annotations

import functools
import gc
import math
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from dorad.node import attach, forking, inputs, logbridge
from dorad.node.clock import Clock, StampCounter, as_datetime
from dorad.node.correlation import session_of
from dorad.node.extensions import DaemonTable, Extended
from dorad.node.identifiers import uuid7, well_formed
from dorad.node.inputs import RingInput, TimerInput
from dorad.node.nodeinputs import NodeInputs
from dorad.node.params import Parameterised
from dorad.node.patterns.helpers import Patterned
from dorad.node.peers import ring_at
from dorad.node.pulse import WatchedReceiver, WatchedSender
from dorad.node.raw import SampleHandler
from dorad.node.receiver import Receiver
from dorad.node.sender import Sender
from dorad.node.speech import Speaking
from dorad.shm.lane import LanedInlet
from dorad.shm.layout import RING_LATCHED
from dorad.shm.pool import DEFAULT_KEEP
from dorad.shm.ring import Inlet
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from datetime import datetime

    from numpy.typing import DTypeLike, NDArray

    from dorad.node.choosing import SyncGroup
    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.node.offline.capture import Receiving
    from dorad.node.patterns.exchange import Exchange
    from dorad.node.typecheck import TypeChecks
    from dorad.shm.layout import RingPlan
    from dorad.shm.picking import PickingInlet

_MAX_TIMEOUT_S = 1e12

SPIN_US = 100
"""Maximum time that a receiver polls before it blocks, unless `spin_us` is set."""


class _Attachment:
    """The state that all `Node` objects of one id in this process share; ends with the last."""

    def __init__(self, connection: DaemonConnection) -> None:
        config = connection.config
        self.connection = connection
        self.config = config
        self.outputs = frozenset(config["outputs"])
        self.clock = Clock(StampCounter(config["node_id"], connection.box.words))
        if config.get("lock_memory"):
            _lock_memory(connection)
        spin_us = config.get("spin_us")
        # On a single core, polling keeps the sender from running.
        limit = 0 if len(os.sched_getaffinity(0)) == 1 else SPIN_US
        spin = Spin(limit if spin_us is None else spin_us)
        types = _type_checks(config)
        inputs.warm_up(config)
        epoch_ns = connection.wait_for_start()
        make = functools.partial(_input, connection, self.clock, epoch_ns, types, {})
        served = [make(item) for item in config["inputs"]]
        if config["dynamic"]:
            # A node started by hand receives only what is sent from now on.
            for item in served:
                if isinstance(item, RingInput):
                    item.inlet.discard()
        self.ring_receiver = Receiver(
            NodeInputs(connection, connection.daemon_events, served, spin, make)
        )
        self.receiver: Receiving = self.ring_receiver
        self.exchange: Exchange | None = None
        if connection.watched:
            self.receiver = WatchedReceiver(self.receiver, connection)
        directory = os.environ.get(attach.WRITE_EVENTS)
        if directory:
            from pathlib import Path

            from dorad.node.offline.capture import CapturingReceiver, Recorder

            recorder = Recorder(Path(directory), config["node_id"], connection.params.all())
            self.receiver = CapturingReceiver(self.receiver, recorder)
        keep = config["keep_bytes"]
        self.extensions = DaemonTable(connection)
        kind = WatchedSender if connection.watched else Sender
        sender = kind(connection, self.clock, DEFAULT_KEEP if keep is None else keep)
        connection.catch_up = functools.partial(_catch_up, weakref.ref(sender))
        connection.catch_up()
        self.sender: Any = sender if types is None else types.sender(sender)
        self.params = connection.params
        forking.watch(self)

    def abandon(self) -> None:
        """Leave the node to the parent process: this one is a forked child."""
        forking.refuse(self.receiver)
        forking.refuse(self.ring_receiver)
        forking.refuse(self.sender)
        forking.refuse(self.extensions)
        forking.refuse(self.params)
        forking.detach(self.connection.box)
        self.connection.hang_up()

    def __del__(self) -> None:
        if hasattr(self, "sender"):
            self.connection.done()


def _type_checks(config: dict[str, Any]) -> TypeChecks | None:
    if not config.get("types"):
        return None
    from dorad.node.typecheck import TypeChecks  # most nodes declare no types

    return TypeChecks(config["node_id"], config["types"])


def _catch_up(sender: weakref.ref[Sender]) -> bool:
    """Call `Sender.catch_up` if the sender still exists."""
    found = sender()
    return found is None or found.catch_up()


def _input(
    connection: DaemonConnection,
    clock: Clock,
    epoch_ns: int,
    types: TypeChecks | None,
    groups: dict[str, SyncGroup],
    item: dict[str, Any],
) -> RingInput | TimerInput:
    """Return the object for one ring or timer of an input; `groups` holds the synchronised sets."""
    ring = ring_at(connection.box.words, item["ring"])
    if item["interval_ns"] is not None:
        deadline_ns = connection.config.get("deadline_ns")
        interval_ns = item["interval_ns"]
        return TimerInput(item["id"], connection.box, ring, interval_ns, epoch_ns, deadline_ns)
    space = connection.spaces.get(item["source"]) if item["blocking"] else None
    if connection.box.words[ring.base + RING_LATCHED]:
        from dorad.shm.latch import LatchedInlet  # few inputs are latched

        latched = LatchedInlet(connection.box, ring, connection.segment, space)
        return _chosen(latched, clock, types, groups, item)
    if "max_rate_hz" in item or "sync" in item:
        from dorad.shm.picking import PickingInlet  # few inputs select

        picking = PickingInlet(connection.box, ring, connection.segment, space)
        return _chosen(picking, clock, types, groups, item)
    return _served(_inlet(connection, ring, space, item["id"]), clock, types, item)


def _served(
    inlet: Inlet, clock: Clock, types: TypeChecks | None, item: dict[str, Any]
) -> RingInput:
    if types is not None:
        return types.input(item["id"], item["source"], inlet, clock)
    return RingInput(item["id"], inlet, clock)


def _chosen(
    inlet: PickingInlet,
    clock: Clock,
    types: TypeChecks | None,
    groups: dict[str, SyncGroup],
    item: dict[str, Any],
) -> RingInput:
    served = _served(inlet, clock, types, item)
    if "max_rate_hz" not in item and "sync" not in item:
        return served
    from dorad.node import choosing

    return choosing.make(item, served, inlet, clock, groups)


def _inlet(connection: DaemonConnection, ring: RingPlan, space: int | None, input_id: str) -> Inlet:
    if not ring.lane:
        return Inlet(connection.box, ring, connection.segment, space)
    inlet = LanedInlet(connection.box, ring, connection.segment, space)
    inlet.session_of = session_of
    inlet.on_lost = functools.partial(_report_lost, connection.config["node_id"], input_id)
    return inlet


def _report_lost(node_id: str, input_id: str, lost: int) -> None:
    text = (
        f"input `{input_id}`: {lost} messages with a request_id or goal_id were dropped: the queue "
        "is full of newer ones; read faster, or give the input a larger `queue_size`"
    )
    logbridge.emit(logbridge.line(node_id, "error", text, None, None))


def _lock_memory(connection: DaemonConnection) -> None:
    """Lock all present and future pages of this process in memory, including the mailbox."""
    from dorad.realtime.memory import lock  # few nodes ask for it

    missing = lock()
    if missing is not None:
        connection.note(missing)


_attached: weakref.WeakValueDictionary[str, _Attachment] = weakref.WeakValueDictionary()
_attaching = threading.RLock()


def _reset_in_child() -> None:
    """Forget the parent's nodes, and a lock that one of its threads may hold."""
    global _attaching
    _attaching = threading.RLock()
    _attached.clear()


os.register_at_fork(after_in_child=_reset_in_child)


class Node(Extended, Parameterised, Patterned, Speaking):
    """A node of a running dataflow.

    Without arguments the environment names the node, as `dora run` sets it. With an id the node
    joins a running dataflow that declares it with `path: dynamic`. Without either, on a terminal,
    it asks the user for its inputs.

    Raises:
        RuntimeError: there is no dataflow for this node, or the dataflow could not start.
    """

    def __init__(self, node_id: str | None = None, daemon_port: int | None = None) -> None:
        terminal = sys.stdin is not None and sys.stdin.isatty()
        place = attach.decide(node_id, daemon_port, os.environ, terminal=terminal)
        if isinstance(place, attach.FromFile):
            from dorad.node.offline.filemode import FileAttachment

            self._attachment: Any = FileAttachment(place.inputs, os.environ)
        elif isinstance(place, attach.OnTerminal):
            from dorad.node.offline.interactive import InteractiveAttachment

            self._attachment = InteractiveAttachment()
        else:
            with _attaching:
                existing = _attached.get(place.node_id)
                if existing is None:
                    existing = _Attachment(attach.connect(place))
                    _attached[place.node_id] = existing
            self._attachment = existing
        self._config: dict[str, Any] = self._attachment.config
        self._receiver: Receiving = self._attachment.receiver
        self._sender: Sender = self._attachment.sender
        self._outputs: Container[str] = self._attachment.outputs
        self._extensions = self._attachment.extensions
        self._params = self._attachment.params
        self._warned: set[str] = set()
        # Existing objects stay until the process ends: later collections can skip them.
        gc.freeze()
        logbridge.bridge(self._config["node_id"])

    # -- receiving ---------------------------------------------------------------------------

    def next(self, timeout: float | None = None) -> Event | None:
        """Block for the next event.

        Returns None after the last event. After `timeout` seconds without an event, it returns one
        of type ERROR, as in dora.

        Raises:
            ValueError: `timeout` is negative or not finite.
        """
        return self._receiver.next(None if timeout is None else _checked_timeout(timeout))

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self._receiver.next(None)
        if event is None:
            raise StopIteration
        return event

    async def recv_async(self, timeout: float | None = None) -> Event | None:
        """Wait for the next event like `next`, without blocking the event loop."""
        return await self._receiver.recv_async(
            None if timeout is None else _checked_timeout(timeout)
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

    # -- sending -----------------------------------------------------------------------------

    def send_output(
        self, output_id: str, data: Any, metadata: dict[str, Any] | None = None
    ) -> None:
        """Send `data` on an output.

        `data` is a pyarrow array, a RecordBatch (arrives as a struct array), `bytes` (arrives as
        UInt8), or an array from `empty`, which is sent without a copy and is read-only from
        then on. An output that the dataflow does not declare is ignored with one warning.

        Raises:
            RuntimeError: the type of the data is not accepted, the id is malformed, a metadata key
                is not a string, or /dev/shm is full.
            TypeError, OverflowError: a metadata value cannot be sent, or the id is not a string.
        """
        if output_id in self._outputs:
            self._sender.send(output_id, data, metadata)
        else:
            self._undeclared(output_id)

    def send_output_raw(
        self, output_id: str, data_length: int, metadata: dict[str, Any] | None = None
    ) -> SampleHandler:
        """Return a writable buffer of `data_length` bytes in shared memory, to fill and send.

        Raises:
            RuntimeError: the output is not declared, or /dev/shm is full.
            TypeError, OverflowError: the length is not an integer, or negative.
        """
        if output_id not in self._outputs:
            self._undeclared(output_id)
            raise RuntimeError(f"Output `{output_id}` not in node's output list.")
        return SampleHandler(self._attachment, self._sender, output_id, data_length, metadata)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike = "uint8") -> NDArray[Any]:
        """Return an uninitialised numpy array in shared memory.

        `send_output` sends it, or a pyarrow array over all of it, without a copy, flattened in C
        order. From then on the array is read-only, because receivers read it. Its memory is reused
        when the last receiver has released it.

        Raises:
            ValueError: the dtype is not a native integer or float, or the shape is negative.
            RuntimeError: /dev/shm is full.
        """
        array: NDArray[Any] = self._sender.empty(shape, dtype)
        return array

    def _undeclared(self, output_id: str) -> None:
        if not isinstance(output_id, str):
            raise TypeError(f"output_id must be a str, got {type(output_id).__name__}")
        if not well_formed(output_id):
            raise RuntimeError(
                f"invalid output_id {output_id!r}: letters, digits and _ . - are allowed, "
                "and / between two of them"
            )
        if output_id not in self._warned:
            self._warned.add(output_id)
            self.log("warn", f"Ignoring output `{output_id}` not in node's output list.")

    def send_service_request(
        self, output_id: str, data: Any, metadata: dict[str, Any] | None = None
    ) -> str:
        """Send `data` as a request and return its new `request_id`, a UUIDv7.

        The server echoes the id in the metadata of its response. Raises what `send_output` does.
        """
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
        if "request_id" not in metadata:
            self.log("warn", "a service response has no request_id: no client can match it")
        self.send_output(output_id, data, metadata)

    # -- saying ------------------------------------------------------------------------------

    def log(
        self,
        level: str,
        message: str,
        target: str | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Print a structured log line; an unknown level counts as info."""
        logbridge.emit(logbridge.line(self._config["node_id"], level, message, target, fields))

    # -- knowing -----------------------------------------------------------------------------

    def dataflow_descriptor(self) -> dict[str, Any]:
        """Return the parsed dataflow file."""
        return dict(self._config["descriptor"])

    def dataflow_id(self) -> str:
        """Return the UUID of the running dataflow."""
        return str(self._config["dataflow_id"])

    def node_config(self) -> dict[str, Any]:
        """Return the node's inputs and outputs as in the dataflow file."""
        return dict(self._config["run_config"])

    def is_restart(self) -> bool:
        """Return True if the daemon has restarted the node."""
        return self.restart_count() > 0

    def restart_count(self) -> int:
        """Return how often the daemon has restarted the node."""
        return int(self._config["restart_count"])

    def timestamp(self) -> datetime:
        """Return the time of the dataflow: UTC, from a hybrid logical clock."""
        return as_datetime(self._attachment.clock.now())


def _checked_timeout(timeout: float) -> float:
    if not math.isfinite(timeout) or timeout < 0:
        raise ValueError(
            f"invalid timeout of {timeout} seconds: it must be finite and not negative"
        )
    return min(float(timeout), _MAX_TIMEOUT_S)
