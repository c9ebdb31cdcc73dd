"""`dora logs`: what the nodes of a dataflow have printed, and what they print from now on."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from dorad.cli.complete import dataflow_names_and_uuids, node_names
from dorad.cli.durations import Duration
from dorad.cli.session import tell
from dorad.cli.tables import colours

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.cli.logsources import Block
    from dorad.logs.format import Format

EPILOG = """\b
Examples:
  dora logs                            everything of the dataflow that runs
  dora logs robot -n camera -f         what one node prints, and goes on printing
  dora logs robot --level warn --since 10m
  dora logs --local --grep timeout     from the files in ./out, without a daemon

\b
Without a daemon, or for a dataflow that it does not know, lines come from the log files in
./out/<uuid>, else from what the machine's daemon has written (on a robot, the journal); of several
runs the newest is shown. Lines without a severity count as `info` on
stdout and as `warn` on stderr. With -f it ends with the dataflow, or with Ctrl-C.
"""


def _dataflows(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete what the daemon knows, and the runs that have files in ./out."""
    from dorad.cli.logsources import runs_here

    known = dataflow_names_and_uuids(ctx, param, incomplete)
    values = {item.value for item in known}
    here = [name for name in runs_here() if name.startswith(incomplete) and name not in values]
    return known + [CompletionItem(name, help="in ./out") for name in here]


def _nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the nodes of the dataflow that stands before, else of its files in ./out."""
    from dorad.cli.logsources import find_here
    from dorad.logs.find import NoLogsError

    known = node_names(ctx, param, incomplete)
    if known:
        return known
    try:
        nodes = find_here(ctx.params.get("dataflow")).nodes
    except NoLogsError:
        return []
    return [CompletionItem(node) for node in nodes if node.startswith(incomplete)]


@click.command(epilog=EPILOG)
@click.argument("dataflow", metavar="[UUID|NAME]", required=False, shell_complete=_dataflows)
@click.argument("extra", metavar="", nargs=-1)
@click.option(
    "-n",
    "--node",
    "nodes",
    multiple=True,
    metavar="NODE",
    shell_complete=_nodes,
    help="Only this node; may be repeated. `dora` is the daemon.",
)
@click.option("--all-nodes", is_flag=True, help="All nodes, by time; the same as no --node.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on.")
@click.option("--local", is_flag=True, help="Read files or journal, daemon or not.")
@click.option("--since", type=Duration(), metavar="DURATION", help="Lines of the last 10m, 1h30m.")
@click.option("--until", type=Duration(), metavar="DURATION", help="Lines older than that.")
@click.option("--level", metavar="LEVEL", envvar="DORA_LOG_LEVEL", help="Least severity to show.")
@click.option(
    "--log-format",
    type=click.Choice(["pretty", "json", "compact"]),
    default="pretty",
    envvar="DORA_LOG_FORMAT",
    help="How log lines look.",
)
@click.option(
    "--log-filter",
    metavar="NODE=LEVEL,...",
    envvar="DORA_LOG_FILTER",
    help="Least severity by node.",
)
@click.option("--grep", metavar="TEXT", help="Lines with this text, in any case.")
def logs(
    dataflow: str | None,
    extra: tuple[str, ...],
    *,
    nodes: tuple[str, ...],
    all_nodes: bool,
    tail: int | None,
    follow: bool,
    local: bool,
    since: float | None,
    until: float | None,
    level: str | None,
    log_format: Format,
    log_filter: str | None,
    grep: str | None,
) -> None:
    """Show what the nodes of a dataflow have printed, by its UUID or name.

    Without one it is the only one that runs, or the one that ended last.
    """
    from dorad.cli.logsources import Wanted, blocks
    from dorad.logs.filter import parse_filter

    if extra:
        named = " ".join(f"-n {shlex.quote(node)}" for node in extra)
        raise click.UsageError(
            f"one dataflow is enough; nodes are named with -n: `dora logs {dataflow} {named}`"
        )
    if nodes and all_nodes:
        raise click.UsageError("give either --node or --all-nodes")
    if follow and until is not None:
        raise click.UsageError("--until and --follow exclude each other")
    try:
        shown = parse_filter(level, log_filter)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    now = time.time()
    wanted = Wanted(
        dataflow=dataflow,
        nodes=nodes,
        shown=shown,
        tail=tail,
        since=None if since is None else now - since,
        until=None if until is None else now - until,
        grep=grep,
        follow=follow,
    )
    # The usual way to end it; an exception would meet the client's threads at any place.
    signal.signal(signal.SIGINT, _end_at_once)
    _show(blocks(wanted, local=local), log_format)


def _end_at_once(*_: object) -> None:
    with contextlib.suppress(RuntimeError, OSError):  # it came in the middle of writing
        sys.stdout.flush()
    os._exit(0)


def _show(found: Iterable[Block], log_format: Format) -> None:
    from dorad.logs.format import formatter

    line = None
    for block in found:
        if line is None:
            line = formatter(
                log_format,
                dataflow_id=block.dataflow_id,
                nodes=block.nodes,
                color=colours(),
            )
        sys.stdout.write("".join(f"{line(record)}\n" for record in block.records))
        sys.stdout.flush()
        if block.left_out:
            tell("note:", "cyan", f"{block.left_out} lines are left out: they were read too slowly")
