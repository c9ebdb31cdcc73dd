"""How often the outputs of a dataflow send, compared with their usual rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.daemon.measuring.rates import told
from dorad.daemon.rules.pace import Pace, pace_after
from dorad.dataflow.model import LINK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from dorad.control.messages import EdgeStats
    from dorad.daemon.broker.readings import EdgeCounters


class Slow(NamedTuple):
    """An output that sends too little."""

    output: str
    """`node/output`"""
    rate: float
    """Messages per second."""
    usual: float
    """Its usual rate, or the rate that its release demands."""
    demanded: bool = False


class OutputWatch:
    """The paces of all outputs of one dataflow. Add a sample once a second."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        """`known` is the snapshot of the daemon before."""
        self._nodes: Mapping[str, object] | None = None
        self._edges: dict[tuple[str, str, str], tuple[int, object]] = {}
        """By output, receiver and input: the messages sent, and what the receiver is."""
        self._sent: dict[str, int] = {}
        self._paces: dict[str, Pace] = {}
        self._known = {name: Pace(**kept["pace"]) for name, kept in known.items()}
        """Those of the daemon before, until their first sample."""
        self._told = {name: float(kept["rate"]) for name, kept in known.items()}
        self._limits: Mapping[str, float] = {}

    def add(
        self,
        at: float,
        counters: Sequence[EdgeCounters],
        nodes: Mapping[str, object],
        limits: Mapping[str, float],
    ) -> None:
        """Add a sample.

        `nodes` has, for each node that takes part now, what makes it another one when it changes:
        its process, its definition, its parameters. Its outputs, and all that depend on them, are
        then learned anew. An output counts while one of its receivers takes part. `limits` are
        rates that outputs must have; one of 0 says that the output is never slow.
        """
        last_nodes = nodes if self._nodes is None else self._nodes
        names = {*nodes, *last_nodes}
        changed = [name for name in names if nodes.get(name) != last_nodes.get(name)]
        for name in _depending(changed, counters):
            for known in (self._paces, self._known, self._told):
                known.pop(name, None)
        new: dict[str, int] = {}
        before, self._edges = self._edges, {}
        for each in counters:
            receiver, source = nodes.get(each.node), output_name(each)
            if receiver is None or source.partition("/")[0] not in nodes:
                continue
            key = (source, each.node, each.input)
            last = before.get(key)
            self._edges[key] = (each.sent, receiver)
            if last is None:
                new.setdefault(source, 0)
            elif last[1] == receiver and each.sent >= last[0]:
                new[source] = max(new.get(source, 0), each.sent - last[0])
        self._nodes, self._limits = dict(nodes), limits
        self._sent = {name: self._sent.get(name, 0) + count for name, count in new.items()}
        self._paces = {
            name: pace_after(self._pace(name), at, sent, limits.get(name))
            for name, sent in self._sent.items()
        }

    def _pace(self, name: str) -> Pace:
        return self._paces.get(name) or self._known.pop(name, None) or Pace()

    def slow(self) -> list[Slow]:
        """Return the outputs that send less than usual, or less than they must."""
        watched: list[Slow] = []
        before, self._told = self._told, {}
        for name, pace in self._paces.items():
            if not (pace.slow or pace.short):
                continue
            last = before.get(name)
            rate = (last or 0.0) if pace.rate is None else told(pace.rate, last)
            self._told[name] = rate
            if pace.short:
                watched.append(Slow(name, rate, self._limits[name], demanded=True))
            elif pace.usual is not None:
                watched.append(Slow(name, rate, pace.usual))
        return watched

    def snapshot(self) -> dict[str, Any]:
        """Return what the next daemon needs, as JSON-able values."""
        return {
            name: {
                "pace": {
                    "usual": pace.usual,
                    "pauses": pace.pauses,
                    "slow": pace.slow,
                    "short": pace.short,
                },
                "rate": self._told.get(name, 0.0),
            }
            for name, pace in self._paces.items()
            if pace.usual is not None or pace.pauses or pace.short
        }


def output_name(edge: EdgeCounters) -> str:
    """Return the output `node/output` that an edge begins at, also of another machine."""
    return edge.output if edge.source_node == LINK else f"{edge.source_node}/{edge.output}"


def _depending(changed: Collection[str], edges: Iterable[EdgeCounters]) -> set[str]:
    """Return the outputs of nodes, and those of all nodes that receive them, and so on."""
    after: dict[str, list[tuple[str, str]]] = {}
    for each in edges if changed else ():
        name = output_name(each)
        after.setdefault(name.partition("/")[0], []).append((name, each.node))
    depending: set[str] = set()
    waiting, passed = [*changed], set(changed)
    while waiting:
        for name, receiver in after.get(waiting.pop(), ()):
            depending.add(name)
            if receiver not in passed:
                passed.add(receiver)
                waiting.append(receiver)
    return depending


def causes(
    slow: Iterable[Slow], edges: Sequence[EdgeStats], blamed: Iterable[str]
) -> list[list[Slow]]:
    """Return the slow outputs that have no other cause, those of one node together.

    Of one node the output with the most data is first: it is what people know the node by.

    An output is slow because of another one upstream, or of a `blamed` node: something else is
    known to be wrong with that. Of nodes that wait for each other the first by name is the cause.
    """
    by_node: dict[str, list[Slow]] = {}
    data = {edge.source.removeprefix(f"{LINK}/"): edge.payload for edge in edges}
    for each in sorted(slow, key=lambda each: (-data.get(each.output, 0), each)):
        by_node.setdefault(each.output.partition("/")[0], []).append(each)
    if not by_node:
        return []
    before: dict[str, set[str]] = {}
    after: dict[str, set[str]] = {}
    for edge in edges:
        source, target = source_node(edge.source), edge.target.partition("/")[0]
        if target in by_node and source != target:
            after.setdefault(source, set()).add(target)
            if source in by_node:
                before.setdefault(target, set()).add(source)
    left = set(by_node) - _reached(blamed, after)
    roots = [node for node in left if node not in before]
    left -= _reached(roots, after)
    while left:
        # Each one waits for another one that is left, so that the way upstream ends in a circle.
        way = [min(left)]
        while (last := min(before[way[-1]] & left)) not in way:
            way.append(last)
        roots.append(min(way[way.index(last) :]))
        left -= _reached(roots[-1:], after)
    return [by_node[node] for node in sorted(roots)]


def source_node(source: str) -> str:
    """Return the node of an edge's source, also of one on another machine."""
    return source.removeprefix(f"{LINK}/").partition("/")[0]


def _reached(nodes: Iterable[str], after: Mapping[str, Collection[str]]) -> set[str]:
    """Return the nodes, and all that come after them."""
    reached = set(nodes)
    waiting = [*reached]
    while waiting:
        new = set(after.get(waiting.pop(), ())) - reached
        reached |= new
        waiting += new
    return reached
