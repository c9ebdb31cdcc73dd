"""Run a dataflow in the foreground: its nodes' process holder, its live log, its signals."""

from __future__ import annotations

import contextlib
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from dorad.cli.interrupts import Interrupts, from_thread
from dorad.cli.launching import build_first, print_warnings, refuse_unsupported
from dorad.cli.live import LiveLog, writer
from dorad.cli.reporting import print_failures, print_line, print_note, print_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from dorad.daemon.broker.readings import EdgeCounters
    from dorad.daemon.run import DataflowRun
    from dorad.daemon.runmodel import Ended
    from dorad.dataflow.model import Dataflow
    from dorad.launch.command import LaunchContext
    from dorad.launch.holder.client import HolderClient
    from dorad.logs.filter import LogFilter
    from dorad.logs.format import Format


@contextlib.contextmanager
def early_holder() -> Iterator[HolderClient]:
    """Start the process holder in parallel to reading the dataflow. End it if the reading fails."""
    import asyncio

    from dorad.launch.holder.client import HolderClient

    holder = HolderClient.start()
    try:
        yield holder
    except BaseException:
        asyncio.run(holder.end())
        raise


def run_foreground(
    context: LaunchContext,
    holder: HolderClient,
    shown: LogFilter,
    log_format: Format,
    *,
    stop_after: float | None,
    finish_flag: bool | None,
    hot_reload: bool = False,
    beside: Callable[[DataflowRun], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
) -> Ended:
    """Run a dataflow with its live log and its signals; `beside` is entered meanwhile.

    Raises:
        click.ClickException: nothing can be started, or an environment variable is invalid.
        DataflowError: a node's program is missing or must not be run.
    """
    import asyncio

    from dorad import ownlog
    from dorad.daemon.broker.listener import own_socket
    from dorad.daemon.run import DataflowRun, new_dataflow_id
    from dorad.daemon.runmodel import RunOptions
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
            holder,
            own_socket(),
            watch=live.take,
            options=RunOptions(
                exit_when_nodes_finish=finish_flag, stop_after=stop_after, hot_reload=hot_reload
            ),
        )
    except (OSError, ValueError) as error:  # the runtime directory, or a variable's value
        raise click.ClickException(str(error)) from error

    try:
        return asyncio.run(_follow(run, holder, live, beside))
    except OSError as error:
        raise click.ClickException(str(error)) from error


async def _follow(
    run: DataflowRun,
    holder: HolderClient,
    live: LiveLog,
    beside: Callable[[DataflowRun], AbstractAsyncContextManager[None]],
) -> Ended:
    """Run a dataflow to its end, with its live log, and stop it at signals."""
    import asyncio
    import resource

    loop = asyncio.get_running_loop()
    Interrupts(run, lambda text: print_line("dora:", "cyan", text)).install(loop)
    live.on_broken = from_thread(loop, run.stop)
    with live:
        async with holder:
            # After the holder has started: nodes must not inherit the raised limit.
            _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            async with beside(run):
                ended = await run.run()
            if holder.died:
                run.log.report("error", None, "the process holder ended, and every node with it")
    if live.stuck:
        print_warning("the last log lines were not read and are lost")
    return ended


def run_dataflow(
    dataflow: Dataflow,
    holder: HolderClient,
    shown: LogFilter,
    log_format: Format = "pretty",
    *,
    uv: bool,
    allow_shell: bool,
    env: Mapping[str, str],
    strict: bool = False,
    stop_after: float | None = None,
    finish_flag: bool | None,
    hot_reload: bool = False,
    secrets: Path | None = None,
    beside: Callable[[DataflowRun], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
) -> Ended:
    """Check a dataflow, build it and run it, as `dora run` does. Raises as `run_foreground`."""
    from dorad.launch.command import LaunchContext
    from dorad.launch.secrets import find_secret, own_secrets

    refuse_unsupported(dataflow, strict=strict)
    print_warnings(dataflow)
    build_first(dataflow, uv=uv, env=env)
    folder = own_secrets() if secrets is None else secrets.absolute()
    context = LaunchContext(
        dataflow,
        os.environ,
        env,
        uv=uv,
        allow_shell=allow_shell,
        parent_pid=os.getpid(),
        secret=lambda name: find_secret(name, (folder,)),
    )
    return run_foreground(
        context,
        holder,
        shown,
        log_format,
        stop_after=stop_after,
        finish_flag=finish_flag,
        hot_reload=hot_reload,
        beside=beside,
    )


def report_result(ended: Ended, *, verbose: bool) -> None:
    """Report failures, dropped messages and, at a terminal, the success."""
    for note in drop_notes(ended.edges, every=verbose):
        print_note(note)
    if ended.ok:
        if sys.stderr.isatty():
            nodes = "node" if len(ended.results) == 1 else "nodes"
            print_line(
                "finished:", "green", f"{len(ended.results)} {nodes} ok, {ended.seconds:.1f} s"
            )
        return
    from dorad.daemon.rules.report import failure_report

    print_failures(failure_report(ended.results))


def drop_notes(edges: Iterable[EdgeCounters], *, every: bool) -> Iterator[str]:
    """Yield a line for each edge that dropped messages or delivered unreadable ones.

    Drops are expected on inputs with `queue_size` 1 or a maximum rate. They are left out unless
    `every` is set.
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
