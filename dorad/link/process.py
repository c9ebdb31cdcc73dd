"""The work of a link process: one loop that moves messages between queues here and other machines.

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

import zenoh

from dorad.link import config as configuration
from dorad.link import frames, hello
from dorad.link.delivery import Delivery, Nowhere
from dorad.link.forward import ForwardedInput
from dorad.link.frames import Ack, EventKind, FrameError
from dorad.link.greeting import Greeting
from dorad.link.incoming import Arrived
from dorad.link.machine import In, Machine, Out, in_status, out_status
from dorad.link.outgoing import Outgoing
from dorad.link.reporting import Reporter
from dorad.link.reports import EVENTS, Happened, PeerStatus
from dorad.link.session import BATCH_BYTES, BATCHES, Session, limit_sending
from dorad.node.events import ALL_INPUTS_CLOSED, FINISHED, MANUAL
from dorad.node.nodeinputs import NodeInputs
from dorad.shm import doorbell
from dorad.shm.fence import fence
from dorad.shm.layout import BOX_ASLEEP, BOX_MAIL
from dorad.shm.ring import counters
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from dorad.link.config import ChannelIn, ChannelOut, LinkConfig
    from dorad.link.frames import Frame
    from dorad.link.hello import Grant
    from dorad.link.session import Received
    from dorad.node.connection import DaemonConnection

_log = logging.getLogger(__name__)

ACK_DELAY_S = 0.02
"""How long an acknowledgement may wait for more to acknowledge."""

STATUS_S = 1.0
FLUSH_S = 2.0
"""How long the process goes on sending what is queued when the dataflow is stopped."""

DRAIN_S = 30.0
"""The same when all other nodes have ended by themselves: nothing of theirs shall be lost."""

DIRECT_BYTES = BATCHES * BATCH_BYTES
"""If no more than this is on the way to a machine, Zenoh takes it without waiting."""

BURST = 64
"""Samples, and messages of a channel, that are handled before the loop looks at everything else."""

SWITCH_S = 0.0005
"""How long the loop keeps Zenoh's callbacks and the couriers from the interpreter, at most."""


class LinkProcess:
    """Runs the links of one dataflow on one machine, until told to stop."""

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
        self._reporter = Reporter(connection)
        self._stopping_s: float | None = None
        self._waiter = doorbell.Waiter(connection.bell, [connection.descriptor, connection.space])
        self._status_s = 0.0
        self._news = True
        """Whether the state of a peer may have changed since the last status."""
        self._inputs: dict[str, list[ForwardedInput]] = {}
        made = [self._make_input(item) for item in connection.config["inputs"]]
        self._node_inputs = NodeInputs(
            connection, connection.daemon_events, made, Spin(0), self._make_input
        )
        self._delivery = Delivery(connection, connection.config["keep_bytes"] or 8 << 20)
        self._session = Session(config, self.incarnation, self._arrive)
        self._machines: dict[str, Machine] = {}
        self._outs: list[Out] = []
        self._ins: dict[int, In] = {}
        """By the number that this process has given the channel."""
        self._next_number = 0
        self._add(config, time.monotonic())

    def _on_link(self, fields: dict[str, Any]) -> None:
        self._changed = configuration.decode(fields)

    def _add(self, config: LinkConfig, now_s: float) -> None:
        """Add the machines and channels of a configuration that are new."""
        for name in config.peers:
            if name not in self._machines:
                greeting = Greeting(config.dataflow, config.machine, self.incarnation, name)
                self._machines[name] = Machine(greeting, self._session)
        outs = {(out.spec.name, out.spec.machine): out for out in self._outs}
        for sent in config.outgoing:
            out = outs.get((sent.name, sent.machine))
            if out is None:
                self._add_out(sent)
            else:
                out.spec, out.active = sent, True
                out.channel.reliable = sent.reliable
        known = {(each.spec.name, each.spec.machine) for each in self._ins.values()}
        for received in config.incoming:
            if (received.name, received.machine) not in known:
                self._add_in(received, now_s)

    def _add_out(self, spec: ChannelOut) -> None:
        """Add a channel that numbers on where an earlier process of this link has stopped.

        Raises:
            RuntimeError: the participant has no such input.
        """
        fed = self._inputs.get(spec.input)
        if not fed:
            raise RuntimeError(f"the link has no input {spec.input!r}")
        taken = sum(counters(self._words, each.ring).received for each in fed)
        channel = Outgoing(self.incarnation, reliable=spec.reliable, first=taken)
        out = Out(spec, channel, fed[0].source)
        self._outs.append(out)
        machine = self._machines[spec.machine]
        machine.outgoing.append(out)
        if spec.name in machine.grants:
            channel.open(machine.grants[spec.name])

    def _add_in(self, spec: ChannelIn, now_s: float) -> None:
        """Add a channel, and offer it to its sender."""
        each = self._ins[self._next_number] = In(spec, self._next_number)
        self._next_number += 1
        machine = self._machines[spec.machine]
        machine.incoming.append(each)
        each.channel.open()
        machine.greeting.announce(now_s)

    def _remove(self, config: LinkConfig, now_s: float) -> None:
        """Remove the channels that a configuration does not have."""
        sent = {(spec.name, spec.machine) for spec in config.outgoing}
        received = {(spec.name, spec.machine) for spec in config.incoming}
        for out in self._outs:
            out.active = out.active and (out.spec.name, out.spec.machine) in sent
        for number, each in list(self._ins.items()):
            if (each.spec.name, each.spec.machine) not in received:
                self._abort(each)
                del self._ins[number]
                machine = self._machines[each.spec.machine]
                machine.incoming.remove(each)
                machine.greeting.announce(now_s)

    def _reconfigure(self, now_s: float) -> None:
        """Use the changed configuration. Channels that stay lose nothing."""
        config, self._changed = self._changed, None
        if config is None or config == self._config:
            return
        before, self._config = self._config, config
        _log.info("%d channels out, %d in", len(config.outgoing), len(config.incoming))
        self._news = True
        self._remove(config, now_s)
        if (config.listen, config.connect, config.tls) != (
            before.listen,
            before.connect,
            before.tls,
        ):
            self._reopen(config)
        self._session.know({*config.peers, *self._machines})
        self._add(config, now_s)

    def _reopen(self, config: LinkConfig) -> None:
        """Open the session anew, with other addresses or certificates."""
        self._session.close()
        for machine in self._machines.values():
            machine.greeting.lose()
            self._disconnect(machine)
            machine.close()
        self._session = Session(config, self.incarnation, self._arrive)
        for machine in self._machines.values():
            machine.connect(self._session)

    def run(self) -> None:
        """Serve until stopped, or until the daemon is gone.

        It does not wait for the start barrier, because a start over several machines needs the
        links; no node sends a message before.
        """
        sys.setswitchinterval(SWITCH_S)
        self._connection.ready()
        try:
            while not self._finished():
                mail = self._words[BOX_MAIL]
                if not self._turn():
                    self._sleep(mail)
        finally:
            self._tell_status(time.monotonic(), force=True)
            self._close()

    def _make_input(self, item: dict[str, Any]) -> ForwardedInput:
        made = ForwardedInput(self._connection, item)
        self._inputs.setdefault(made.id, []).append(made)
        return made

    def _finished(self) -> bool:
        """Return True if the process may end: told to, and all is sent or given up."""
        if self._connection.lost:
            return True
        if self._stopping_s is None:
            return False
        if time.monotonic() >= self._stopping_s:
            return True
        return all(out.channel.idle and not self._queued(out) for out in self._outs if out.active)

    def _turn(self) -> bool:
        """Do once everything that can be done now; return False if there was nothing."""
        now_s = time.monotonic()
        busy = self._receive(now_s)
        while (event := self._node_inputs.poll()) is not None:
            self._handle_event(event, now_s)
            busy = True
        self._reconfigure(now_s)
        self._delivery.catch_up()
        for each in self._ins.values():
            busy |= self._deliver(each)
        for machine in self._machines.values():
            for out in machine.outgoing:
                if machine.greeting.left and out.active:
                    busy |= self._discard(out)
                else:
                    busy |= self._send(machine, out)
        self._acknowledge(now_s)
        self._greet(now_s)
        self._tell_status(now_s)
        return busy

    # What comes from other machines.

    def _arrive(self) -> None:
        """Handle what has arrived, in Zenoh's thread, if the loop sleeps; else the loop does it.

        Acknowledgements and greetings are left to the loop: a callback must not call Zenoh.
        """
        if not self._working.acquire(blocking=False):
            self._wake()
            return
        try:
            self._receive(time.monotonic(), only_data=True)
            for each in self._ins.values():
                self._deliver(each)
            rest = self._has_work()
        except Exception as error:  # noqa: BLE001 - Zenoh would only print it
            self._fault, rest = error, True
        finally:
            self._working.release()
        if rest:
            self._wake()

    def _has_work(self) -> bool:
        """Return True if the loop must not sleep on after data were handled."""
        if self._news or self._session.received or self._session.seen:
            return True
        return any(
            each.channel.ack_due or (each.owed_s is None and each.channel.owes)
            for each in self._ins.values()
        )

    def _receive(self, now_s: float, *, only_data: bool = False) -> bool:
        session = self._session
        busy = False
        while session.seen and not only_data:
            busy = self._news = True
            machine_name, incarnation, alive = session.seen.popleft()
            if machine_name not in self._machines:
                continue
            machine = self._machines[machine_name]
            if alive:
                machine.greeting.appear(incarnation, now_s)
            elif machine.greeting.vanish(incarnation):
                self._disconnect(machine)
        for _ in range(BURST):
            if not session.received or (only_data and session.received[0].kind != "data"):
                break
            busy = True
            received = session.received.popleft()
            if received.machine not in self._machines:
                continue
            machine = self._machines[received.machine]
            try:
                self._handle_frame(machine, received, now_s)
            except FrameError as error:
                machine.complaint = str(error)
                self._news = True
                # Not again before the other end has answered, whatever it sends meanwhile.
                if machine.greeting.up:
                    _log.warning("from %s: %s; the link starts anew", received.machine, error)
                    machine.greeting.restart(now_s)
        return busy

    def _handle_frame(self, machine: Machine, received: Received, now_s: float) -> None:
        if len(received.payload) > frames.MAX_FRAME:
            raise FrameError(f"a frame of {len(received.payload)} bytes")
        data = received.payload.to_bytes()
        if received.kind == "hello":
            self._news = True
            said = hello.decode(data)
            anew = machine.greeting.hear(said, now_s)
            if machine.greeting.left:
                self._abandon(machine)
            elif machine.greeting.heard and said.heard and said.heard[0] == self.incarnation:
                self._open(machine, said.grants, anew=anew)
            return
        for frame in frames.decode(data):
            self._handle_one(machine, frame)

    def _handle_one(self, machine: Machine, frame: Frame) -> None:
        number = frame.opening.channel
        if isinstance(frame, Ack):
            for out in machine.outgoing:
                out.channel.acknowledge(frame)
            return
        each = self._ins.get(number)
        if each is None and number < self._next_number:
            return  # a channel that was removed while the frame was on its way
        if each is None or each.spec.machine != machine.greeting.peer:
            raise FrameError(f"channel {number} is not one of this machine")
        each.channel.arrive(frame, self._delivery.place)

    def _open(self, machine: Machine, grants: dict[str, Grant], *, anew: bool) -> None:
        """Open the channels to a machine that it grants; close the others.

        A greeting that is not new opens only channels that were added since.
        """
        machine.grants = grants
        machine.complaint = machine.courier.failed = ""
        for out in machine.outgoing:
            grant = grants.get(out.spec.name)
            if grant is None:
                out.channel.close()
                if out.active:
                    machine.complaint = f"{machine.greeting.peer} does not receive {out.spec.name}"
            elif anew or not out.channel.opened:
                if out.channel.receiver not in (None, grant.receiver):
                    for item in self._inputs.get(out.spec.input, ()):
                        item.repeat()
                out.channel.open(grant)

    def _abandon(self, machine: Machine) -> None:
        """Keep nothing for a machine on which the dataflow has ended: no node waits for it.

        It may still send what its nodes have sent before.
        """
        machine.grants = {}
        for out in machine.outgoing:
            out.channel.abandon()

    def _discard(self, out: Out) -> bool:
        """Empty the queue of a channel; return False if it was empty."""
        busy = False
        for item in self._inputs.get(out.spec.input, ()):
            while item.take_message() is not None:
                busy = True
        return busy

    def _disconnect(self, machine: Machine) -> None:
        _log.info("the link process of %s has gone", machine.greeting.peer)
        machine.grants = {}
        for out in machine.outgoing:
            out.channel.close()
        for each in machine.incoming:
            self._abort(each)

    def _abort(self, each: In) -> None:
        place = each.channel.close()
        if place is not None:
            self._delivery.drop(place)

    def _deliver(self, each: In) -> bool:
        """Push what has arrived on a channel into the queues here, as far as they have room."""
        channel = each.channel
        busy = False
        while channel.arrived:
            item = channel.arrived[0]
            if isinstance(item, Arrived):
                if self._delivery.is_blocked(each.spec.output):
                    each.blocked = True
                    break
                if each.blocked:
                    each.blocked = False
                    self._delivery.unblock(each.spec.output)
                latency_ns = time.time_ns() - item.content.stamp
                if self._delivery.push(each.spec.output, item):
                    each.latency_ns += max(0, latency_ns)
                    each.latencies += 1
                else:
                    each.undelivered += 1
                    if isinstance(item.place, Nowhere):
                        _log.warning("%s: %s", each.spec.name, item.place.reason)
            else:
                happened = Happened(each.spec.name, each.spec.machine, EVENTS[item.kind], item.text)
                if not self._reporter.event(happened):
                    break  # the daemon is away, and its socket is full
            channel.handled()
            busy = True
        return busy

    # What goes to other machines.

    def _handle_event(self, event: dict[str, Any], now_s: float) -> None:
        if self._changed is not None:
            # The end of an input that is removed is not the end of its source.
            self._remove(self._changed, now_s)
        kind = event["type"]
        if kind == "STOP" and event["id"] == MANUAL:
            self._stop(now_s, FLUSH_S)
        elif kind == "STOP" and event["id"] == ALL_INPUTS_CLOSED:
            self._stop(now_s, DRAIN_S)
        elif kind == "INPUT_CLOSED" and event["reason"] == FINISHED:
            for out in self._outs_of(event["id"]):
                out.channel.add_event(EventKind.CLOSED)
        elif kind == "NODE_FAILED":
            failure = event["value"]
            for input_id in failure["affected_input_ids"]:
                for out in self._outs_of(input_id):
                    out.channel.add_event(EventKind.FAILED, failure["error"])
        elif kind == "NODE_RESTARTED":
            for out in self._outs:
                if out.active and out.source == event["id"]:
                    out.channel.add_event(EventKind.RESTARTED)
        elif kind == "ERROR":
            _log.warning("%s", event["error"])

    def _outs_of(self, input_id: str) -> Iterator[Out]:
        return (out for out in self._outs if out.active and out.spec.input == input_id)

    def _queued(self, out: Out) -> bool:
        return any(item.holds() for item in self._inputs.get(out.spec.input, ()))

    def _send(self, machine: Machine, out: Out) -> bool:
        """Send what a channel may send now; return False if that is nothing."""
        channel = out.channel
        busy = False
        for _ in range(BURST):
            while out.active and channel.wants and self._take(out):
                pass
            sample = channel.next_sample()
            if sample is None:
                break
            busy = True
            may_wait = machine.bytes_on_the_way > DIRECT_BYTES
            machine.courier.send(sample, may_wait=may_wait)
        return busy

    def _take(self, out: Out) -> bool:
        for item in self._inputs.get(out.spec.input, ()):
            taken = item.take_message()
            if taken is None:
                continue
            if len(taken.metadata) > frames.MAX_METADATA:
                _log.warning("%s: a message has too much metadata and is dropped", out.spec.name)
                continue
            out.channel.add(*taken)
            return True
        return False

    def _acknowledge(self, now_s: float) -> None:
        for each in self._ins.values():
            channel = each.channel
            if not channel.owes:
                each.owed_s = None
                continue
            if each.owed_s is None:
                each.owed_s = now_s + ACK_DELAY_S
            if channel.ack_due or now_s >= each.owed_s:
                ack = frames.encode_ack(channel.acknowledge())
                self._put(self._machines[each.spec.machine].acks, ack)
                each.owed_s = None

    def _greet(self, now_s: float) -> None:
        for machine in self._machines.values():
            if not machine.greeting.due(now_s):
                continue
            if machine.opened != machine.greeting.number:
                machine.opened = machine.greeting.number
                for each in machine.incoming:
                    self._abort(each)
                    each.channel.open()
            grants = {each.spec.name: each.channel.grant for each in machine.incoming}
            leaving = self._stopping_s is not None
            self._put(machine.control, machine.greeting.hello(grants, now_s, leaving=leaving))

    def _put(self, publisher: zenoh.Publisher, data: bytes) -> None:
        try:
            publisher.put(data)
        except zenoh.ZError as error:
            _log.warning("a control frame was not sent: %s", error)

    # Waiting, status and the end.

    def _wake(self) -> None:
        fence()
        if self._words[BOX_ASLEEP]:
            doorbell.ring(self._connection.bell)

    def _sleep(self, mail: int) -> None:
        node_inputs = self._node_inputs
        watched = [(BOX_MAIL, mail)]
        for out in self._outs:
            if not out.active:
                continue
            if out.channel.wants or self._machines[out.spec.machine].greeting.left:
                for item in self._inputs.get(out.spec.input, ()):
                    watched += item.watched
        node_inputs.set_asleep(True)
        try:
            if not node_inputs.may_sleep(watched) or self._session.received or self._session.seen:
                return
            wait_s = max(0.0, self._next_s() - time.monotonic())
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

    def _next_s(self) -> float:
        """Return when something must be done even if nothing comes."""
        times = [self._status_s + STATUS_S]
        times += [each.owed_s for each in self._ins.values() if each.owed_s is not None]
        for machine in self._machines.values():
            if machine.greeting.due_s is not None:
                times.append(machine.greeting.due_s)
        if self._stopping_s is not None:
            times.append(self._stopping_s)
        return min(times)

    def _stop(self, now_s: float, flush_s: float) -> None:
        """End soon, and tell the other machines that this one receives nothing any more."""
        self._stopping_s = min(self._stopping_s or math.inf, now_s + flush_s)
        for machine in self._machines.values():
            machine.greeting.announce(now_s)

    def _peer_status(self, machine: Machine) -> PeerStatus:
        status = machine.greeting.status()
        reason = machine.complaint or machine.courier.failed
        if reason:
            return PeerStatus(status.state, status.reason or reason, status.round_trip_us)
        return status

    def _tell_status(self, now_s: float, *, force: bool = False) -> None:
        if not (force or self._news or now_s >= self._status_s + STATUS_S):
            return
        self._news = False
        peers = {name: self._peer_status(self._machines[name]) for name in self._config.peers}
        changed = [
            name
            for name, status in peers.items()
            if (told := self._machines[name].told) is None
            or (told.state, told.reason) != (status.state, status.reason)
        ]
        if not force and not changed and now_s < self._status_s + STATUS_S:
            return
        for name in changed:
            _log.info("link to %s: %s %s", name, peers[name].state, peers[name].reason)
            self._machines[name].told = peers[name]
        self._status_s = now_s
        limit_sending()
        self._reporter.status(
            peers,
            [out_status(out) for out in self._outs if out.active],
            [in_status(each) for each in self._ins.values()],
        )

    def _close(self) -> None:
        for machine in self._machines.values():
            machine.close()
        self._session.close()
        for each in self._ins.values():
            self._abort(each)
        self._connection.done()
