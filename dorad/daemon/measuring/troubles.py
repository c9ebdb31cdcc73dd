"""What is wrong in a dataflow although all its nodes run: slow, lossy, noisy, or without bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.daemon.measuring.floods import Flooding, LogWatch
from dorad.daemon.measuring.growths import Growing, MemoryWatch
from dorad.daemon.measuring.losses import Losing, LossWatch
from dorad.daemon.measuring.outputs import OutputWatch, Slow, causes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from dorad.control.messages import EdgeStats
    from dorad.daemon.broker.readings import EdgeCounters
    from dorad.logs.dataflowlog import LineCounts


class Troubles(NamedTuple):
    """What is wrong in one dataflow."""

    slow: Sequence[Slow] = ()
    losing: Sequence[Losing] = ()
    flooding: Sequence[Flooding] = ()
    growing: Sequence[Growing] = ()


class TroubleWatch:
    """What is wrong in one dataflow. Add a sample once a second."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        """`known` is the snapshot of the daemon before."""
        self._outputs = OutputWatch(known)
        self._losses = LossWatch()
        self._logs = LogWatch()
        self._memory = MemoryWatch()

    def add(
        self,
        at: float,
        counters: Sequence[EdgeCounters],
        nodes: Mapping[str, object],
        limits: Mapping[str, float],
        lines: Mapping[str, LineCounts],
    ) -> None:
        """Add a sample, taken at `at` (monotonic seconds); see `OutputWatch.add`."""
        self._outputs.add(at, counters, nodes, limits)
        self._losses.add(at, counters, nodes)
        self._logs.add(at, lines)

    def add_memory(self, at: float, processes: Mapping[str, tuple[int, int]]) -> None:
        """Add the memory of processes; see `MemoryWatch.add`."""
        self._memory.add(at, processes)

    def found(self) -> Troubles:
        """Return what is wrong now."""
        return Troubles(
            self._outputs.slow(),
            self._losses.losing(),
            self._logs.flooding(),
            self._memory.growing(),
        )

    def snapshot(self) -> dict[str, Any]:
        """Return what the next daemon needs, as JSON-able values."""
        return self._outputs.snapshot()


class Sentence(NamedTuple):
    """One thing that is wrong with a node, for people."""

    cause: str
    node: str
    text: str
    brief: str
    """Without figures."""


def sentences(
    troubles: Troubles, edges: Sequence[EdgeStats], blamed: Collection[str]
) -> Iterator[Sentence]:
    """Yield one sentence for each node that is the cause of something.

    `blamed` nodes are known to be wrong: what follows from that is left out.
    """
    said = {*blamed, *(each.output.partition("/")[0] for each in troubles.slow)}
    for each in causes(troubles.slow, edges, blamed):
        yield _slow(each)
    for losing in sorted(troubles.losing, reverse=True):
        if losing.node not in said:
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
