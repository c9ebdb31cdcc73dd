"""Which output is silent, of inputs that are broken. A function of what is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dorad.dataflow.model import LINK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.control.messages import EdgeStats, NodeInfo


class Silence(NamedTuple):
    """Broken inputs that have one cause."""

    dataflow: str
    """Its UUID."""
    output: str
    """The silent output, `node/output`; an input if its source is not known."""
    node: str
    """The node to look at: the one with the output."""
    inputs: list[str]
    """The broken inputs, `node/input`."""
    elsewhere: bool = False
    """Whether the output is on another machine."""

    @property
    def text(self) -> str:
        """The sentence for people."""
        if self.inputs == [self.output]:
            return f"input {self.output} is broken (silent source)"
        silent = f"{self.output} of another machine" if self.elsewhere else self.output
        if len(self.inputs) == 1:
            return f"{silent} is silent: input {self.inputs[0]} is broken"
        return f"{silent} is silent: inputs {', '.join(self.inputs)} are broken"


def silences(nodes: Iterable[NodeInfo], edges: Iterable[EdgeStats]) -> list[Silence]:
    """Group the broken inputs by the output that is silent.

    A node that itself waits for a silent output is not the cause: the first output upstream is.
    """
    sources = {(edge.dataflow, edge.target): edge.source for edge in edges}
    broken = {(info.dataflow, info.node): sorted(info.broken_inputs) for info in nodes}

    def cause(dataflow: str, node: str, name: str) -> str:
        """Return the silent output; the input itself if its source is not known."""
        found, passed = f"{node}/{name}", set[str]()
        while (source := sources.get((dataflow, f"{node}/{name}"))) is not None:
            found, node = source, source.partition("/")[0]
            waits = broken.get((dataflow, node))
            if not waits or node in passed:
                break
            passed.add(node)
            name = waits[0]
        return found

    found: dict[tuple[str, str], list[str]] = {}
    for (dataflow, node), names in broken.items():
        for name in names:
            key = (dataflow, cause(dataflow, node, name))
            found.setdefault(key, []).append(f"{node}/{name}")
    silent: list[Silence] = []
    for (dataflow, source), inputs in found.items():
        output = source.removeprefix(f"{LINK}/")
        node = output.partition("/")[0]
        silent.append(Silence(dataflow, output, node, inputs, elsewhere=output != source))
    return silent
