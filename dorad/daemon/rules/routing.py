"""Routing log lines of nodes to inputs: `send_stdout_as`, `send_logs_as`, `dora/logs` inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import Struct, field

from dorad.dataflow.model import Dataflow, LogSource, NodeSpec
from dorad.logs.filter import LogFilter
from dorad.logs.format import log_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dorad.logs.nodelog import Batch


class InputRef(NamedTuple):
    """An input of a node."""

    node: str
    input: str


class LogInput(NamedTuple):
    """A `dora/logs` input and the lines it receives."""

    target: InputRef
    level: LogFilter


class Routes(Struct, frozen=True):
    """The destinations of the lines of one node."""

    raw: str | None = None
    """The output that sends every line, as text with its newline."""
    logs: str | None = None
    """The output that sends each line that passes `min_log_level`, as a JSON `LogMessage`."""
    log_inputs: tuple[LogInput, ...] = ()
    """The `dora/logs` inputs that get the same messages, from their own level on."""

    def __bool__(self) -> bool:
        return bool(self.raw or self.logs or self.log_inputs)


def routes_of(dataflow: Dataflow) -> dict[str, Routes]:
    """Return the routes of each node that has any.

    A `dora/logs` input never gets the lines of its own node.
    """
    listening = [
        (InputRef(node.id, entry.id), entry.source)
        for node in dataflow.nodes
        for entry in node.all_inputs
        if isinstance(entry.source, LogSource)
    ]
    all_routes = {node.id: _routes(node, listening) for node in dataflow.nodes}
    return {node: routes for node, routes in all_routes.items() if routes}


def _routes(source: NodeSpec, listening: Iterable[tuple[InputRef, LogSource]]) -> Routes:
    log_inputs = tuple(
        LogInput(target, LogFilter(wanted.level) if wanted.level else LogFilter())
        for target, wanted in listening
        if target.node != source.id and wanted.node in (None, source.id)
    )
    return Routes(source.logging.send_stdout_as, source.logging.send_logs_as, log_inputs)


class Emitter(Protocol):
    """Sends messages of the daemon; the broker does."""

    def emit(self, node_id: str, input_id: str, text: str) -> None:
        """Send one string to one input."""

    def emit_output(self, node_id: str, output: str, text: str) -> None:
        """Send one string to all subscribers of an output."""

    def has_receivers(self, node_id: str, output: str) -> bool:
        """Return True if an output that the daemon feeds has a subscriber."""


class Router(Struct):
    """Sends the lines of a dataflow's nodes to the inputs that select them."""

    dataflow_id: str
    emitter: Emitter
    routes: Mapping[str, Routes] = field(default_factory=dict)

    def update(self, dataflow: Dataflow) -> None:
        """Use the routes of this dataflow from now on."""
        self.routes = routes_of(dataflow)

    def route(self, batch: Batch) -> None:
        """Send a batch of lines as messages, in the order of the lines.

        Observers and inputs that were connected while the dataflow runs get them too.
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
        for record in batch.records:
            targets = [each.target for each in routes.log_inputs if each.level.passes(record)]
            if logs or targets:
                text = log_message(record, self.dataflow_id)
                if logs:
                    emitter.emit_output(node, logs, text)
                for target in targets:
                    emitter.emit(target.node, target.input, text)


def printed_outputs(node: NodeSpec) -> set[str]:
    """Return the outputs that carry a node's printed or logged lines; the daemon sends these.

    What one of its operators prints is printed by the node.
    """
    outputs = (node.logging.send_stdout_as, node.logging.send_logs_as)
    return {output for output in outputs if output}
