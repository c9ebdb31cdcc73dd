"""The machines and channels of a link process, kept in step with its configuration.

Only one thread at a time may call any of this; see `process`.
"""

import logging
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any

from dorad.link.config import ChannelIn, ChannelOut, LinkConfig
from dorad.link.delivery import Delivery
from dorad.link.forward import ForwardedInput
from dorad.link.greeting import Greeting
from dorad.link.hello import Grant
from dorad.link.machine import In, Machine, Out
from dorad.link.numbering import Mark
from dorad.link.outgoing import Outgoing
from dorad.link.pace import Pace
from dorad.link.session import Session
from dorad.node.connection import DaemonConnection

_log = logging.getLogger(__name__)


class Channels:
    """All machines, and all channels to and from them."""

    def __init__(
        self,
        connection: DaemonConnection,
        delivery: Delivery,
        incarnation: int,
        session: Session,
        ins: dict[int, In],
    ) -> None:
        """`incarnation` is that of this process; `ins` gets the incoming channels."""
        self.incarnation = incarnation
        self.machines: dict[str, Machine] = {}
        self.outs: list[Out] = []
        self.ins = ins
        """By the number that this process has given the channel."""
        self.next_number = 0
        self._connection = connection
        self._delivery = delivery
        self._session = session
        self._inputs: dict[str, list[ForwardedInput]] = {}

    def make_input(self, item: dict[str, Any]) -> ForwardedInput:
        """Return the ring that the daemon describes; a channel may take messages from it."""
        made = ForwardedInput(self._connection, item)
        rings = self._inputs.setdefault(made.id, [])
        rings[:] = [*(each for each in rings if not each.removed), made]
        return made

    def add(self, config: LinkConfig, now_s: float) -> None:
        """Add the machines and channels of a configuration that are new.

        Raises:
            RuntimeError: the participant lacks an input that `config` names.
        """
        for name in config.peers:
            if name not in self.machines:
                greeting = Greeting(config.dataflow, config.machine, self.incarnation, name)
                self.machines[name] = Machine(greeting, self._session)
        outs = {(out.spec.name, out.spec.machine): out for out in self.outs}
        for sent in config.outgoing:
            out = outs.get((sent.name, sent.machine))
            if out is None:
                self._add_out(sent)
            else:
                out.spec, out.active = sent, True
                out.channel.reliable = sent.reliable
        known = {(each.spec.name, each.spec.machine) for each in self.ins.values()}
        for received in config.incoming:
            if (received.name, received.machine) not in known:
                self._add_in(received, now_s)

    def _add_out(self, spec: ChannelOut) -> None:
        """Add a channel that continues the numbers of the link's previous process."""
        fed = self._inputs.get(spec.input)
        if not fed:
            raise RuntimeError(f"the link has no input {spec.input!r}")
        marks = [mark for each in fed if (mark := each.mark()) is not None]
        newest = max(marks, key=lambda mark: mark.next, default=Mark(1 + secrets.randbits(61), 0))
        for each in fed:
            each.number_from(newest)
        channel = Outgoing(
            self.incarnation,
            reliable=spec.reliable,
            numbering=newest.numbering,
            next_number=newest.next,
            pace=Pace(time.monotonic),
        )
        machine = self.machines[spec.machine]
        out = Out(spec, channel, machine, fed)
        self.outs.append(out)
        machine.outgoing.append(out)
        if spec.name in machine.grants:
            channel.open(machine.grants[spec.name])

    def _add_in(self, spec: ChannelIn, now_s: float) -> None:
        """Add a channel, and offer it to its sender."""
        machine = self.machines[spec.machine]
        each = self.ins[self.next_number] = In(spec, self.next_number, machine)
        self.next_number += 1
        machine.incoming.append(each)
        each.channel.open()
        machine.greeting.announce(now_s)

    def remove(self, config: LinkConfig, now_s: float) -> None:
        """Remove the channels that a configuration does not have."""
        sent = {(spec.name, spec.machine) for spec in config.outgoing}
        received = {(spec.name, spec.machine) for spec in config.incoming}
        for out in self.outs:
            out.active = out.active and (out.spec.name, out.spec.machine) in sent
        for number, each in list(self.ins.items()):
            if (each.spec.name, each.spec.machine) not in received:
                self.abort(each)
                del self.ins[number]
                each.machine.incoming.remove(each)
                each.machine.greeting.announce(now_s)

    def reconnect(self, session: Session) -> None:
        """Use another session: all machines must be greeted again."""
        self._session = session
        for machine in self.machines.values():
            machine.greeting.lose()
            self.disconnect(machine)
            machine.close()
            machine.connect(session)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of these machines whose link process has not been seen."""
        return [name for name in names if self.machines[name].greeting.missing]

    def check_answers(self, names: Iterable[str], now_s: float) -> bool:
        """Return True if one of these machines is there and has not answered for too long."""
        late = [name for name in names if self.machines[name].greeting.check_answers(now_s)]
        if late:
            _log.warning("no answer from %s: the session is opened again", ", ".join(late))
        return bool(late)

    def outs_of(self, input_id: str) -> Iterator[Out]:
        """Return the channels that an input of this process feeds."""
        return (out for out in self.outs if out.active and out.spec.input == input_id)

    def sent_from(self, node_id: str) -> Iterator[Out]:
        """Return the channels whose messages a node sends."""
        return (out for out in self.outs if out.active and out.source == node_id)

    @property
    def all_sent(self) -> bool:
        """Whether everything is acknowledged or given up, and no message is queued."""
        return all(out.channel.idle and not out.queued() for out in self.outs if out.active)

    # The offers of the other ends.

    def open(self, machine: Machine, grants: dict[str, Grant], *, is_new: bool) -> None:
        """Open the channels to a machine that it grants; close the others.

        A greeting that is not new opens only channels that were added since.
        """
        machine.grants = grants
        machine.problem = machine.courier.failed = ""
        for out in machine.outgoing:
            grant = grants.get(out.spec.name)
            if grant is None:
                out.channel.close()
                if out.active:
                    machine.problem = f"{machine.greeting.peer} does not receive {out.spec.name}"
            elif is_new or not out.channel.opened:
                if out.channel.receiver not in (None, grant.receiver):
                    for item in out.inputs:
                        item.repeat()
                _log.debug("%s to %s opens", out.spec.name, out.spec.machine)
                out.channel.open(grant)

    def offer(self, machine: Machine) -> dict[str, Grant]:
        """Return what a greeting of this number offers; a new number opens all channels again."""
        if machine.opened != machine.greeting.number:
            machine.opened = machine.greeting.number
            for each in machine.incoming:
                self.abort(each)
                each.channel.open()
        return {each.spec.name: each.channel.grant for each in machine.incoming}

    def abandon(self, machine: Machine) -> None:
        """Keep nothing for a machine on which the dataflow has ended: no node waits for it.

        It may still send what its nodes have sent before.
        """
        machine.grants = {}
        for out in machine.outgoing:
            out.channel.abandon()

    def disconnect(self, machine: Machine) -> None:
        """Close all channels to and from a machine whose link process has gone."""
        _log.info("the link process of %s has gone", machine.greeting.peer)
        machine.grants = {}
        for out in machine.outgoing:
            out.channel.close()
        for each in machine.incoming:
            self.abort(each)

    def abort(self, each: In) -> None:
        """Close an incoming channel, and give up a message that is not complete."""
        place = each.channel.close()
        if place is not None:
            self._delivery.drop(place)

    def close(self) -> None:
        """Discard incomplete messages, and let the couriers end."""
        for machine in self.machines.values():
            machine.close()
        for each in self.ins.values():
            self.abort(each)
