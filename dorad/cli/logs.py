"""`dora logs`: show and follow the output of nodes."""

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

from dorad.cli.options import log_filter_option, log_format_option, log_level_option, shown_lines
from dorad.cli.select import machine_option
from dorad.commandline.complete import dataflow_names_and_uuids, node_names
from dorad.commandline.durations import Duration
from dorad.commandline.reports import print_note
from dorad.commandline.tables import colours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dorad.cli.logsources import Block
    from dorad.logrecord import LogRecord
    from dorad.logs.format import Format

EPILOG = """\b
Examples:
  dora logs                            all lines of the running dataflow
  dora logs robot -n camera -f         the lines of one node, followed
  dora logs robot --level warn --since 10m
  dora logs --filter 'node=camera !frame since<5m'
  dora logs --local --grep timeout     from the files in ./out, without a daemon
  dora logs robot --machine arm1 -f    of a fleet: the lines of one machine, followed

\b
Without a daemon, or for a dataflow that it does not know, lines come from the newest run in
./out/<uuid>, else from the logs of the machine's daemon (on a robot, the journal). Lines without a
severity count as `info` on stdout and as `warn` on stderr. -f ends with the dataflow, or with
Ctrl-C.
"""


def _dataflows(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the dataflows of the daemon, and the runs with files in ./out."""
    from dorad.cli.logsources import runs_here

    known = dataflow_names_and_uuids(ctx, param, incomplete)
    values = {item.value for item in known}
    here = [name for name in runs_here() if name.startswith(incomplete) and name not in values]
    return known + [CompletionItem(name, help="in ./out") for name in here]


def _nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the nodes of the dataflow given before, else of its files in ./out."""
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


class LogsCommand(click.Command):
    """Knows its dataflow while a shell completes the value of an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what stands before an option without a value; click would parse nothing."""
        if ctx.resilient_parsing and args and args[-1].startswith("-"):
            args = args[:-1]
        return super().parse_args(ctx, args)


@click.command(cls=LogsCommand, epilog=EPILOG)
@click.argument("dataflow", metavar="[UUID|NAME]", required=False, shell_complete=_dataflows)
@click.argument("extra", metavar="", nargs=-1)
@click.option(
    "-n",
    "--node",
    "nodes",
    multiple=True,
    metavar="NODE",
    shell_complete=_nodes,
    help="Only this node; may be repeated. `dora` means the daemon.",
)
@click.option("--all-nodes", is_flag=True, help="All nodes, sorted by time (the default).")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("-f", "--follow", is_flag=True, help="Follow new lines.")
@machine_option
@click.option("--local", is_flag=True, help="Read files or the journal without asking the daemon.")
@click.option(
    "--since",
    type=Duration(),
    metavar="DURATION",
    help="Only lines newer than 10m, 1h30m.",
)
@click.option("--until", type=Duration(), metavar="DURATION", help="Only lines older than this.")
@log_level_option("--level")
@log_format_option
@log_filter_option
@click.option("--grep", metavar="TEXT", help="Only lines with this text, ignoring case.")
@click.option(
    "--filter",
    "terms",
    metavar="TERMS",
    default="",
    help="Only lines that match, such as 'level=error !timeout node~^cam'.",
)
def logs(
    dataflow: str | None,
    extra: tuple[str, ...],
    *,
    nodes: tuple[str, ...],
    all_nodes: bool,
    tail: int | None,
    follow: bool,
    machine: str | None,
    local: bool,
    since: float | None,
    until: float | None,
    level: str | None,
    log_format: Format,
    log_filter: str | None,
    grep: str | None,
    terms: str,
) -> None:
    """Show the log lines of a dataflow, given by UUID or name.

    The default is the only running dataflow, or the one that ended last.
    """
    from dorad.cli.logsources import LineQuery, blocks

    if extra:
        named = " ".join(f"-n {shlex.quote(node)}" for node in extra)
        raise click.UsageError(
            f"give one dataflow; nodes are given with -n: `dora logs {dataflow} {named}`"
        )
    if nodes and all_nodes:
        raise click.UsageError("give either --node or --all-nodes")
    if follow and until is not None:
        raise click.UsageError("--until and --follow cannot be combined")
    if machine is not None and local:
        raise click.UsageError("--machine needs a coordinator; it does not go with --local")
    if terms and tail is not None and follow:
        raise click.UsageError("--filter, --tail and --follow cannot be combined")
    shown = shown_lines(level, log_filter)
    matching = _matching(terms)
    now = time.time()
    wanted = LineQuery(
        dataflow=dataflow,
        nodes=nodes,
        shown=shown,
        tail=None if terms else tail,
        since=None if since is None else now - since,
        until=None if until is None else now - until,
        grep=grep,
        follow=follow,
        machine=machine,
    )
    # The usual way to end it. KeyboardInterrupt could interrupt the client at any point.
    signal.signal(signal.SIGINT, _end_at_once)
    lines = blocks(wanted, local=local)
    if terms:
        lines = _filtered(lines, matching, tail)
    _show(lines, log_format)


def _matching(terms: str) -> Callable[[LogRecord], bool]:
    """Return whether a line matches these terms. Raises click.UsageError."""
    from dorad.control.filters import parse
    from dorad.logrecord import FILTER_KEYS, filter_cells

    try:
        wanted = parse(terms, FILTER_KEYS)
    except ValueError as error:
        raise click.UsageError(f"--filter: {error}") from None
    return lambda record: wanted.matches(filter_cells(record, time.time()))


def _filtered(
    lines: Iterable[Block], matches: Callable[[LogRecord], bool], tail: int | None
) -> Iterator[Block]:
    """Yield the lines that match; with `tail`, only the last ones, once all are read."""
    from collections import deque

    kept: deque[LogRecord] = deque(maxlen=tail)
    last: Block | None = None
    for block in lines:
        records = [record for record in block.records if matches(record)]
        last = block
        if tail is None:
            yield block._replace(records=records)
        else:
            kept.extend(records)
    if tail is not None and last is not None:
        yield last._replace(records=list(kept))


def _end_at_once(*_: object) -> None:
    with contextlib.suppress(RuntimeError, OSError):  # the signal interrupted a write
        sys.stdout.flush()
    os._exit(0)


def _show(all_blocks: Iterable[Block], log_format: Format) -> None:
    from dorad.logs.format import formatter

    line = None
    for block in all_blocks:
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
            print_note(
                f"{block.left_out} lines left out: they are too long, or were read too slowly"
            )
