"""The loop of a link process, which moves messages between local queues and other machines.

Only one thread at a time touches queues, channels and greetings: this loop, or, while it sleeps,
the callback of Zenoh in which data arrive, because waking the loop would take longer than the rest.
All else that Zenoh's callbacks bring waits in deques for the loop. Couriers put frames, so that a
machine that stops reading holds up no other.
"""

from __future__ import annotations

import functools
import logging
import math
import secrets
import sys
import time
from typing import TYPE_CHECKING

import zenoh

from dorad.link import config as configuration
from dorad.link import frames
from dorad.link.arrivals import Arrivals
from dorad.link.channels import Channels
from dorad.link.config import MAX_SIZE
from dorad.link.delivery import Delivery
from dorad.link.direct import DirectIn, DirectOut, LoopSleep
from dorad.link.frames import EventKind
from dorad.link.reporting import Reporter, StatusReports
from dorad.link.session import LinkError, Session
from dorad.link.settings import BATCH_BYTES, BATCHES
from dorad.link.sockets import ReadWatch, limit_sending
from dorad.node.events import ALL_INPUTS_CLOSED, FINISHED, MANUAL
from dorad.node.nodeinputs import NodeInputs
from dorad.shm import doorbell
from dorad.shm.layout import BOX_MAIL
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from collections import deque
    from typing import Any

    from dorad.link.config import LinkConfig
    from dorad.link.direct import TakeSample
    from dorad.link.forward import Taken
    from dorad.link.machine import In, Out
    from dorad.link.session import Received
    from dorad.node.connection import DaemonConnection

ACK_DELAY_S = 0.05
"""How long an acknowledgement may wait for more to acknowledge."""

DIRECT_BYTES = BATCHES * BATCH_BYTES
"""Up to this much on the way to a machine, Zenoh takes data without waiting."""

BURST = 64
"""Samples of a channel that are sent before the loop checks everything else."""


class Sending:
    """Sends what the channels may send, acknowledgements and greetings."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._ack_s = 0.0
        """When everything that was handled is acknowledged next."""

    def prepare(self) -> list[DirectOut]:
        """Return the channels that may send a message that ends a sleep. Call it right before."""
        prepared = []
        for out in self._channels.outs:
            if not out.active or len(out.inputs) != 1 or out.machine.greeting.left:
                continue
            item, machine, room = out.inputs[0], out.machine, out.channel.direct_room()
            put = machine.courier.direct
            if not (room and put) or item.offset is None or item.lacks_bell:
                continue
            if machine.bytes_on_the_way <= DIRECT_BYTES:
                # All channels to a machine together must not make Zenoh wait.
                many = len(machine.outgoing)
                room = room if many == 1 else min(room, DIRECT_BYTES // many)
                prepared.append(DirectOut(out, item.offset, room, put))
        return prepared

    @staticmethod
    def finish(prepared: list[DirectOut]) -> None:
        """Add what these channels have sent, or taken, at the end of a sleep.

        Raises:
            Exception: a bug that has shown while one was sent.
        """
        for each in prepared:
            out = each.out
            if each.frame is not None:
                out.channel.add_sent(each.frame)
                if isinstance(each.error, zenoh.ZError):
                    out.machine.courier.fail(each.frame, each.error)
                elif each.error is not None:
                    raise each.error
            elif each.unsent is not None:
                item, channel = out.inputs[0], out.channel
                number = item.last_number(channel.numbering, channel.next_number)
                _add(out, number, item.taken_of(each.unsent))

    def send(self) -> bool:
        """Send what may be sent now; return False if that is nothing."""
        busy = False
        for out in self._channels.outs:
            if out.active and out.machine.greeting.left:
                busy |= _discard(out)
                out.meter.waits(False)
            else:
                busy |= self._send(out)
        return busy

    def _send(self, out: Out) -> bool:
        channel, machine = out.channel, out.machine
        sent = False
        for _ in range(BURST):
            while out.active and channel.wants and _take(out):
                if not out.moved():
                    break
            sample = channel.next_sample()
            if sample is None:
                out.meter.waits(channel.waits(queued=out.moved()))
                return sent
            machine.courier.send(sample, may_wait=machine.bytes_on_the_way > DIRECT_BYTES)
            sent = True
        return sent

    def acknowledge(self, now_s: float, *, everything: bool = False) -> None:
        """Acknowledge what the senders wait for; the rest once in `ACK_DELAY_S`, or at once."""
        is_time = everything or now_s >= self._ack_s
        if is_time:
            self._ack_s = now_s + ACK_DELAY_S
        for each in self._channels.ins.values():
            channel = each.channel
            if channel.ack_due or (is_time and channel.owes):
                each.machine.acknowledge(frames.encode_ack(channel.acknowledge()))

    def ack_s(self) -> float | None:
        """Return when something must be acknowledged; None if nothing was handled."""
        owes = any(each.channel.owes for each in self._channels.ins.values())
        return self._ack_s if owes else None

    def greet(self, now_s: float, *, leaving: bool) -> None:
        """Send the greetings that are due."""
        for machine in self._channels.machines.values():
            if machine.greeting.due(now_s):
                grants = self._channels.offer(machine)
                machine.greet(machine.greeting.hello(grants, now_s, leaving=leaving))


def _take(out: Out) -> bool:
    """Take the next message from the queue of a channel; return False if there is none."""
    for item in out.inputs:
        taken = item.take_message()
        if taken is not None:
            number = item.last_number(out.channel.numbering, out.channel.next_number)
            if _add(out, number, taken):
                return True
    return False


def _add(out: Out, number: int, taken: Taken) -> bool:
    """Add a message to its channel; return False if the other end would refuse it each time."""
    if len(taken.metadata) > frames.MAX_METADATA or taken.content.size > MAX_SIZE:
        _log.warning(
            "%s: a message of %d bytes with %d of metadata is too large and is dropped",
            *(out.spec.name, taken.content.size, len(taken.metadata)),
        )
        return False
    out.channel.add(number, *taken)
    return True


def _discard(out: Out) -> bool:
    """Empty the queue of a channel, and forget its events; return False if there was nothing."""
    busy = not out.channel.idle
    if busy:
        out.channel.abandon()
    for item in out.inputs:
        while item.take_message() is not None:
            channel = out.channel
            channel.next_number = item.last_number(channel.numbering, channel.next_number) + 1
            busy = True
    return busy


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
        self._changed: LinkConfig | None = None
        """The configuration to use from the next turn on."""
        self._connection = connection
        connection.on_link = self._on_link
        self._words = connection.box.words
        self._stopping_s: float | None = None
        self._active_s = -math.inf
        """When data were last known to have come."""
        others = [connection.descriptor, connection.space]
        self._loop_sleep = LoopSleep(connection.box.words, connection.bell, others)
        delivery = Delivery(connection, connection.config["keep_bytes"] or 8 << 20)
        reporter = Reporter(connection)
        self._delivery = delivery
        ins: dict[int, In] = {}
        self._direct = functools.partial(DirectIn, self._loop_sleep, ins, delivery)
        self._session = self._open(config)
        self._channels = Channels(connection, delivery, self.incarnation, self._session, ins)
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

    def _open(self, config: LinkConfig) -> Session:
        def direct(machine: str, queue: deque[Received], otherwise: TakeSample) -> TakeSample:
            return self._direct(machine, queue, otherwise).take

        return Session(config, self.incarnation, self._arrive, direct)

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
        self._session = self._open(config)
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
        if self._loop_sleep.had_data:
            self._loop_sleep.had_data = False
            self._active_s = now_s
        busy |= self._arrivals.handle_all(now_s)
        while (event := self._node_inputs.poll()) is not None:
            self._handle_event(event, now_s)
            busy = True
        self._reconfigure(now_s)
        self._delivery.catch_up(now_s)
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
        """Handle queued data in Zenoh's thread if the loop sleeps; else the loop does it.

        Acknowledgements and greetings are left to the loop: a callback must not call Zenoh.
        """
        sleep = self._loop_sleep
        if not is_data or not sleep.working.acquire(blocking=False):
            sleep.had_data |= is_data
            sleep.wake()
            return
        sleep.had_data = True
        try:
            if self._arrivals.handle_data() or not sleep.wakes_soon:
                sleep.wake()
        except Exception as error:  # noqa: BLE001 - Zenoh would only print it
            sleep.fail(error)
        finally:
            sleep.working.release()

    def _sleep(self, mail: int) -> None:
        node_inputs, sleep = self._node_inputs, self._loop_sleep
        watched = [(BOX_MAIL, mail)]
        for out in self._channels.outs:
            watched += out.watched
        node_inputs.set_asleep(True)
        try:
            if not node_inputs.may_sleep(watched) or self._session.waiting:
                return
            now_s = time.monotonic()
            wait_s = max(0.0, self._next_s(now_s) - now_s)
            sleep.wakes_soon = wait_s <= ACK_DELAY_S
            sleep.prepared = self._sending.prepare()
            ready = sleep.sleep(int(wait_s * 1e9))
        finally:
            node_inputs.set_asleep(False)
        self._sending.finish(sleep.prepared)
        if sleep.fault is not None:
            raise sleep.fault
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
