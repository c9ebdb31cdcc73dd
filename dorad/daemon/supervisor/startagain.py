"""Starting a node that has ended again, with its edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.daemon.errors import CommandError
from dorad.dataflow.model import NodeOutput

if TYPE_CHECKING:
    from dorad.daemon.supervisor.noderun import NodeRun
    from dorad.daemon.supervisor.noderunner import NodeRunner
    from dorad.daemon.supervisor.state import SupervisorState
    from dorad.dataflow.model import Input


async def start_again(state: SupervisorState, runner: NodeRunner, run: NodeRun) -> None:
    """Start a node that has ended, and open its inputs and those that it feeds.

    The link opens those on other machines.

    Raises:
        CommandError: the node would receive nothing, a queue cannot be created, or the node ends
            before it was started.
    """
    name, lifecycle = run.node.id, state.lifecycle
    if not lifecycle.may_start_again(name):
        raise CommandError("refused", f"node {name} is not restarted: all its inputs have closed")
    edges = _edges_of(state, name)
    _reopen(state, name, edges)
    state.results[:] = [result for result in state.results if result.node != name]
    run.begin_again()
    state.broker.reopen(name)
    state.broker.restarting(name, run.restarts)
    state.carry_out(lifecycle.started_again(name))
    for consumer in dict.fromkeys(each for each, _ in edges if each != name):
        state.broker.notifications.node_restarted(consumer, name, had_ended=True)
    starts = run.starts
    runner.start(run)
    await state.bell.until(lambda: run.starts > starts or run.result is not None)
    if run.starts == starts and run.result is not None:
        raise CommandError("refused", f"node {name} was not restarted: it {run.result.reason}")


def _edges_of(state: SupervisorState, name: str) -> list[tuple[str, Input]]:
    """Return the edges of a node that has ended: its own inputs, and those that it feeds.

    Without those of other nodes that have ended.
    """
    return [
        (node.id, entry)
        for node in state.lifecycle.dataflow.nodes
        if node.id == name or state.nodes[node.id].result is None
        for entry in node.all_inputs
        if isinstance(entry.source, NodeOutput) and name in (node.id, entry.source.node)
    ]


def _reopen(state: SupervisorState, name: str, edges: list[tuple[str, Input]]) -> None:
    """Replace edges by new ones: both ends know them as closed."""
    topology = state.broker.topology
    for consumer, entry in edges:
        topology.remove_edge(consumer, entry.id)
        try:
            topology.add_edge(consumer, entry)
        except OSError as error:
            _leave_closed(state, name, edges)
            raise CommandError(
                "refused", f"input {consumer}/{entry.id} cannot be opened again: {error}"
            ) from error


def _leave_closed(state: SupervisorState, name: str, edges: list[tuple[str, Input]]) -> None:
    """Keep the inputs that an ended node feeds, and keep them closed."""
    # An input without a queue is still one of the dataflow: the next command gives it one.
    state.broker.topology.update(state.lifecycle.dataflow)
    for consumer, entry in edges:
        if consumer != name:
            state.broker.notifications.close_input(consumer, entry.id)
