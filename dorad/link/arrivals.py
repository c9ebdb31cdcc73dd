"""Deliver the messages of other machines to the queues of this machine's nodes.

Only one thread at a time may call any of this; see `process`.
"""

import logging
import time

from dorad.link import frames, hello
from dorad.link.channels import Channels
from dorad.link.delivery import Delivery, push
from dorad.link.frames import Ack, Frame, FrameError
from dorad.link.incoming import Arrived
from dorad.link.machine import In, Machine
from dorad.link.reporting import Reporter
from dorad.link.reports import EVENTS, ChannelEvent
from dorad.link.session import Received, Session

_log = logging.getLogger(__name__)

BURST = 64
"""Samples that are handled before the loop checks everything else."""


class Arrivals:
    """Handles what the session has received, in order."""

    def __init__(
        self, channels: Channels, delivery: Delivery, reporter: Reporter, session: Session
    ) -> None:
        self.session = session
        self.peers_changed = True
        """Whether the state of a peer may have changed since this was set to False."""
        self._ack_due = False
        """Whether the sender of handled data may soon run out of credit."""
        self._unopened = ""
        """Why the session was not open at the last check."""
        self._channels = channels
        self._delivery = delivery
        self._reporter = reporter

    def handle_all(self, now_s: float) -> bool:
        """Handle everything, up to a bound; return False if there was nothing."""
        session = self.session
        if session.unopened != self._unopened:
            self._unopened = session.unopened
            self.peers_changed = True
        if not session.waiting:
            return self._deliver_blocked()
        while session.seen:
            self.peers_changed = True
            name, incarnation, alive = session.seen.popleft()
            machine = self._channels.machines.get(name)
            if machine is None:
                continue
            if alive:
                machine.greeting.appear(incarnation, now_s)
            elif machine.greeting.vanish(incarnation):
                self._channels.disconnect(machine)
        for _ in range(min(BURST, len(session.control))):
            self._handle(session.control.popleft())
        self.handle_data()
        self._deliver_blocked()
        return True

    def handle_data(self) -> bool:
        """Handle data only, up to a bound, and deliver them.

        Returns True if an acknowledgement of them is due, or more has to be done.
        """
        self._ack_due = False
        data = self.session.data
        for _ in range(min(BURST, len(data))):
            self._handle(data.popleft())
        return self._ack_due or self.peers_changed or bool(data)

    def _handle(self, received: Received) -> None:
        machine = self._channels.machines.get(received.machine)
        if machine is None:
            return
        try:
            if len(received.payload) > frames.MAX_FRAME:
                raise FrameError(f"a frame of {len(received.payload)} bytes")
            data = received.payload.to_bytes()
            if received.kind == "hello":
                self._greeted(machine, data)
                return
            for frame in frames.decode(data):
                self._handle_frame(machine, frame)
        except FrameError as error:
            machine.problem = str(error)
            self.peers_changed = True
            # Not again before the other end has answered, even if it sends other frames.
            if machine.greeting.up:
                _log.warning("from %s: %s; the link restarts", received.machine, error)
                machine.greeting.restart(time.monotonic())

    def _greeted(self, machine: Machine, data: bytes) -> None:
        self.peers_changed = True
        said = hello.decode(data)
        is_new = machine.greeting.hear(said, time.monotonic())
        if machine.greeting.left:
            self._channels.abandon(machine)
        elif (
            machine.greeting.heard
            and said.heard is not None
            and said.heard[0] == self._channels.incarnation
        ):
            self._channels.open(machine, said.grants, is_new=is_new)

    def _handle_frame(self, machine: Machine, frame: Frame) -> None:
        if isinstance(frame, Ack):
            for out in machine.outgoing:
                out.channel.acknowledge(frame)
            return
        number = frame.opening[0]
        each = self._channels.ins.get(number)
        if each is None and number < self._channels.next_number:
            return  # a channel that was removed while the frame was on its way
        if each is None or each.machine is not machine:
            raise FrameError(f"channel {number} is not one of this machine")
        each.channel.arrive(frame, self._delivery.allocate)
        self._deliver(each)
        self._ack_due |= each.channel.ack_due

    def _deliver_blocked(self) -> bool:
        """Deliver messages that had no room before; return False if there were none."""
        busy = False
        for each in self._channels.ins.values():
            busy |= self._deliver(each)
        return busy

    def _deliver(self, each: In) -> bool:
        """Push what has arrived on a channel into the queues here, as far as they have room."""
        channel, delivery, output = each.channel, self._delivery, each.output
        busy = False
        while channel.arrived:
            item = channel.arrived[0]
            if isinstance(item, Arrived):
                if delivery.is_blocked(output):
                    each.blocked = True
                    break
                if each.blocked:
                    each.blocked = False
                    delivery.unblock(output)
                push(delivery, each, item)
            else:
                event = ChannelEvent(
                    each.spec.name, each.spec.machine, EVENTS[item.kind], item.text
                )
                if not self._reporter.event(event):
                    break  # the daemon is away, and its socket is full
            channel.handled()
            busy = True
        return busy
