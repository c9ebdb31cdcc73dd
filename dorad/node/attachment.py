"""The state of a node in this process: its connection, receiver, sender and clock."""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from dorad.node import attach, forking, inputs
from dorad.node.busy import DaemonLeases
from dorad.node.clock import Clock, StampCounter
from dorad.node.extensions import DaemonTable
from dorad.node.inputfactory import InputFactory
from dorad.node.inputs import RingInput
from dorad.node.nodeinputs import NodeInputs
from dorad.node.receiver import Receiver
from dorad.node.sender import Sender
from dorad.shm import doorbell, stepping
from dorad.shm.layout import DEFAULT_KEEP, SPIN_US
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from types import TracebackType

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.node.externalinput import ExternalSource
    from dorad.node.offline.capture import Receiving
    from dorad.node.patterns.exchange import Exchange
    from dorad.node.typecheck import TypeChecks
    from dorad.shm.pool import Sample


class WatchedReceiver:
    """A receiver whose calls count heartbeats."""

    def __init__(self, receiver: Receiving, connection: DaemonConnection) -> None:
        self._receiver = receiver
        self._beat = connection.beat

    @property
    def ended(self) -> bool:
        """True after the last event."""
        return self._receiver.ended

    def next(self, timeout: float | None) -> Event | None:
        """See `Receiver`."""
        self._beat()
        try:
            return self._receiver.next(timeout)
        finally:
            self._beat()

    async def recv_async(self, timeout: float | None) -> Event | None:
        """See `Receiver`."""
        self._beat()
        try:
            return await self._receiver.recv_async(timeout)
        finally:
            self._beat()

    def try_recv(self) -> Event | None:
        """See `Receiver`."""
        self._beat()
        return self._receiver.try_recv()

    def drain(self) -> list[Event]:
        """See `Receiver`."""
        self._beat()
        return self._receiver.drain()

    def is_empty(self) -> bool:
        """See `Receiver`."""
        self._beat()
        return self._receiver.is_empty()


class WatchedSender(Sender):
    """A sender whose calls count heartbeats."""

    def send(self, output: str, data: Any, metadata: dict[str, Any] | None) -> None:
        """See `Sender`."""
        self._connection.beat()
        try:
            super().send(output, data, metadata)
        finally:
            self._connection.beat()

    def send_sample(
        self, output: str, sample: Sample, length: int, metadata: dict[str, Any] | None
    ) -> None:
        """See `Sender`."""
        self._connection.beat()
        try:
            super().send_sample(output, sample, length, metadata)
        finally:
            self._connection.beat()

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """See `Sender`."""
        self._connection.beat()
        return super().empty(shape, dtype)

    def take_sample(self, size: int) -> Sample:
        """See `Sender`."""
        self._connection.beat()
        return super().take_sample(size)


_log = logging.getLogger(__name__)


class Attachment:
    """The state that all `Node` objects of one id in this process share; ends with the last."""

    def __init__(self, connection: DaemonConnection) -> None:
        config = connection.config
        self.connection = connection
        self.config = config
        self.outputs = frozenset(config["outputs"])
        stepping.allow(config.get("stepped") is True)
        self.clock = Clock(
            StampCounter(config["node_id"], connection.box.words), connection.box.words
        )
        if config.get("lock_memory"):
            lock_memory(connection)
        spin_us = config.get("spin_us")
        # On a single core, polling keeps the sender from running.
        limit = 0 if len(os.sched_getaffinity(0)) == 1 else SPIN_US
        spin = Spin(limit if spin_us is None else spin_us)
        types = type_checks(config)
        inputs.warm_up(config)
        epoch_ns = connection.wait_for_start()
        make = InputFactory(connection, self.clock, epoch_ns, types)
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
        self.leases = DaemonLeases(connection)
        kind = WatchedSender if connection.watched else Sender
        sender = kind(connection, self.clock, DEFAULT_KEEP if keep is None else keep)
        connection.catch_up = functools.partial(_catch_up, weakref.ref(sender))
        connection.catch_up()
        self.sender: Any = sender if types is None else types.sender(sender)
        self.params = connection.params
        forking.watch(self)
        self.ring_receiver.inputs.wait_for_turn()
        _log.debug(
            "node %s: %d inputs, outputs %s", config["node_id"], len(served), config["outputs"]
        )

    def merge(self, source: ExternalSource) -> None:
        """Receive the values of a source among the events of the node."""
        alive = weakref.ref(self)

        def wake() -> None:
            attachment = alive()  # its doorbell stays open while this thread holds it
            if attachment is not None:
                doorbell.ring(attachment.connection.bell)

        self.ring_receiver.inputs.add_external(source.merge_into(wake))
        wake()  # another thread may sleep, and a value may have come before this input was there

    def abandon(self) -> None:
        """Leave the node to the parent process: this one is a forked child."""
        forking.refuse(self.receiver)
        forking.refuse(self.ring_receiver)
        forking.refuse(self.sender)
        forking.refuse(self.extensions)
        forking.refuse(self.leases)
        forking.refuse(self.params)
        forking.detach(self.connection.box)
        self.connection.hang_up()

    def __del__(self) -> None:
        if hasattr(self, "sender"):
            self.connection.done()


def type_checks(config: dict[str, Any]) -> TypeChecks | None:
    """Return the type checks of a node, None if it declares no types."""
    if not config.get("types"):
        return None
    from dorad.node.typecheck import TypeChecks  # most nodes declare no types

    return TypeChecks(config["node_id"], config["types"])


def _catch_up(sender: weakref.ref[Sender]) -> bool:
    """Call `Sender.catch_up` if the sender still exists."""
    alive = sender()
    return alive is None or alive.catch_up()


def lock_memory(connection: DaemonConnection) -> None:
    """Lock all present and future pages of this process in memory, including the mailbox."""
    from dorad.realtime.memory import lock  # few nodes ask for it

    missing = lock()
    if missing is not None:
        connection.note(missing)


_attached: weakref.WeakValueDictionary[str, Attachment] = weakref.WeakValueDictionary()
_attaching = threading.RLock()


def _reset_in_child() -> None:
    """Discard the parent's nodes, and replace a lock that one of its threads may hold."""
    global _attaching
    _attaching = threading.RLock()
    _attached.clear()


os.register_at_fork(after_in_child=_reset_in_child)


def attached(node_id: str | None, daemon_port: int | None) -> Any:
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


def show_as_one_line(error: RuntimeError) -> None:
    """If `error` ends the program, print its text alone: the program's code has no part in it."""
    previous = sys.excepthook

    def show(kind: type[BaseException], shown: BaseException, trace: TracebackType | None) -> None:
        if shown is error:
            print(error, file=sys.stderr)
        else:
            previous(kind, shown, trace)

    sys.excepthook = show
