"""The state of a node in this process: its connection, receiver, sender and clock."""

from __future__ import annotations

import functools
import logging
import os
import weakref
from typing import TYPE_CHECKING, Any

from dorad.node import attach, forking, inputs
from dorad.node.busy import DaemonLeases
from dorad.node.clock import Clock, StampCounter
from dorad.node.extensions import DaemonTable
from dorad.node.inputfactory import InputFactory
from dorad.node.inputs import RingInput
from dorad.node.nodeinputs import NodeInputs
from dorad.node.pulse import WatchedReceiver, WatchedSender
from dorad.node.receiver import Receiver
from dorad.node.sender import Sender
from dorad.shm.pool import DEFAULT_KEEP
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from dorad.node.connection import DaemonConnection
    from dorad.node.offline.capture import Receiving
    from dorad.node.patterns.exchange import Exchange
    from dorad.node.typecheck import TypeChecks

_log = logging.getLogger(__name__)

SPIN_US = 100
"""Maximum time that a receiver polls before it blocks, unless `spin_us` is set."""


class Attachment:
    """The state that all `Node` objects of one id in this process share; ends with the last."""

    def __init__(self, connection: DaemonConnection) -> None:
        config = connection.config
        self.connection = connection
        self.config = config
        self.outputs = frozenset(config["outputs"])
        self.clock = Clock(StampCounter(config["node_id"], connection.box.words))
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
        _log.debug(
            "node %s: %d inputs, outputs %s", config["node_id"], len(served), config["outputs"]
        )

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
    found = sender()
    return found is None or found.catch_up()


def lock_memory(connection: DaemonConnection) -> None:
    """Lock all present and future pages of this process in memory, including the mailbox."""
    from dorad.realtime.memory import lock  # few nodes ask for it

    missing = lock()
    if missing is not None:
        connection.note(missing)
