"""What the daemon knows of the links of a dataflow to other machines."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from dorad.int64 import clamped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.control.messages import LineUse, LinkChannel, LinkPeer, TraceOrigin
    from dorad.dataflow.model import Link
    from dorad.link.reports import InStatus, OutStatus, PeerStatus, Status


class Links:
    """The last report about each machine and channel. Reports about unknown ones are ignored.

    Each process of a link counts from 0. What earlier ones have reported is added, so counts are
    since the start of the dataflow; what a process had not reported when it was killed, in its last
    second, is in none. Only the losses of incoming channels are exact: edges count them.
    """

    def __init__(self) -> None:
        self._peers: dict[str, PeerStatus] = {}
        self._outgoing: dict[tuple[str, str], OutStatus] = {}
        self._incoming: dict[tuple[str, str], InStatus] = {}
        self.strangers = ""
        """What the gate of the link has closed lately."""
        self._process: int | None = None
        self._earlier: dict[tuple[bool, str, str], tuple[int, int]] = {}
        """Messages and losses of earlier processes, by direction, name and machine."""
        self.expect(None)

    def process_attached(self, pid: int) -> None:
        """Begin to count the reports of a link process, unless it is the same as before."""
        if pid == self._process:
            return
        self._process = pid
        for channel in self.channels("", {}):
            key = (channel.outgoing, channel.output, channel.machine)
            self._earlier[key] = channel.messages, channel.lost
        self._outgoing = {
            key: msgspec.structs.replace(
                out, sent=0, lost=0, uncertain=0, on_the_way=0, bytes_per_s=None
            )
            for key, out in self._outgoing.items()
        }
        self._incoming = {
            key: msgspec.structs.replace(one, received=0, queued=0)
            for key, one in self._incoming.items()
        }

    def snapshot(self) -> dict[str, Any]:
        """Return what the next daemon needs, as JSON-able values."""
        earlier = [[*key, *counts] for key, counts in sorted(self._earlier.items())]
        return {"process": self._process, "earlier": earlier}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Restore `snapshot()` of an earlier daemon. Its link process may still run."""
        self._process = snapshot["process"]
        self._earlier = {
            (outgoing, name, machine): (messages, lost)
            for outgoing, name, machine, messages, lost in snapshot["earlier"]
        }

    def expect(self, link: Link | None) -> None:
        """Take reports about these channels from now on."""
        self._machines = () if link is None else link.machines
        sent, received = ((), ()) if link is None else (link.outgoing, link.incoming)
        # The name and the machine of each channel; of `_reliable`, those that have backpressure.
        self._sent = frozenset((each.name, each.machine) for each in sent)
        self._reliable = frozenset((each.name, each.machine) for each in sent if each.reliable)
        self._received = frozenset((each.name, each.machine) for each in received)
        self._peers = {name: peer for name, peer in self._peers.items() if name in self._machines}
        self._outgoing = {key: out for key, out in self._outgoing.items() if key in self._sent}
        self._incoming = {key: one for key, one in self._incoming.items() if key in self._received}
        known = {(True, *key) for key in self._sent} | {(False, *key) for key in self._received}
        self._earlier = {key: counts for key, counts in self._earlier.items() if key in known}

    def update(self, status: Status) -> bool:
        """Record a report; return True if the state of a link has changed."""
        before = {name: (peer.state, peer.reason) for name, peer in self._peers.items()}
        self._peers |= {name: peer for name, peer in status.peers.items() if name in self._machines}
        if status.peers:
            self.strangers = status.strangers
        for out in status.outgoing:
            if (out.name, out.machine) in self._sent:
                self._outgoing[out.name, out.machine] = out
        for each in status.incoming:
            if (each.name, each.machine) in self._received:
                self._incoming[each.name, each.machine] = each
        return before != {name: (peer.state, peer.reason) for name, peer in self._peers.items()}

    def peers(self) -> dict[str, LinkPeer]:
        """Return the link to each other machine."""
        from dorad.control.messages import LinkPeer  # most dataflows have no link

        unknown = LinkPeer(state="absent", reason="the link process has not reported yet")
        by_machine = {}
        for name in self._machines:
            peer = self._peers.get(name)
            by_machine[name] = (
                unknown
                if peer is None
                else LinkPeer(
                    state=peer.state,
                    reason=peer.reason,
                    round_trip_us=peer.round_trip_us,
                    clock_us=peer.clock_us,
                    clock_margin_us=peer.clock_margin_us,
                )
            )
        return by_machine

    def origin(self, topic: str) -> TraceOrigin | None:
        """Return the machine that sends a topic here, and its clock; None if no other one does."""
        from dorad.control.messages import TraceOrigin  # as above

        machine = next((machine for name, machine in self._received if name == topic), None)
        if machine is None:
            return None
        peer = self._peers.get(machine)
        if peer is None or peer.clock_us is None:
            return TraceOrigin(machine=machine)
        return TraceOrigin(
            machine=machine, clock=peer.clock_us / 1e6, margin=peer.clock_margin_us / 1e6
        )

    def missing(self) -> list[str]:
        """Return the links that are not up, each with the reason."""
        return [
            f"the link to {name} is not up: {peer.reason}"
            for name, peer in self.peers().items()
            if peer.state != "up"
        ]

    def channels(
        self,
        dataflow: str,
        lost: Mapping[str, int],
        queues: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    ) -> list[LinkChannel]:
        """Return the counters of all channels of a dataflow that were reported.

        `lost` has what the edges here have lost on the way, by output. `queues` has how many
        messages wait for the link, and how many were dropped there, by input of the link.
        """
        from dorad.control.messages import LinkChannel  # as above

        listed = [
            LinkChannel(
                dataflow=dataflow,
                output=out.name,
                machine=out.machine,
                outgoing=True,
                messages=out.sent,
                lost=out.lost + out.uncertain,
                queued=out.on_the_way,
                line=self._line(out, *queues.get(f"{out.machine}/{out.name}", (0, 0))),
            )
            for out in self._outgoing.values()
        ]
        listed += [
            LinkChannel(
                dataflow=dataflow,
                output=each.name,
                machine=each.machine,
                outgoing=False,
                messages=each.received,
                lost=lost.get(each.name, 0),
                queued=each.queued,
                latency_us=each.latency_us,
            )
            for each in self._incoming.values()
        ]
        peers = self.peers()
        for channel in listed:
            peer = peers[channel.machine]
            channel.problem = "" if peer.state == "up" else peer.reason
            key = (channel.outgoing, channel.output, channel.machine)
            messages, missed = self._earlier.get(key, (0, 0))
            channel.messages = clamped(channel.messages + messages)
            channel.lost = clamped(channel.lost + missed)
        return listed

    def _line(self, out: OutStatus, waiting: int, dropped: int) -> LineUse | None:
        from dorad.control.messages import LineUse  # as above

        if out.bytes_per_s is None:
            return None
        return LineUse(
            bytes_per_s=out.bytes_per_s,
            bytes_on_the_way=out.bytes_on_the_way,
            waiting=waiting,
            dropped=dropped,
            wait=out.wait,
            backpressure=(out.name, out.machine) in self._reliable,
        )
