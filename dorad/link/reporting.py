"""Reports of a link process to the daemon. It never waits for the daemon."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from dorad.link.machine import in_status, out_status
from dorad.link.reports import MAX_CHANNELS, ChannelEvent, InStatus, OutStatus, PeerStatus, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.link.channels import Channels
    from dorad.link.config import LinkConfig
    from dorad.link.machine import Machine
    from dorad.node.connection import DaemonConnection

_log = logging.getLogger(__name__)

STATUS_S = 1.0

MAX_PEERS = 20
"""Machines of one status: it must fit into a packet."""

MAX_REASON = 300
"""Characters of the reason why a link is not up."""


class Reporter:
    """Reports over the connection to the daemon. A report that finds no room is not sent."""

    def __init__(self, connection: DaemonConnection) -> None:
        self._connection = connection

    def event(self, event: ChannelEvent) -> bool:
        """Report an event; return False if it must be reported again, because there is no room."""
        return self._send(event)

    def status(
        self,
        peers: Mapping[str, PeerStatus],
        outgoing: Sequence[OutStatus],
        incoming: Sequence[InStatus],
        strangers: str = "",
    ) -> None:
        """Report the state of all links and channels, in as many packets as it needs.

        Without room the rest is left out: another status follows in a second.
        """
        names = sorted(peers)
        parts = [Status(part, [], [], strangers) for part in _peer_parts(names, peers)]
        for at in range(0, len(outgoing), MAX_CHANNELS):
            parts.append(Status({}, [*outgoing[at : at + MAX_CHANNELS]], []))
        for at in range(0, len(incoming), MAX_CHANNELS):
            parts.append(Status({}, [], [*incoming[at : at + MAX_CHANNELS]]))
        for part in parts:
            if not self._send(part):
                return

    def _send(self, report: Status | ChannelEvent) -> bool:
        return self._connection.offer("link", {"report": msgspec.to_builtins(report)})


def report_ended(connection: DaemonConnection, config: LinkConfig, reason: str) -> None:
    """Report why there is no link to any machine: the process ends."""
    absent = PeerStatus("absent", reason)
    Reporter(connection).status(dict.fromkeys(config.peers, absent), [], [])


class StatusReports:
    """Reports the state of all links every second, and when one has changed."""

    def __init__(self, reporter: Reporter, channels: Channels) -> None:
        self.due_s = 0.0
        """When the next report is due even if nothing changes."""
        self._reporter = reporter
        self._channels = channels

    def report(
        self, names: Sequence[str], now_s: float, *, strangers: str = "", force: bool = False
    ) -> bool:
        """Report on the machines that the configuration names, if it is time or one has changed."""
        machines = self._channels.machines
        peers = {name: _peer_status(machines[name], now_s) for name in names}
        changed = [
            name for name, status in peers.items() if _differs(machines[name].reported, status)
        ]
        if not (force or changed or now_s >= self.due_s):
            return False
        for name in changed:
            status = peers[name]
            words = (status.state, status.reason) if status.reason else (status.state,)
            _log.info("link to %s: %s", name, ": ".join(words))
            machines[name].reported = peers[name]
        self.due_s = now_s + STATUS_S
        self._reporter.status(
            peers,
            [out_status(out) for out in self._channels.outs if out.active],
            [in_status(each) for each in self._channels.ins.values()],
            strangers,
        )
        return True


def _peer_status(machine: Machine, now_s: float) -> PeerStatus:
    greeting = machine.greeting
    status = greeting.status(machine.session.silence.reason(greeting.peer), now_s)
    if status.state != "up" and (reason := machine.session.router_problem()):
        return PeerStatus("absent", reason)
    reason = machine.problem or machine.courier.failed
    if reason:
        return msgspec.structs.replace(status, reason=status.reason or reason)
    return status


def _differs(reported: PeerStatus | None, status: PeerStatus) -> bool:
    return reported is None or (reported.state, reported.reason) != (status.state, status.reason)


def _peer_parts(
    names: Sequence[str], peers: Mapping[str, PeerStatus]
) -> list[dict[str, PeerStatus]]:
    return [
        {
            name: msgspec.structs.replace(peers[name], reason=peers[name].reason[:MAX_REASON])
            for name in names[at : at + MAX_PEERS]
        }
        for at in range(0, len(names), MAX_PEERS)
    ]
