"""Who gets the lines of a node as messages: `send_stdout_as`, `send_logs_as`, `dora/logs` inputs.

Decided by functions from data to data; the broker carries the messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dorad.dataflow.model import LogSource, NodeOutput
from dorad.logs.filter import LogFilter
from dorad.logs.format import log_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dorad.dataflow.model import Dataflow, Node
    from dorad.logs.nodelog import Batch


class Place(NamedTuple):
    """An input of a node."""

    node: str
    input: str


class Watcher(NamedTuple):
    """A `dora/logs` input, and what passes it."""

    place: Place
    level: LogFilter


@dataclass(frozen=True, slots=True)
class Routes:
    """Where the lines of one node go."""

    raw: tuple[Place, ...] = ()
    """Every line, as text with its newline."""
    logs: tuple[Place, ...] = ()
    """Every line that `min_log_level` lets through, as a JSON `LogMessage`."""
    watchers: tuple[Watcher, ...] = ()
    """The same, if it is grave enough for the input."""

    def __bool__(self) -> bool:
        return bool(self.raw or self.logs or self.watchers)


def routes_of(dataflow: Dataflow) -> dict[str, Routes]:
    """Return where the lines of each node go, for the nodes whose lines go anywhere.

    A `dora/logs` input never gets the lines of its own node, whatever it asks for.
    """
    outputs = {
        (node.id, output)
        for node in dataflow.nodes
        for output in (node.logging.send_stdout_as, node.logging.send_logs_as)
    }
    listening = [
        (Place(node.id, entry.id), entry.source)
        for node in dataflow.nodes
        for entry in node.all_inputs
        if isinstance(entry.source, LogSource)
        or (
            isinstance(entry.source, NodeOutput)
            and (entry.source.node, entry.source.output) in outputs
        )
    ]
    found = {node.id: _routes(node, listening) for node in dataflow.nodes}
    return {node: routes for node, routes in found.items() if routes}


def _routes(source: Node, listening: Iterable[tuple[Place, object]]) -> Routes:
    raw: list[Place] = []
    logs: list[Place] = []
    watchers: list[Watcher] = []
    for place, origin in listening:
        match origin:
            case NodeOutput(source.id, output):
                if output == source.logging.send_stdout_as:
                    raw.append(place)
                if output == source.logging.send_logs_as:
                    logs.append(place)
            case LogSource(level, wanted):
                if place.node != source.id and wanted in (None, source.id):
                    watchers.append(Watcher(place, LogFilter(level) if level else LogFilter()))
    return Routes(tuple(raw), tuple(logs), tuple(watchers))


def deliveries(routes: Routes, batch: Batch, dataflow_id: str) -> Iterator[tuple[Place, str]]:
    """Yield each message that a batch of lines becomes, in the order of the lines."""
    if routes.raw:
        for line in batch.raw:
            text = line.decode("utf-8", "replace") + "\n"
            for place in routes.raw:
                yield place, text
    if not routes.logs and not routes.watchers:
        return
    for record in batch.records:
        places = [*routes.logs, *(w.place for w in routes.watchers if w.level.passes(record))]
        if places:
            text = log_message(record, dataflow_id)
            for place in places:
                yield place, text


class Emitter(Protocol):
    """What the broker does with a message of the daemon's own."""

    def emit(self, node_id: str, input_id: str, text: str) -> None:
        """Put one string into an input."""


@dataclass(slots=True)
class Router:
    """Sends the lines of a dataflow's nodes where they go."""

    dataflow_id: str
    emitter: Emitter
    routes: Mapping[str, Routes] = field(default_factory=dict)

    def update(self, dataflow: Dataflow) -> None:
        """Go by this description of the dataflow from now on."""
        self.routes = routes_of(dataflow)

    def route(self, batch: Batch) -> None:
        """Send what a batch of lines becomes."""
        routes = self.routes.get(batch.node)
        if routes is not None:
            for place, text in deliveries(routes, batch, self.dataflow_id):
                self.emitter.emit(place.node, place.input, text)


def printed_outputs(node: Node) -> set[str]:
    """Return the outputs of a node that carry what it prints or logs: the daemon sends them."""
    found = {node.logging.send_stdout_as, node.logging.send_logs_as}
    for operator in node.operators:
        for output in (operator.logging.send_stdout_as, operator.logging.send_logs_as):
            found.add(output and f"{operator.id}/{output}")
    return {output for output in found if output}
