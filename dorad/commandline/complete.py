"""Completions from the running daemon: dataflows, nodes, topics, parameters.

The shell waits for the answer, so it is empty if the daemon does not answer quickly. Errors are not
printed.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from dorad.natural import natural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import click

    from dorad.control.client import Client

DEADLINE_S = 0.5
"""Maximum seconds that the shell waits."""


def matching(
    incomplete: str,
    connect: Callable[[], Client],
    query: Callable[[Client], Iterable[CompletionItem]],
) -> list[CompletionItem]:
    """Return the server's completions. A thread requests them, so that the wait is bounded."""
    items: list[CompletionItem] = []
    thread = threading.Thread(target=lambda: items.extend(_answer(connect, query)), daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    return [item for item in items if item.value.startswith(incomplete)]


def _answer(
    connect: Callable[[], Client], query: Callable[[Client], Iterable[CompletionItem]]
) -> list[CompletionItem]:
    from dorad.problems import ProblemError

    # A shell that completes a word has no place for an error.
    with contextlib.suppress(ProblemError, OSError):
        with connect() as client:
            return list(query(client))
    return []


def running_dataflows(client: Client) -> Iterator[CompletionItem]:
    """Yield the names of running dataflows, UUIDs of those without a name."""
    for info in client.list():
        if info.active:
            yield CompletionItem(info.name or info.uuid, help=info.status)


def _completer(
    query: Callable[[Client, click.Context], Iterable[CompletionItem]],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return a function for click's `shell_complete` from one that asks the daemon."""

    def complete(
        ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from dorad.control.client import Client

        return matching(
            incomplete, lambda: Client(timeout=DEADLINE_S), lambda client: query(client, ctx)
        )

    return complete


@_completer
def dataflow_names(client: Client, _: click.Context) -> Iterator[CompletionItem]:
    """Complete names of running dataflows, UUIDs of those without a name."""
    return running_dataflows(client)


@_completer
def dataflow_names_and_uuids(client: Client, _: click.Context) -> Iterator[CompletionItem]:
    """Complete names and UUIDs of all listed dataflows, including ended ones."""
    for info in client.list():
        yield CompletionItem(info.uuid, help=f"{info.name or 'no name'}, {info.status}")
    yield from running_dataflows(client)


@_completer
def node_names(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    """Complete the nodes of the dataflow chosen with `-d`, or of all dataflows."""
    for info in client.nodes(ctx.params.get("dataflow")):
        yield CompletionItem(info.node, help=info.dataflow_name or info.dataflow)


@_completer
def machine_names(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    """Complete the machines of the dataflow that is given, else those on which nodes run."""
    given = ctx.params.get("dataflow")
    if given is not None:
        machines = set(client.info(given).placement.values())
    else:
        machines = {info.machine for info in client.nodes() if info.machine}
    for machine in sorted(machines, key=natural):
        yield CompletionItem(machine)


@_completer
def topic_names(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    """Complete outputs as `node/output`."""
    for topic in client.topics(ctx.params.get("dataflow")).topics:
        yield CompletionItem(f"{topic.node}/{topic.output}")


@_completer
def trace_ids(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    """Complete the ids of the traces that were kept last."""
    for trace in client.traces(ctx.params.get("dataflow"), limit=50).traces:
        yield CompletionItem(trace.id[:8], help=f"{trace.path}, {trace.duration * 1e3:.1f} ms")


@_completer
def input_names(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    """Complete the connected inputs of running nodes as `node/input`."""
    for topic in client.topics(ctx.params.get("dataflow")).topics:
        for target in topic.subscribers:
            yield CompletionItem(f"{target.node}/{target.input}")


@_completer
def param_names(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    """Complete the parameters of the node given as the previous argument."""
    node = ctx.params.get("node")
    if node is not None:
        for param in client.params(node, dataflow=ctx.params.get("dataflow")):
            yield CompletionItem(param.key, help=param.description)
