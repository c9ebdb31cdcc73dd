"""How to turn a running dataflow into another one, in steps that each leave a valid dataflow.

Pure. Nodes and edges that do not differ are in no step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec import Struct
from msgspec.structs import replace

from dorad.dataflow.model import (
    LINK,
    Channel,
    Dataflow,
    Input,
    Link,
    NodeKind,
    NodeOutput,
    NodeSpec,
)


class Remove(Struct, frozen=True):
    """End a node and remove it."""

    node: str
    after: Dataflow
    """The dataflow after this step."""


class Add(Struct, frozen=True):
    """Add a node and start it."""

    node: NodeSpec
    after: Dataflow


class Replace(Struct, frozen=True):
    """Replace the process of a node, which keeps its inputs."""

    node: str
    after: Dataflow


class Connect(Struct, frozen=True):
    """Add an input to a node."""

    node: str
    input: Input
    after: Dataflow


class Disconnect(Struct, frozen=True):
    """Remove an input from a node."""

    node: str
    input: str
    after: Dataflow


Step = Remove | Add | Replace | Connect | Disconnect


def steps(before: Dataflow, after: Dataflow) -> Iterator[Step]:
    """Yield the steps from one dataflow to another.

    A node that differs in more than its inputs is replaced without losing a message if it keeps its
    inputs, and otherwise ended and started again. The link changes its channels while it runs. It
    is added before all other nodes and removed after them.
    """
    old, new = ({node.id: node for node in flow.nodes} for flow in (before, after))
    differ = {
        name for name in old.keys() & new.keys() if not _is_same_program(old[name], new[name])
    }
    replaced = {name for name in differ if _keeps_mailbox(old[name], new[name])}
    gone = {name for name in old if name not in new} | (differ - replaced)
    plan = _Plan(before, after, old)
    if LINK in new:
        plan.widen_link(new[LINK])
    staying = [name for name in old if name in new and name not in gone]
    for name in staying:
        kept = {each.id: each for each in new[name].all_inputs}
        for entry in old[name].all_inputs:
            same = entry.id in kept and _plain(kept[entry.id]) == _plain(entry)
            if not same or _source(entry) in gone:
                yield plan.disconnect(name, entry.id)
    for name in sorted(gone - {LINK}):
        yield plan.remove(name)
    added = [node for name, node in new.items() if name not in old or name in gone]
    for node in sources_first(added, set(plan.nodes)):
        yield plan.add(node)
    # One that has ended is started: its inputs would close if its source came later.
    for node in sources_first([new[name] for name in sorted(replaced)], new.keys() - replaced):
        yield plan.replace(node)
    for name in new:
        present = {entry.id for entry in plan.nodes[name].all_inputs}
        for entry in new[name].all_inputs:
            if entry.id not in present:
                yield plan.connect(new[name], entry)
    if LINK in gone:
        yield plan.remove(LINK)


class _Plan:
    """The nodes after each step."""

    def __init__(self, before: Dataflow, after: Dataflow, nodes: dict[str, NodeSpec]) -> None:
        self.nodes = dict(nodes)
        self._before = before
        self._order = [node.id for node in after.nodes]

    def widen_link(self, link: NodeSpec) -> None:
        """Let the link have the outputs of both dataflows: their channels come and go later."""
        known = self.nodes.get(LINK)
        if known is not None:
            outputs = dict.fromkeys((*known.outputs, *link.outputs))
            self.nodes[LINK] = replace(link, inputs=known.inputs, outputs=tuple(outputs))

    def remove(self, name: str) -> Remove:
        del self.nodes[name]
        for node_id, node in self.nodes.items():  # those that will be removed as well
            kept = {each.id for each in node.all_inputs if _source(each) != name}
            self.nodes[node_id] = _with_inputs(node, kept)
        return Remove(name, self._flow())

    def add(self, node: NodeSpec) -> Add:
        present = {*self.nodes, node.id}
        fed = {each.id for each in node.all_inputs if _source(each) in (None, *present)}
        self.nodes[node.id] = _with_inputs(node, fed)
        return Add(self.nodes[node.id], self._flow())

    def replace(self, node: NodeSpec) -> Replace:
        self.nodes[node.id] = node
        return Replace(node.id, self._flow())

    def connect(self, node: NodeSpec, entry: Input) -> Connect:
        present = {each.id for each in self.nodes[node.id].all_inputs} | {entry.id}
        self.nodes[node.id] = _with_inputs(node, present)
        return Connect(node.id, entry, self._flow())

    def disconnect(self, name: str, input_id: str) -> Disconnect:
        node = self.nodes[name]
        self.nodes[name] = _with_inputs(node, {e.id for e in node.all_inputs} - {input_id})
        return Disconnect(name, input_id, self._flow())

    def _flow(self) -> Dataflow:
        names = [name for name in self._order if name in self.nodes]
        names += [name for name in self.nodes if name not in self._order]
        return replace(self._before, nodes=tuple(self.nodes[name] for name in names))


def shared_channels(before: Link, after: Link) -> Link:
    """Return the channels that both have, as they were; what they feed may differ."""
    sent = {_identity(each) for each in after.outgoing}
    received = {_identity(each) for each in after.incoming}
    return Link(
        tuple(each for each in before.outgoing if _identity(each) in sent),
        tuple(each for each in before.incoming if _identity(each) in received),
    )


def _identity(channel: Channel) -> tuple[str, str, bool]:
    return channel.name, channel.machine, channel.reliable


def _is_same_program(old: NodeSpec, new: NodeSpec) -> bool:
    """Return True if two nodes differ in nothing but their inputs, or are both the link."""
    return old.id == LINK or _without_inputs(old) == _without_inputs(new)


def _without_inputs(node: NodeSpec) -> NodeSpec:
    return _with_inputs(node, ())


def _with_inputs(node: NodeSpec, kept: Collection[str]) -> NodeSpec:
    """Return a node with those of its inputs whose ids, in the data plane, are `kept`."""
    return replace(
        node,
        inputs=tuple(each for each in node.inputs if each.id in kept),
        operators=tuple(
            replace(op, inputs=tuple(e for e in op.inputs if f"{op.id}/{e.id}" in kept))
            for op in node.operators
        ),
    )


def _keeps_mailbox(old: NodeSpec, new: NodeSpec) -> bool:
    """Return True if a process of `new` can take over the mailbox of `old`."""
    if NodeKind.DYNAMIC in (old.kind, new.kind):
        return False
    inputs = [{each.id: _plain(each) for each in node.all_inputs} for node in (old, new)]
    return inputs[0] == inputs[1] and set(old.all_outputs) <= set(new.all_outputs)


def _plain(entry: Input) -> Input:
    return replace(entry, long_form=False)


def _source(entry: Input) -> str | None:
    return entry.source.node if isinstance(entry.source, NodeOutput) else None


def sources_first(nodes: list[NodeSpec], present: Collection[str]) -> Iterator[NodeSpec]:
    """Yield nodes so that, as far as there is no cycle, each comes after its sources."""
    waiting = sorted(nodes, key=lambda node: node.id != LINK)
    known = set(present)
    while waiting:
        free = (
            node
            for node in waiting
            if all(_source(e) in (None, node.id, *known) for e in node.all_inputs)
        )
        # The link receives from nodes and feeds them; its inputs are connected later.
        first = waiting[0] if waiting[0].id == LINK else next(free, waiting[0])
        waiting.remove(first)
        known.add(first.id)
        yield first
