"""Which machine each node runs on: a pure function of the nodes, the machines and what runs there.

Nodes that run somewhere stay there. Of the others, those with the fewest machines to choose from
come first. Each goes to the machine with the fewest nodes among those that no rule rejects; of
equals, to the first. A node that every machine rejects is pending.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct, field

from dorad.dataflow.settings import Amounts

_DIGITS = 9
"""Of a number of cores, so that ten times 0.1 is 1."""


class Rule(StrEnum):
    """Why a machine does not get a node, in the order in which the rules apply."""

    MACHINE = "machine"
    """`deploy.machine` names another."""
    AVOID = "avoid"
    """`deploy.avoid`: the machine itself, or a node there; also asked the other way round."""
    LABELS = "labels"
    """A pair of `deploy.labels` is not among the machine's labels."""
    ACCEPT = "accept"
    """The machine's own `dorad.toml` refuses it: `[agent]` there."""
    DEVICES = "devices"
    GPU = "gpu"
    MEMORY = "memory"
    CPU = "cpu"
    AWAY = "away"
    """The machine cannot be reached, or nothing can be started there."""
    SPREAD = "spread"
    """Another machine, which also fits, has fewer nodes, or as many and comes first."""
    STAYS = "stays"
    """The node runs on another machine already; nodes do not move by themselves."""


class Candidate(Struct, frozen=True):
    """A machine, as placement sees it."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    capacity: Amounts = field(default_factory=Amounts)
    trouble: str = ""
    """Why nothing can be started there; empty if it can."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why its own configuration refuses nodes, by their ids."""


class Requirements(Struct, frozen=True):
    """The requirements of a node."""

    id: str
    """Unique among all nodes of the fleet that are passed to `place`."""
    machine: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    needs: Amounts = field(default_factory=Amounts)
    avoids_machines: frozenset[str] = frozenset()
    avoids_nodes: frozenset[str] = frozenset()


class Verdict(Struct, frozen=True):
    """The verdict about one machine for one node."""

    machine: str
    rule: Rule | None
    """The first rule that rejected it; None for the machine that gets the node."""
    reason: str


class Decision(Struct, frozen=True):
    """Where a node goes, and the verdict about each machine."""

    node: str
    machine: str | None
    """None: the node is pending."""
    verdicts: tuple[Verdict, ...]
    """In the order of the machines."""


def place(
    nodes: Sequence[Requirements],
    machines: Sequence[Candidate],
    placed: Iterable[tuple[Requirements, str]] = (),
) -> dict[str, Decision]:
    """Return a decision for each node, in their order.

    `placed` are the nodes that run already, of any dataflow, with the ids of their machines. They
    occupy what they need and never move, even if rules reject their machine.
    """
    occupied: defaultdict[str, list[Requirements]] = defaultdict(list)
    home: dict[str, str] = {}
    for node, machine in placed:
        occupied[machine].append(node)
        home[node.id] = machine
    decisions = {
        node.id: _stays(node, home[node.id], machines) for node in nodes if node.id in home
    }
    # sorted() is stable: of equals, the one that comes first in the file comes first.
    for node in sorted(
        (node for node in nodes if node.id not in home),
        key=lambda node: sum(_refusal(node, machine, ()) is None for machine in machines),
    ):
        decision = _decide(node, machines, occupied)
        decisions[node.id] = decision
        if decision.machine is not None:
            occupied[decision.machine].append(node)
    return {node.id: decisions[node.id] for node in nodes}


def is_allowed(node: Requirements, machine: Candidate) -> bool:
    """Return True if no rule keeps a node from a machine that has all its resources free."""
    return _refusal(node, machine, ()) is None


def _stays(node: Requirements, home: str, machines: Sequence[Candidate]) -> Decision:
    return Decision(
        node.id,
        home,
        tuple(
            Verdict(machine.id, None, "the node runs here")
            if machine.id == home
            else Verdict(machine.id, Rule.STAYS, f"the node runs on `{home}`")
            for machine in machines
        ),
    )


def _decide(
    node: Requirements,
    machines: Sequence[Candidate],
    occupied: Mapping[str, Sequence[Requirements]],
) -> Decision:
    refusals = {
        machine.id: _refusal(node, machine, occupied.get(machine.id, ())) for machine in machines
    }
    load = {machine.id: len(occupied.get(machine.id, ())) for machine in machines}
    fitting = [machine.id for machine in machines if refusals[machine.id] is None]
    # min() returns the first of equals.
    best = min(fitting, key=load.__getitem__, default=None)
    verdicts = []
    for machine in machines:
        refusal = refusals[machine.id]
        if refusal is not None:
            verdicts.append(Verdict(machine.id, *refusal))
        elif machine.id == best:
            reason = "nothing else fits" if len(fitting) == 1 else "it has the fewest nodes"
            verdicts.append(Verdict(machine.id, None, reason))
        else:
            assert best is not None
            more = load[machine.id] - load[best]
            compared = f"{more} more than" if more else "as many as"
            tail = "" if more else ", which comes first"
            reason = f"it has {_count(load[machine.id])}, {compared} `{best}`{tail}"
            verdicts.append(Verdict(machine.id, Rule.SPREAD, reason))
    return Decision(node.id, best, tuple(verdicts))


def _refusal(
    node: Requirements, machine: Candidate, there: Sequence[Requirements]
) -> tuple[Rule, str] | None:
    """Return the first rule by which a machine with these nodes rejects one, and the reason."""
    return next(_refusals(node, machine, there), None)


def _refusals(
    node: Requirements, machine: Candidate, there: Sequence[Requirements]
) -> Iterator[tuple[Rule, str]]:
    if node.machine not in (None, machine.id):
        yield Rule.MACHINE, f"the node asks for `{node.machine}`"
    if machine.id in node.avoids_machines:
        yield Rule.AVOID, "the node avoids it"
    for other in there:
        if other.id in node.avoids_nodes:
            yield Rule.AVOID, f"`{other.id}` is here, which the node avoids"
        elif node.id in other.avoids_nodes:
            yield Rule.AVOID, f"`{other.id}` is here and avoids the node"
    for name, value in node.labels.items():
        label = machine.labels.get(name)
        if label is None:
            yield Rule.LABELS, f"it has no label `{name}`"
        elif label != value:
            yield Rule.LABELS, f"its label `{name}` is `{label}`, not `{value}`"
    if node.id in machine.refused:
        yield Rule.ACCEPT, machine.refused[node.id]
    yield from _shortages(node.needs, machine.capacity, there)
    if machine.trouble:
        yield Rule.AWAY, machine.trouble


def _unknown(what: str, key: str) -> str:
    return f"its {what} not given: see `capacity.{key}` in the cluster file"


def _shortages(
    needs: Amounts, capacity: Amounts, there: Sequence[Requirements]
) -> Iterator[tuple[Rule, str]]:
    user = {device: other.id for other in there for device in other.needs.devices or ()}
    for device in needs.devices or ():
        if capacity.devices is None:
            yield Rule.DEVICES, _unknown("devices are", "devices")
        elif device not in capacity.devices:
            yield Rule.DEVICES, f"it has no `{device}`"
        elif device in user:
            yield Rule.DEVICES, f"`{user[device]}` uses its `{device}`"
    if needs.gpu:
        if capacity.gpu is None:
            yield Rule.GPU, _unknown("GPUs are", "gpu")
        else:
            free_gpus = capacity.gpu - sum(other.needs.gpu or 0 for other in there)
            if needs.gpu > free_gpus:
                noun = "GPU" if needs.gpu == 1 else "GPUs"
                yield Rule.GPU, f"{needs.gpu} {noun} needed, {max(0, free_gpus)} free"
    if needs.memory:
        if capacity.memory is None:
            yield Rule.MEMORY, _unknown("memory is", "memory")
        else:
            free = capacity.memory - sum(other.needs.memory or 0 for other in there)
            if needs.memory > free:
                yield Rule.MEMORY, f"{_size(needs.memory)} needed, {_size(max(0, free))} free"
    if needs.cpu:
        if capacity.cpu is None:
            yield Rule.CPU, _unknown("cores are", "cpu")
        else:
            cores = capacity.cpu - sum(other.needs.cpu or 0.0 for other in there)
            if needs.cpu > round(cores, _DIGITS):
                yield Rule.CPU, f"{needs.cpu:g} cores needed, {max(0.0, cores):g} free"


def _count(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"


def _size(count: int) -> str:
    """Return bytes in the units of dataflow files, of which GB is 1024 MB."""
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} B"
