"""Conditions that the counters must meet, during the kills and after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.daemon.broker.readings import EdgeCounters
    from hwtests.torture.ledger import Ledger

PROGRESS_S = 25.0
"""Seconds within which every node that runs must receive or send something."""


def running(before: Sequence[EdgeCounters], now: Sequence[EdgeCounters]) -> list[str]:
    """Return contradictions between the counters of edges now and a moment ago."""
    faults = []
    for old, new in zip(before, now, strict=True):
        name = edge_name(new)
        if new.sent != new.received + new.dropped + new.queued:
            faults.append(f"{name}: sent is not received + dropped + queued: {new}")
        if not 0 <= new.queued <= new.queue_size:
            faults.append(f"{name}: {new.queued} queued of {new.queue_size}")
        # A message that is being taken right now counts as dropped until it counts as received.
        for what, slack in (("sent", 0), ("received", 0), ("dropped", 1)):
            if getattr(new, what) < getattr(old, what) - slack:
                faults.append(f"{name}: {what} went back from {old} to {new}")
    return faults


def final(
    edges: Sequence[EdgeCounters], ledgers: Mapping[str, Ledger], kills: Mapping[str, int]
) -> list[str]:
    """Return contradictions between the counters and the ledgers, once all nodes have ended.

    A sender may be killed between sending a message and counting it in its ledger. A message that
    a killed receiver had taken but not counted is counted by its successor as excused.
    """
    faults = []
    for edge in edges:
        name = edge_name(edge)
        producer, consumer = ledgers[edge.source_node], ledgers[edge.node]
        done, begun = producer.done(edge.output), producer.begun(edge.output)
        accounted = consumer.logged(edge.input) + consumer.excused(edge.input)
        reached = edge.sent + edge.refused
        if edge.sent != edge.received + edge.dropped + edge.queued:
            faults.append(f"{name}: sent is not received + dropped + queued: {edge}")
        if edge.queued:
            faults.append(f"{name}: {edge.queued} messages were left in the queue")
        if not done <= reached <= begun <= done + kills[edge.source_node]:
            faults.append(f"{name}: {reached} sent by count, {done} to {begun} by the sender")
        if edge.received != accounted:
            faults.append(f"{name}: {edge.received} received by count, {accounted} by the receiver")
    return faults


class Progress:
    """Detects nodes that hang."""

    def __init__(self, ledgers: Mapping[str, Ledger], now: float) -> None:
        self._ledgers = ledgers
        self._moved = dict.fromkeys(ledgers, (-1, now))

    def stuck(self, running: Sequence[str], now: float) -> list[str]:
        """Return the running nodes that have made no progress for too long."""
        stuck = []
        for node, ledger in self._ledgers.items():
            turns, since = self._moved[node]
            if ledger.turns != turns or node not in running:
                self._moved[node] = (ledger.turns, now)
            elif now - since > PROGRESS_S:
                stuck.append(f"{node} has received and sent nothing for {now - since:.0f} s")
        return stuck


def edge_name(edge: EdgeCounters) -> str:
    return f"{edge.source_node}/{edge.output} -> {edge.node}/{edge.input}"
