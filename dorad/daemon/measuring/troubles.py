"""What is wrong in a dataflow although all its nodes run: slow, lossy, noisy, or without bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.daemon.measuring.outputs import OutputWatch, Slow, causes, output_name
from dorad.daemon.measuring.rates import told
from dorad.daemon.rules.flood import ERRORS, OVER, Flood, flood_after
from dorad.daemon.rules.growth import FAST_S, SLOW_S, Growth, growth_after
from dorad.daemon.rules.linkloss import LinkLoss, link_loss_after
from dorad.daemon.rules.loss import Loss, loss_after
from dorad.dataflow.model import LINK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from dorad.control.messages import EdgeStats
    from dorad.daemon.broker.readings import EdgeCounters
    from dorad.logs.dataflowlog import LineCounts


class _LossKey(NamedTuple):
    output: str
    node: str
    input: str
    machine: str


class Losing(NamedTuple):
    """An input that loses messages steadily."""

    dropped: float
    """Per second."""
    rate: float
    """Messages per second."""
    output: str
    """`node/output`"""
    node: str
    """The receiver."""
    machine: str = ""
    """Where the messages go, if the receiver is the link to another machine."""


def _machine_of(edge: EdgeCounters) -> str:
    """Return the machine to which the link takes an edge; empty for other edges.

    An input of the link is called `machine/node/output`.
    """
    return edge.input.partition("/")[0] if edge.node == LINK else ""


class LossWatch:
    """The losses of the inputs of one dataflow. Add a sample once a second."""

    def __init__(self) -> None:
        self._parts: dict[_LossKey, object] = {}
        self._losses: dict[_LossKey, Loss] = {}
        self._told: dict[_LossKey, float] = {}

    def add(
        self,
        at: float,
        counters: Iterable[EdgeCounters],
        nodes: Mapping[str, object],
        down: Collection[str] = (),
    ) -> None:
        """Add a sample; see `TroubleWatch.add`.

        An input with `queue_size` 1 or a maximum rate wants the newest message: it loses none.
        """
        parts, losses = self._parts, self._losses
        self._parts, self._losses = {}, {}
        for each in counters:
            part = (nodes.get(each.source_node), nodes.get(each.node))
            machine = _machine_of(each)
            if each.queue_size < 2 or each.limited or None in part or machine in down:
                continue
            key = _LossKey(output_name(each), each.node, each.input, machine)
            before = losses.get(key) if parts.get(key) == part else None
            self._parts[key] = part
            self._losses[key] = loss_after(before or Loss(), at, each.sent, each.dropped)

    def losing(self) -> list[Losing]:
        """Return the inputs that lose messages steadily."""
        before, self._told = self._told, {}
        losses: list[Losing] = []
        for key, loss in self._losses.items():
            if loss.losing:
                self._told[key] = told(loss.dropped, before.get(key))
                rate = max(self._told[key], loss.rate)
                losses.append(Losing(self._told[key], rate, key.output, key.node, key.machine))
        return losses


class Missing(NamedTuple):
    """An output of another machine whose messages do not all arrive."""

    output: str
    """`node/output`"""
    share: float
    """The part of the messages that is lost."""


class LinkLossWatch:
    """What is lost on the way from other machines. Add a sample once a second."""

    def __init__(self) -> None:
        self._losses: dict[str, LinkLoss] = {}
        self._told: dict[str, float] = {}

    def add(self, at: float, counters: Iterable[EdgeCounters], nodes: Mapping[str, object]) -> None:
        """Add a sample; see `OutputWatch.add`. Each output counts once, by its worst receiver."""
        before, self._losses = self._losses, {}
        worst: dict[str, EdgeCounters] = {}
        for each in counters:
            if each.source_node == LINK and None not in (nodes.get(LINK), nodes.get(each.node)):
                other = worst.get(each.output)
                worst[each.output] = each if other is None or each.lost > other.lost else other
        for output, each in worst.items():
            known = before.get(output, LinkLoss())
            self._losses[output] = link_loss_after(known, at, each.sent, each.lost)

    def missing(self) -> list[Missing]:
        """Return the outputs that lose messages again and again."""
        before, self._told = self._told, {}
        for output, loss in self._losses.items():
            if loss.losing:
                self._told[output] = told(loss.share, before.get(output))
        return [Missing(output, share) for output, share in self._told.items()]


class Growing(NamedTuple):
    """A node that takes more and more memory."""

    node: str
    memory: float
    """Bytes that it has now."""
    before: int
    """Bytes that it had."""


class MemoryWatch:
    """The memory of all nodes of one dataflow. Add a sample once a second."""

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self._growths: dict[str, tuple[Growth, Growth]] = {}
        """Of each node: the fast and the slow one."""
        self._told: dict[str, float] = {}

    def add(self, at: float, processes: Mapping[str, tuple[int, int]]) -> None:
        """Add the process and the memory of each running node at `at` (monotonic seconds)."""
        pids, growths = self._pids, self._growths
        self._pids, self._growths = {}, {}
        for node, (pid, memory) in processes.items():
            both = growths[node] if pids.get(node) == pid else (Growth(FAST_S), Growth(SLOW_S))
            self._pids[node] = pid
            self._growths[node] = (
                growth_after(both[0], at, memory),
                growth_after(both[1], at, memory),
            )

    def growing(self) -> list[Growing]:
        """Return the nodes that take more and more."""
        before, self._told = self._told, {}
        growths: list[Growing] = []
        for node, both in self._growths.items():
            growth = next((each for each in both if each.growing), None)
            if growth is not None:
                self._told[node] = told(growth.lows[-1], before.get(node))
                growths.append(Growing(node, self._told[node], growth.base))
        return growths


class Flooding(NamedTuple):
    """A node that logs too much."""

    node: str
    rate: float
    """Per second."""
    what: str
    """`errors` or `lines`"""


class LogWatch:
    """The floods of all nodes of one dataflow. Add a sample once a second."""

    def __init__(self) -> None:
        self._floods: dict[str, Flood] = {}
        self._counts: dict[str, LineCounts] = {}
        self._told: dict[tuple[str, str], float] = {}

    def add(self, at: float, counts: Mapping[str, LineCounts]) -> None:
        """Add how much each node has logged until `at` (monotonic seconds)."""
        if self._counts.keys() - counts.keys():
            self._floods = {node: self._floods[node] for node in counts if node in self._floods}
        for node, each in counts.items():
            flood = self._floods.get(node, Flood())
            # A node that says nothing, as most do most of the time, costs nothing.
            if each != self._counts.get(node) or flood.since is not None:
                self._floods[node] = flood_after(flood, at, *each)
        self._counts = dict(counts)

    def flooding(self) -> list[Flooding]:
        """Return the nodes that log too much."""
        before, self._told = self._told, {}
        floods: list[Flooding] = []
        for node, flood in self._floods.items():
            if flood.flooding:
                what = "errors" if flood.errors >= OVER * ERRORS else "lines"
                rate = told(getattr(flood, what), before.get((node, what)))
                self._told[node, what] = rate
                floods.append(Flooding(node, rate, what))
        return floods


class Troubles(NamedTuple):
    """What is wrong in one dataflow."""

    slow: Sequence[Slow] = ()
    losing: Sequence[Losing] = ()
    flooding: Sequence[Flooding] = ()
    growing: Sequence[Growing] = ()
    missing: Sequence[Missing] = ()


class TroubleWatch:
    """What is wrong in one dataflow. Add a sample once a second."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        """`known` is the snapshot of the daemon before."""
        self._outputs = OutputWatch(known)
        self._losses = LossWatch()
        self._links = LinkLossWatch()
        self._logs = LogWatch()
        self._memory = MemoryWatch()

    def add(
        self,
        at: float,
        counters: Sequence[EdgeCounters],
        nodes: Mapping[str, object],
        limits: Mapping[str, float],
        lines: Mapping[str, LineCounts],
        down: Collection[str] = (),
    ) -> None:
        """Add a sample, taken at `at` (monotonic seconds); see `OutputWatch.add`.

        The links to the machines `down` are not up: what is lost because of that is told as such.
        """
        self._outputs.add(at, counters, nodes, limits)
        self._losses.add(at, counters, nodes, down)
        self._links.add(at, counters, nodes)
        self._logs.add(at, lines)

    def add_memory(self, at: float, processes: Mapping[str, tuple[int, int]]) -> None:
        """Add the memory of processes; see `MemoryWatch.add`."""
        self._memory.add(at, processes)

    def now(self) -> Troubles:
        """Return what is wrong now."""
        return Troubles(
            self._outputs.slow(),
            self._losses.losing(),
            self._logs.flooding(),
            self._memory.growing(),
            self._links.missing(),
        )

    def snapshot(self) -> dict[str, Any]:
        """Return what the next daemon needs, as JSON-able values."""
        return self._outputs.snapshot()


class Sentence(NamedTuple):
    """One thing that is wrong with a node, for people."""

    cause: str
    node: str
    """Empty if it is on another machine."""
    text: str
    brief: str
    """Without figures."""
    output: str = ""
    """What it is about, if that is not the node."""


def sentences(
    troubles: Troubles, edges: Sequence[EdgeStats], blamed: Collection[str]
) -> Iterator[Sentence]:
    """Yield one sentence for each node that is the cause of something.

    `blamed` nodes are known to be wrong: what follows from that is left out.
    """
    said = {*blamed, *(each.output.partition("/")[0] for each in troubles.slow)}
    for each in causes(troubles.slow, edges, blamed):
        yield _slow(each)
    # The slow line, and not what follows from it at its other end.
    for losing in sorted(troubles.losing, reverse=True):
        if losing.machine and losing.output not in said:
            said.add(losing.output)
            yield _link_is_slow(losing)
    for missing in troubles.missing:
        yield _link_loses(missing)
    for losing in sorted(troubles.losing, reverse=True):
        if not losing.machine and losing.node not in said:
            said.add(losing.node)
            yield Sentence(
                "input-drops",
                losing.node,
                f"{losing.output} -> {losing.node} drops {losing.dropped:.1f}/s of "
                f"{losing.rate:.1f}/s: {losing.node} is slow",
                f"{losing.output} -> {losing.node} drops: {losing.node} is slow",
            )
    for flood in troubles.flooding:
        if flood.node not in said:
            said.add(flood.node)
            text = f"{flood.node} logs {flood.rate:.0f} {flood.what}/s"
            yield Sentence("log-flood", flood.node, text, f"{flood.node} logs many {flood.what}")
    for grows in troubles.growing:
        if grows.node not in said:
            size, before = f"{grows.memory / 1e6:.0f} MB", f"{grows.before / 1e6:.0f} MB"
            text = f"{grows.node} takes {size}, was {before}"
            yield Sentence("memory-grows", grows.node, text, f"{grows.node} takes more memory")


def _link_is_slow(losing: Losing) -> Sentence:
    node, brief = losing.output.partition("/")[0], f"the link to {losing.machine} loses messages"
    text = (
        f"the link to {losing.machine} drops {losing.dropped:.1f}/s of {losing.rate:.1f}/s of "
        f"{losing.output}: the line is slower than what is sent"
    )
    return Sentence("link-loses", node, text, brief, losing.output)


def _link_loses(missing: Missing) -> Sentence:
    brief = f"{missing.output} of another machine is lost on the way"
    text = (
        f"{missing.share:.0%} of {missing.output} of another machine is lost on the way: "
        "the link is interrupted again and again"
    )
    return Sentence("link-loses", "", text, brief, missing.output)


def _slow(outputs: Sequence[Slow]) -> Sentence:
    first = outputs[0]
    node = first.output.partition("/")[0]
    more = f" (and {len(outputs) - 1} more of {node})" if len(outputs) > 1 else ""
    if first.demanded:
        than, brief = f"below {first.usual:g}/s", f"{first.output} below {first.usual:g}/s"
    else:
        than, brief = f"was {first.usual:.1f}/s", f"{first.output} is slower than usual"
    text = f"{first.output} {first.rate:.1f}/s, {than}"
    return Sentence("output-slow", node, text + more, brief)
