"""One run at a terminal: its guard, its live log, its signals, and the report at its end."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Protocol

import click

from dorad.cli.interrupts import Interrupts
from dorad.cli.live import LiveLog, writer
from dorad.terminal import visible

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dorad.daemon.broker.stats import EdgeCounters
    from dorad.daemon.run import Ended
    from dorad.launch.client import Guard
    from dorad.launch.command import LaunchContext
    from dorad.logs.filter import LogFilter
    from dorad.logs.format import Format


class Failure(Protocol):
    """One root cause of a dataflow's failure."""

    @property
    def headline(self) -> str:
        """What happened to which node."""

    @property
    def lines(self) -> Sequence[str]:
        """The interesting part of what the node wrote to stderr."""


@contextlib.contextmanager
def early_guard() -> Iterator[Guard]:
    """Start the guard process, so that it is ready when the dataflow is read; end it if unused."""
    import asyncio

    from dorad.launch.client import Guard

    guard = Guard.start()
    try:
        yield guard
    except BaseException:
        asyncio.run(guard.close())
        raise


def run_session(
    context: LaunchContext,
    guard: Guard,
    shown: LogFilter,
    log_format: Format,
    *,
    stop_after: float | None,
    finish_flag: bool | None,
    hot_reload: bool = False,
) -> Ended:
    """Run a dataflow with its live log and its signals.

    Raises:
        click.ClickException: nothing can be started, or the environment holds nonsense.
        DataflowError: a node's program is missing, or it may not be run.
    """
    import asyncio
    import resource

    from dorad.daemon import ownlog
    from dorad.daemon.broker.listener import own_socket
    from dorad.daemon.run import DataflowRun, new_dataflow_id
    from dorad.logs.format import formatter

    try:
        if level := ownlog.level_of(os.environ):
            ownlog.setup(level)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    dataflow_id = new_dataflow_id()
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    nodes = [node.id for node in context.dataflow.nodes]
    line = formatter(log_format, dataflow_id=dataflow_id, nodes=nodes, color=color)
    live = LiveLog(writer(sys.stdout), line, shown, quiet="DORA_QUIET" in os.environ)
    try:
        run = DataflowRun(
            dataflow_id,
            context,
            guard,
            own_socket(),
            watch=live.take,
            exit_when_nodes_finish=finish_flag,
            stop_after=stop_after,
            hot_reload=hot_reload,
        )
    except (OSError, ValueError) as error:  # the runtime directory, or a variable's value
        raise click.ClickException(str(error)) from error

    async def main() -> Ended:
        loop = asyncio.get_running_loop()
        Interrupts(run, lambda text: tell("dora:", "cyan", text)).install(loop)
        live.on_broken = from_thread(loop, run.stop)
        with live:
            async with guard:
                # Only now, because what the guard starts gets the guard's limit.
                _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
                ended = await run.run()
                if guard.died:
                    run.log.say("error", None, "the guard process ended, and every node with it")
        if live.stuck:
            tell("warning:", "yellow", "the last log lines were not read; they are lost")
        return ended

    try:
        return asyncio.run(main())
    except OSError as error:
        raise click.ClickException(str(error)) from error


def from_thread(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Callable[[], None]:
    """Return a function that any thread may call to stop a run in `loop`."""

    def call() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nothing is left to stop
            loop.call_soon_threadsafe(stop)

    return call


def report(ended: Ended, *, verbose: bool) -> None:
    """Tell what failed, what was dropped and, at a terminal, that it is over."""
    for note in drop_notes(ended.edges, every=verbose):
        tell("note:", "cyan", note)
    if ended.ok:
        if sys.stderr.isatty():
            nodes = "node" if len(ended.results) == 1 else "nodes"
            tell("finished:", "green", f"{len(ended.results)} {nodes} ok, {ended.seconds:.1f} s")
        return
    from dorad.daemon.rules.report import failure_report

    tell_failures(failure_report(ended.results))


def tell_failures(failures: Iterable[Failure]) -> None:
    """Tell why a dataflow failed, each root cause with what the node said."""
    for failure in failures:
        tell("error:", "red", failure.headline)
        for line in failure.lines:
            click.echo(f"    {visible(line)}", err=True)


def drop_notes(edges: Iterable[EdgeCounters], *, every: bool) -> Iterator[str]:
    """Yield a line for each edge that dropped messages, or brought unreadable ones.

    An input of one place asks for the newest message only, and one with a rate for few, so their
    drops are news to nobody; they are left out unless `every` edge is wanted.
    """
    for edge in edges:
        way = f"{edge.source_node}/{edge.output} -> {edge.node}/{edge.input}"
        if edge.unreadable:
            yield f"{edge.unreadable} of {edge.received} messages on {way} could not be read"
        if edge.dropped and (every or (edge.queue_size > 1 and not edge.limited)):
            yield (
                f"{edge.dropped} of {edge.sent} messages dropped on {way}"
                f" (queue_size {edge.queue_size})"
            )


def tell(head: str, colour: str, text: str) -> None:
    """Write one line to stderr; control characters in `text` are shown, not sent."""
    click.echo(f"{click.style(head, fg=colour, bold=True)} {visible(text)}", err=True)
