"""The loop of a link process, which moves messages between local queues and other machines.

Only one thread at a time touches queues, channels and greetings: this loop, or, while it sleeps,
the callback of Zenoh in which data arrive, because waking the loop would take longer than the rest.
All else that Zenoh's callbacks bring waits in deques for the loop. Couriers put frames, so that a
machine that stops reading holds up no other.
"""

from __future__ import annotations

import logging
import math
import secrets
import sys
import threading
import time
from typing import TYPE_CHECKING

from dorad.link import config as configuration
from dorad.link.arrivals import Arrivals
from dorad.link.channels import Channels
from dorad.link.delivery import Delivery
from dorad.link.frames import EventKind
from dorad.link.reporting import Reporter, StatusReports
from dorad.link.sending import ACK_DELAY_S, Sending
from dorad.link.session import LinkError, Session
from dorad.link.sockets import ReadWatch, limit_sending
from dorad.node.events import ALL_INPUTS_CLOSED, FINISHED, MANUAL
from dorad.node.nodeinputs import NodeInputs
from dorad.shm import doorbell
from dorad.shm.fence import fence
from dorad.shm.layout import BOX_ASLEEP, BOX_MAIL
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from typing import Any

    from dorad.link.config import LinkConfig
    from dorad.node.connection import DaemonConnection

_log = logging.getLogger(__name__)

FLUSH_S = 2.0
"""How long the process continues to send queued messages after the dataflow is stopped."""

DRAIN_S = 30.0
"""The same after all other nodes have ended by themselves: their messages must not be lost."""

ACTIVE_S = 1.0
"""How long after the last data the loop still wakes up for acknowledgements by itself."""

SWITCH_S = 0.0005
"""How long the loop keeps Zenoh's callbacks and the couriers from the interpreter, at most."""


class LinkProcess:
    """Runs the links of one dataflow on one machine until it is stopped."""

    def __init__(self, config: LinkConfig, connection: DaemonConnection) -> None:
        """Open the session.

        Raises:
            LinkError: the session cannot be opened.
            RuntimeError: the participant lacks an input or output that `config` names.
        """
        self.incarnation = secrets.randbits(63)
        self._config = config
        self._working = threading.Lock()
        """Held by the thread that may touch anything: the loop, unless it sleeps."""
        self._working.acquire()
        self._fault: Exception | None = None
        """A bug that has shown in a callback."""
        self._changed: LinkConfig | None = None
        """The configuration to use from the next turn on."""
        self._connection = connection
        connection.on_link = self._on_link
        self._words = connection.box.words
        self._stopping_s: float | None = None
        self._had_data = False
        """Whether data have come since the last turn."""
        self._active_s = -math.inf
        """When data were last known to have come."""
        self._wakes_soon = False
        """Whether the sleeping loop wakes up within `ACK_DELAY_S`."""
        self._waiter = doorbell.Waiter(connection.bell, [connection.descriptor, connection.space])
        delivery = Delivery(connection, connection.config["keep_bytes"] or 8 << 20)
        reporter = Reporter(connection)
        self._delivery = delivery
        self._session = Session(config, self.incarnation, self._arrive)
        self._channels = Channels(connection, delivery, self.incarnation, self._session)
        self._arrivals = Arrivals(self._channels, delivery, reporter, self._session)
        self._sending = Sending(self._channels)
        self._reports = StatusReports(reporter, self._channels)
        self._read_watch = ReadWatch(time.monotonic())
        make_input = self._channels.make_input
        made = [make_input(item) for item in connection.config["inputs"]]
        self._node_inputs = NodeInputs(
            connection, connection.daemon_events, made, Spin(0), make_input
        )
        self._channels.add(config, time.monotonic())

    def _on_link(self, fields: dict[str, Any]) -> None:
        self._changed = configuration.decode(fields)

    def _reconfigure(self, now_s: float) -> None:
        """Use the changed configuration. Channels that stay lose nothing."""
        config, self._changed = self._changed, None
        if config is None or config == self._config:
            return
        before, self._config = self._config, config
        _log.info("%d channels out, %d in", len(config.outgoing), len(config.incoming))
        self._arrivals.peers_changed = True
        self._channels.remove(config, now_s)
        if _needs_session(before, config):
            self._reopen(config)
        self._session.know({*config.peers, *self._channels.machines})
        self._channels.add(config, now_s)

    def _reopen(self, config: LinkConfig) -> None:
        """Reopen the session, perhaps with other addresses or certificates."""
        self._session.close()
        self._session = Session(config, self.incarnation, self._arrive)
        self._arrivals.session = self._session
        self._channels.reconnect(self._session)

    def run(self) -> None:
        """Serve until stopped, or until the daemon is gone.

        It does not wait for the start barrier, because a start over several machines needs the
        links; no node sends a message before.

        The caller then closes the connection to the daemon.

        Raises:
            LinkError: the session has stopped to work. The daemon starts the process again.
        """
        sys.setswitchinterval(SWITCH_S)
        self._connection.ready()
        try:
            while not self._finished():
                mail = self._words[BOX_MAIL]
                if not self._turn():
                    self._sleep(mail)
        finally:
            self._reports.report(self._config.peers, time.monotonic(), force=True)
            self._channels.close()
            self._session.close()

    def _finished(self) -> bool:
        """Return True if the process was asked to stop and everything is sent or given up."""
        if self._connection.lost:
            return True
        if self._stopping_s is None:
            return False
        return time.monotonic() >= self._stopping_s or self._channels.all_sent

    def _turn(self) -> bool:
        """Do all pending work once; return False if there was none.

        What a node waits for comes first.
        """
        busy = self._sending.send()
        now_s = time.monotonic()
        if self._had_data:
            self._had_data = False
            self._active_s = now_s
        busy |= self._arrivals.handle_all(now_s)
        while (event := self._node_inputs.poll()) is not None:
            self._handle_event(event, now_s)
            busy = True
        self._reconfigure(now_s)
        self._delivery.catch_up()
        stopping = self._stopping_s is not None
        self._sending.acknowledge(now_s, everything=stopping)
        self._sending.greet(now_s, leaving=stopping)
        if self._arrivals.peers_changed or now_s >= self._reports.due_s:
            self._arrivals.peers_changed = False
            strangers = self._session.strangers(now_s)
            if self._reports.report(self._config.peers, now_s, strangers=strangers):
                limit_sending()
                self._session.silence.ask(self._channels.missing(self._config.peers), now_s)
            if self._channels.check_answers(self._config.peers, now_s):
                self._reopen(self._config)
        if now_s >= self._read_watch.due_s:
            if self._read_watch.check(self._session.connections(), now_s):
                raise LinkError("Zenoh has stopped reading its connections; the link restarts")
            if fault := self._session.fault:
                raise LinkError(f"{fault}; the link restarts")
        return busy

    def _handle_event(self, event: dict[str, Any], now_s: float) -> None:
        channels = self._channels
        if self._changed is not None:
            # The end of an input that is removed is not the end of its source.
            channels.remove(self._changed, now_s)
        kind, holding = event["type"], self._connection.daemon_events
        if kind == "STOP" and event["id"] == MANUAL:
            self._stop(now_s, FLUSH_S)
        elif kind == "STOP" and event["id"] == ALL_INPUTS_CLOSED:
            self._stop(now_s, DRAIN_S)
        elif kind == "INPUT_CLOSED" and event["reason"] == FINISHED:
            # The node may have started again while its last messages were still queued.
            for out in channels.outs_of(event["id"]) if holding.closed(event["id"]) else ():
                out.channel.add_event(EventKind.CLOSED)
        elif kind == "NODE_FAILED":
            failure = event["value"]
            if failure["source_node_id"] in holding.failed:
                for input_id in failure["affected_input_ids"]:
                    for out in channels.outs_of(input_id):
                        out.channel.add_event(EventKind.FAILED, failure["error"])
        elif kind == "NODE_RESTARTED":
            for out in channels.sent_from(event["id"]):
                out.channel.add_event(EventKind.RESTARTED)
        elif kind == "ERROR":
            _log.warning("%s", event["error"])

    def _stop(self, now_s: float, flush_s: float) -> None:
        """End soon, and notify the other machines that this one receives nothing more."""
        self._stopping_s = min(self._stopping_s or math.inf, now_s + flush_s)
        for machine in self._channels.machines.values():
            machine.greeting.announce(now_s)

    # Sleeping, and callbacks meanwhile.

    def _arrive(self, is_data: bool) -> None:
        """Handle data in Zenoh's thread if the loop sleeps; else the loop does it.

        Acknowledgements and greetings are left to the loop: a callback must not call Zenoh.
        """
        self._had_data |= is_data
        if not is_data or not self._working.acquire(blocking=False):
            self._wake()
            return
        try:
            rest = self._arrivals.handle_data() or not self._wakes_soon
        except Exception as error:  # noqa: BLE001 - Zenoh would only print it
            self._fault, rest = error, True
        finally:
            self._working.release()
        if rest:
            self._wake()

    def _wake(self) -> None:
        fence()
        if self._words[BOX_ASLEEP]:
            doorbell.ring(self._connection.bell)

    def _sleep(self, mail: int) -> None:
        node_inputs = self._node_inputs
        watched = [(BOX_MAIL, mail)]
        for out in self._channels.outs:
            watched += out.watched
        node_inputs.set_asleep(True)
        try:
            if not node_inputs.may_sleep(watched) or self._session.waiting:
                return
            now_s = time.monotonic()
            wait_s = max(0.0, self._next_s(now_s) - now_s)
            self._wakes_soon = wait_s <= ACK_DELAY_S
            self._working.release()
            try:
                ready = self._waiter.wait(int(wait_s * 1e9))
            finally:
                self._working.acquire()
        finally:
            node_inputs.set_asleep(False)
        if self._fault is not None:
            raise self._fault
        if self._connection.space in ready:
            doorbell.clear(self._connection.space)
        if self._connection.descriptor in ready:
            self._connection.read_mail()

    def _next_s(self, now_s: float) -> float:
        """Return when something must be done even if nothing comes."""
        times = [self._reports.due_s]
        if (ack_s := self._sending.ack_s()) is not None:
            times.append(ack_s)
        if now_s < self._active_s + ACTIVE_S:
            # Data that arrive meanwhile must be acknowledged; a callback need not wake the loop.
            times.append(now_s + ACK_DELAY_S)
        for machine in self._channels.machines.values():
            if machine.greeting.due_s is not None:
                times.append(machine.greeting.due_s)
        if self._stopping_s is not None:
            times.append(self._stopping_s)
        return min(times)


def _needs_session(before: LinkConfig, config: LinkConfig) -> bool:
    """Return True if the session of an earlier configuration cannot be used for a new one.

    With certificates a session lets in only the machines that it was opened for.
    """
    if config.tls is not None and not set(config.peers) <= set(before.peers):
        return True
    return (config.listen, config.connect, config.router, config.tls) != (
        before.listen,
        before.connect,
        before.router,
        before.tls,
    )
