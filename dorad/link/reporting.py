"""Sends the reports of a link process to the daemon, and never waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dorad.link.reports import MAX_CHANNELS, Happened, InStatus, OutStatus, PeerStatus, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.node.connection import DaemonConnection

MAX_PEERS = 20
"""Machines of one status: it must fit into a packet."""

MAX_REASON = 300
"""Characters of the reason why a link is not up."""


class Reporter:
    """Reports over the connection to the daemon. A report that finds no room is not sent."""

    def __init__(self, connection: DaemonConnection) -> None:
        self._connection = connection

    def event(self, event: Happened) -> bool:
        """Report an event; return False if it must be reported again, because there is no room."""
        return self._send(event)

    def status(
        self,
        peers: Mapping[str, PeerStatus],
        outgoing: Sequence[OutStatus],
        incoming: Sequence[InStatus],
    ) -> None:
        """Report the state of all links and channels, in as many packets as it needs.

        Without room the rest is left out: another status follows in a second.
        """
        names = sorted(peers)
        parts = [Status(part, [], []) for part in _peer_parts(names, peers)]
        for at in range(0, len(outgoing), MAX_CHANNELS):
            parts.append(Status({}, [*outgoing[at : at + MAX_CHANNELS]], []))
        for at in range(0, len(incoming), MAX_CHANNELS):
            parts.append(Status({}, [], [*incoming[at : at + MAX_CHANNELS]]))
        for part in parts:
            if not self._send(part):
                return

    def _send(self, report: Status | Happened) -> bool:
        return self._connection.offer("link", {"report": msgspec.to_builtins(report)})


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
