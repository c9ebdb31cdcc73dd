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


def dataflow_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete names of running dataflows, UUIDs of those without a name."""
    del param
    return _matching(ctx, incomplete, _dataflows)


def dataflow_names_and_uuids(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete names and UUIDs of all listed dataflows, including ended ones."""
    del param
    return _matching(ctx, incomplete, _all_dataflows)


def node_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the nodes of the dataflow chosen with `-d`, or of all dataflows."""
    del param
    return _matching(ctx, incomplete, _nodes)


def machine_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the machines of the dataflow that is given, else those on which nodes run."""
    del param
    return _matching(ctx, incomplete, _machines)


def topic_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete outputs as `node/output`."""
    del param
    return _matching(ctx, incomplete, _topics)


def input_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the connected inputs of running nodes as `node/input`."""
    del param
    return _matching(ctx, incomplete, _inputs)


def param_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the parameters of the node given as the previous argument."""
    del param
    return _matching(ctx, incomplete, _params)


def _matching(
    ctx: click.Context,
    incomplete: str,
    query: Callable[[Client, click.Context], Iterable[CompletionItem]],
) -> list[CompletionItem]:
    from dorad.control.client import Client

    return matching(
        incomplete, lambda: Client(timeout=DEADLINE_S), lambda client: query(client, ctx)
    )


def matching(
    incomplete: str,
    connect: Callable[[], Client],
    query: Callable[[Client], Iterable[CompletionItem]],
) -> list[CompletionItem]:
    """Return the server's completions. A thread requests them, so that the wait is bounded."""
    found: list[CompletionItem] = []
    thread = threading.Thread(target=lambda: found.extend(_answer(connect, query)), daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    return [item for item in found if item.value.startswith(incomplete)]


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


def _dataflows(client: Client, _: click.Context) -> Iterator[CompletionItem]:
    return running_dataflows(client)


def _all_dataflows(client: Client, _: click.Context) -> Iterator[CompletionItem]:
    for info in client.list():
        yield CompletionItem(info.uuid, help=f"{info.name or 'no name'}, {info.status}")
    yield from running_dataflows(client)


def _nodes(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    for info in client.nodes(ctx.params.get("dataflow")):
        yield CompletionItem(info.node, help=info.dataflow_name or info.dataflow)


def _machines(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    given = ctx.params.get("dataflow")
    if given is not None:
        machines = set(client.info(given).placement.values())
    else:
        machines = {info.machine for info in client.nodes() if info.machine}
    for machine in sorted(machines, key=natural):
        yield CompletionItem(machine)


def _topics(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    for topic in client.topics(ctx.params.get("dataflow")).topics:
        yield CompletionItem(f"{topic.node}/{topic.output}")


def _inputs(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    for topic in client.topics(ctx.params.get("dataflow")).topics:
        for target in topic.subscribers:
            yield CompletionItem(f"{target.node}/{target.input}")


def _params(client: Client, ctx: click.Context) -> Iterator[CompletionItem]:
    node = ctx.params.get("node")
    if node is not None:
        for found in client.params(node, dataflow=ctx.params.get("dataflow")):
            yield CompletionItem(found.key, help=found.description)
