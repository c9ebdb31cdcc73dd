"""The work of a link process: one loop that moves messages between queues here and other machines.

Only this loop touches queues, channels and greetings. Zenoh's callbacks append to deques and wake
it; couriers put frames, so that a machine that stops reading holds up no other.
"""

from __future__ import annotations

import logging
import secrets
import sys
import time
from typing import TYPE_CHECKING

import zenoh

from dorad.link import config as messages
from dorad.link import frames, hello
from dorad.link.config import Happened, Status
from dorad.link.delivery import Delivery, Nowhere
from dorad.link.forward import ForwardedInput
from dorad.link.frames import Ack, EventKind, FrameError
from dorad.link.greeting import Greeting
from dorad.link.incoming import Arrived
from dorad.link.machine import In, Machine, Out, in_status, out_status
from dorad.link.outgoing import Outgoing
from dorad.link.session import BATCH_BYTES, BATCHES, Session
from dorad.node.events import FINISHED, MANUAL
from dorad.node.nodeinputs import NodeInputs
from dorad.shm import doorbell
from dorad.shm.fence import fence
from dorad.shm.layout import BOX_ASLEEP, BOX_MAIL
from dorad.shm.ring import counters
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from dorad.link.config import ChannelIn, ChannelOut, LinkConfig, PeerStatus
    from dorad.link.credentials import Credentials
    from dorad.link.session import Received
    from dorad.node.connection import DaemonConnection

_log = logging.getLogger(__name__)

ACK_DELAY_S = 0.02
"""How long an acknowledgement may wait for more to acknowledge."""

STATUS_S = 1.0
FLUSH_S = 2.0
"""How long the process goes on sending what is queued when it is told to stop."""

DIRECT_BYTES = BATCHES * BATCH_BYTES
"""If no more than this is on the way to a machine, Zenoh takes it without waiting."""

BURST = 64
"""Samples, and messages of a channel, that are handled before the loop looks at everything else."""

SWITCH_S = 0.0005
"""How long the loop keeps Zenoh's callbacks and the couriers from the interpreter, at most."""


class LinkProcess:
    """Runs the links of one dataflow on one machine, until told to stop."""

    def __init__(
        self,
        config: LinkConfig,
        credentials: Credentials | None,
        connection: DaemonConnection,
        stop: int,
        report: Callable[[Status | Happened], None],
    ) -> None:
        """Stop when descriptor `stop` becomes readable. `report` passes on what has happened.

        Raises:
            LinkError: the session cannot be opened.
            RuntimeError: the participant lacks an input or output that `config` names.
        """
        self.incarnation = secrets.randbits(63)
        self._config = config
        self._connection = connection
        self._words = connection.box.words
        self._stop_fd = stop
        self._report = report
        self._stopping_s: float | None = None
        self._waiter = self._make_waiter()
        self._status_s = 0.0
        self._news = True
        """Whether the state of a peer may have changed since the last status."""
        self._outs = [self._make_out(spec) for spec in config.outgoing]
        self._ins = [self._make_in(spec, number) for number, spec in enumerate(config.incoming)]
        self._inputs: dict[str, list[ForwardedInput]] = {}
        self._delivery = Delivery(connection, connection.config["keep_bytes"] or 8 << 20)
        self._session = Session(config, credentials, self.incarnation, self._wake)
        self._machines = {
            name: Machine(
                Greeting(config.dataflow, config.machine, self.incarnation, name), self._session
            )
            for name in config.peers
        }
        for out in self._outs:
            self._machines[out.spec.machine].outgoing.append(out)
        for each in self._ins:
            self._machines[each.spec.machine].incoming.append(each)

    def _make_out(self, spec: ChannelOut) -> Out:
        """Return a channel that numbers on where an earlier process of this link has stopped.

        Raises:
            RuntimeError: the participant has no such input.
        """
        fed = [item for item in self._connection.config["inputs"] if item["id"] == spec.input]
        if not fed:
            raise RuntimeError(f"the link has no input {spec.input!r}")
        taken = sum(counters(self._words, item["ring"]).received for item in fed)
        channel = Outgoing(self.incarnation, reliable=spec.reliable, first=taken)
        return Out(spec, channel, fed[0]["source"] or "")

    def _make_in(self, spec: ChannelIn, number: int) -> In:
        """Return a channel. Raises RuntimeError if the participant has no such output."""
        if spec.output not in self._connection.config["outputs"]:
            raise RuntimeError(f"the link has no output {spec.output!r}")
        return In(spec, number, self.incarnation)

    def run(self) -> None:
        """Serve until stopped, or until the daemon is gone."""
        sys.setswitchinterval(SWITCH_S)
        connection = self._connection
        connection.wait_for_start()
        made = [self._make_input(item) for item in connection.config["inputs"]]
        node_inputs = NodeInputs(
            connection, connection.daemon_events, made, Spin(0), self._make_input
        )
        try:
            while not self._finished(node_inputs):
                mail = self._words[BOX_MAIL]
                if not self._turn(node_inputs):
                    self._sleep(node_inputs, mail)
        finally:
            self._tell_status(time.monotonic(), force=True)
            self._close()

    def _make_input(self, item: dict[str, Any]) -> ForwardedInput:
        made = ForwardedInput(self._connection, item)
        self._inputs.setdefault(made.id, []).append(made)
        return made

    def _finished(self, node_inputs: NodeInputs) -> bool:
        """Return True if the process may end.

        When all its inputs have closed, and it receives nothing, it first sends everything. When it
        is told to stop, it gives up after a while.
        """
        if self._connection.lost:
            return True
        if self._stopping_s is not None:
            if time.monotonic() >= self._stopping_s:
                return True
        elif self._ins or not node_inputs.ended:
            return False
        return all(out.channel.idle and not self._queued(out) for out in self._outs)

    def _turn(self, node_inputs: NodeInputs) -> bool:
        """Do once everything that can be done now; return False if there was nothing."""
        now_s = time.monotonic()
        busy = self._receive(now_s)
        while (event := node_inputs.poll()) is not None:
            self._handle_event(event, now_s)
            busy = True
        for each in self._ins:
            busy |= self._deliver(each)
        for machine in self._machines.values():
            for out in machine.outgoing:
                busy |= self._send(machine, out)
        self._acknowledge(now_s)
        self._greet(now_s)
        self._tell_status(now_s)
        return busy

    # What comes from other machines.

    def _receive(self, now_s: float) -> bool:
        session = self._session
        busy = False
        while session.seen:
            busy = self._news = True
            machine_name, incarnation, alive = session.seen.popleft()
            machine = self._machines[machine_name]
            if alive:
                machine.greeting.appear(incarnation, now_s)
            elif machine.greeting.vanish(incarnation):
                self._disconnect(machine)
        for _ in range(BURST):
            if not session.received:
                break
            busy = True
            received = session.received.popleft()
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
            if machine.greeting.hear(said, now_s):
                self._open(machine, said.grants)
            return
        for frame in frames.decode(data):
            number = frame.opening.channel
            if isinstance(frame, Ack):
                for out in machine.outgoing:
                    out.channel.acknowledge(frame)
                continue
            if number >= len(self._ins) or self._ins[number].spec.machine != received.machine:
                raise FrameError(f"channel {number} is not one of this machine")
            self._ins[number].channel.arrive(frame, self._delivery.place)

    def _open(self, machine: Machine, grants: dict[str, Any]) -> None:
        """Open the channels to a machine that it grants; close the others."""
        machine.complaint = machine.courier.failed = ""
        for out in machine.outgoing:
            grant = grants.get(out.spec.name)
            if grant is None:
                out.channel.close()
                machine.complaint = f"{machine.greeting.peer} does not receive {out.spec.name}"
            else:
                out.channel.open(grant)

    def _disconnect(self, machine: Machine) -> None:
        _log.info("the link process of %s has gone", machine.greeting.peer)
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
                self._report(
                    Happened(
                        each.spec.name,
                        each.spec.machine,
                        messages.EVENTS[item.kind],
                        item.text,
                    )
                )
            channel.handled()
            busy = True
        return busy

    # What goes to other machines.

    def _handle_event(self, event: dict[str, Any], now_s: float) -> None:
        kind = event["type"]
        if kind == "STOP" and event["id"] == MANUAL:
            self._stop(now_s)
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
                if out.source == event["id"]:
                    out.channel.add_event(EventKind.RESTARTED)
        elif kind == "ERROR":
            _log.warning("%s", event["error"])

    def _outs_of(self, input_id: str) -> Iterator[Out]:
        return (out for out in self._outs if out.spec.input == input_id)

    def _queued(self, out: Out) -> bool:
        return any(item.holds() for item in self._inputs.get(out.spec.input, ()))

    def _send(self, machine: Machine, out: Out) -> bool:
        """Send what a channel may send now; return False if that is nothing."""
        channel = out.channel
        busy = False
        for _ in range(BURST):
            while channel.wants and self._take(out):
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
        for each in self._ins:
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
            self._put(machine.control, machine.greeting.hello(grants, now_s))

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

    def _sleep(self, node_inputs: NodeInputs, mail: int) -> None:
        watched = [(BOX_MAIL, mail)]
        for out in self._outs:
            if out.channel.wants:
                for item in self._inputs.get(out.spec.input, ()):
                    watched += item.watched
        node_inputs.set_asleep(True)
        try:
            if not node_inputs.may_sleep(watched) or self._session.received or self._session.seen:
                return
            wait_s = max(0.0, self._next_s() - time.monotonic())
            ready = self._waiter.wait(int(wait_s * 1e9))
        finally:
            node_inputs.set_asleep(False)
        if self._connection.space in ready:
            doorbell.clear(self._connection.space)
        if self._connection.descriptor in ready:
            self._connection.read_mail()
        if self._stop_fd in ready:
            self._stop(time.monotonic())

    def _next_s(self) -> float:
        """Return when something must be done even if nothing comes."""
        times = [self._status_s + STATUS_S]
        times += [each.owed_s for each in self._ins if each.owed_s is not None]
        for machine in self._machines.values():
            if machine.greeting.due_s is not None:
                times.append(machine.greeting.due_s)
        if self._stopping_s is not None:
            times.append(self._stopping_s)
        return min(times)

    def _stop(self, now_s: float) -> None:
        if self._stopping_s is None:
            self._stopping_s = now_s + FLUSH_S
            self._waiter = self._make_waiter()

    def _make_waiter(self) -> doorbell.Waiter:
        connection = self._connection
        others = [connection.descriptor, connection.space]
        if self._stopping_s is None:
            others.append(self._stop_fd)
        return doorbell.Waiter(connection.bell, others)

    def _peer_status(self, machine: Machine) -> PeerStatus:
        status = machine.greeting.status()
        reason = machine.complaint or machine.courier.failed
        if reason:
            return messages.PeerStatus(status.state, status.reason or reason, status.round_trip_us)
        return status

    def _tell_status(self, now_s: float, *, force: bool = False) -> None:
        if not (force or self._news or now_s >= self._status_s + STATUS_S):
            return
        self._news = False
        peers = {name: self._peer_status(machine) for name, machine in self._machines.items()}
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
        self._report(
            Status(
                peers,
                [out_status(out) for out in self._outs],
                [in_status(each) for each in self._ins],
            )
        )

    def _close(self) -> None:
        for machine in self._machines.values():
            machine.courier.close()
        self._session.close()
        for each in self._ins:
            self._abort(each)
        self._connection.done()
