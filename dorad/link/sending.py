"""Send messages, acknowledgements and greetings to other machines.

Only one thread at a time may call any of this; see `process`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dorad.link import frames
from dorad.link.config import MAX_SIZE
from dorad.link.settings import BATCH_BYTES, BATCHES

if TYPE_CHECKING:
    from dorad.link.channels import Channels
    from dorad.link.machine import Out

_log = logging.getLogger(__name__)

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
        if taken is None:
            continue
        # The other end would refuse it each time.
        if len(taken.metadata) > frames.MAX_METADATA or taken.content.size > MAX_SIZE:
            _log.warning(
                "%s: a message of %d bytes with %d of metadata is too large and is dropped",
                *(out.spec.name, taken.content.size, len(taken.metadata)),
            )
            continue
        number = item.last_number(out.channel.numbering, out.channel.next_number)
        out.channel.add(number, *taken)
        return True
    return False


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
