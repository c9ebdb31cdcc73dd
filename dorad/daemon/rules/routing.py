"""Who gets the lines of a node as messages: `send_stdout_as`, `send_logs_as`, `dora/logs` inputs.

Decided by functions from data to data; the broker carries the messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dorad.dataflow.model import LogSource
from dorad.logs.filter import LogFilter
from dorad.logs.format import log_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorad.dataflow.model import Dataflow, NodeSpec
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

    raw: str | None = None
    """The output that sends every line, as text with its newline."""
    logs: str | None = None
    """The output that sends what `min_log_level` lets through, each as a JSON `LogMessage`."""
    watchers: tuple[Watcher, ...] = ()
    """Inputs that get the same, if it is grave enough for them."""

    def __bool__(self) -> bool:
        return bool(self.raw or self.logs or self.watchers)


def routes_of(dataflow: Dataflow) -> dict[str, Routes]:
    """Return where the lines of each node go, for the nodes whose lines go anywhere.

    A `dora/logs` input never gets the lines of its own node, whatever it asks for.
    """
    listening = [
        (Place(node.id, entry.id), entry.source)
        for node in dataflow.nodes
        for entry in node.all_inputs
        if isinstance(entry.source, LogSource)
    ]
    found = {node.id: _routes(node, listening) for node in dataflow.nodes}
    return {node: routes for node, routes in found.items() if routes}


def _routes(source: NodeSpec, listening: Iterable[tuple[Place, LogSource]]) -> Routes:
    watchers = tuple(
        Watcher(place, LogFilter(wanted.level) if wanted.level else LogFilter())
        for place, wanted in listening
        if place.node != source.id and wanted.node in (None, source.id)
    )
    return Routes(source.logging.send_stdout_as, source.logging.send_logs_as, watchers)


class Emitter(Protocol):
    """What the broker does with a message of the daemon's own."""

    def emit(self, node_id: str, input_id: str, text: str) -> None:
        """Put one string into an input."""

    def emit_output(self, node_id: str, output: str, text: str) -> None:
        """Send one string to all that receive an output."""

    def has_receivers(self, node_id: str, output: str) -> bool:
        """Return whether anything receives an output that the daemon feeds."""


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
        """Send each message that a batch of lines becomes, in the order of the lines.

        Whoever subscribes to an output while the dataflow runs gets them, too.
        """
        routes = self.routes.get(batch.node)
        if routes is None:
            return
        emitter, node = self.emitter, batch.node
        raw, logs = (
            output if output and emitter.has_receivers(node, output) else None
            for output in (routes.raw, routes.logs)
        )
        if raw:
            for line in batch.raw:
                emitter.emit_output(node, raw, line.decode("utf-8", "replace") + "\n")
        if not logs and not routes.watchers:
            return
        for record in batch.records:
            paths = [watcher.place for watcher in routes.watchers if watcher.level.passes(record)]
            if logs or paths:
                text = log_message(record, self.dataflow_id)
                if logs:
                    emitter.emit_output(node, logs, text)
                for place in paths:
                    emitter.emit(place.node, place.input, text)


def printed_outputs(node: NodeSpec) -> set[str]:
    """Return the outputs of a node that carry what it prints or logs: the daemon sends them."""
    found = {node.logging.send_stdout_as, node.logging.send_logs_as}
    for operator in node.operators:
        for output in (operator.logging.send_stdout_as, operator.logging.send_logs_as):
            found.add(output and f"{operator.id}/{output}")
    return {output for output in found if output}
