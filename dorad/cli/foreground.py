"""Run a dataflow in the foreground: its nodes' process holder, its live log, its signals."""

from __future__ import annotations

import contextlib
import os
import sys
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

import click

from dorad.cli.interrupts import Interrupts, from_thread
from dorad.cli.live import LiveLog, writer
from dorad.cli.startsteps import build_first
from dorad.commandline.files import print_warnings, refuse_unsupported
from dorad.commandline.reports import print_failures, print_line, print_note, print_warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from dorad.cli.options import Launch
    from dorad.cli.runtelemetry import RunTelemetry
    from dorad.daemon.broker.readings import EdgeCounters
    from dorad.daemon.run import DataflowRun, Ended
    from dorad.dataflow.model import Dataflow
    from dorad.launch.command import LaunchContext
    from dorad.launch.holder.client import HolderClient
    from dorad.logrecord import LogRecord
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
    stepped: bool = False,
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
    telemetry = _telemetry(dataflow_id, context.dataflow.path.stem)

    def watch(records: Sequence[LogRecord]) -> None:
        live.take(records)
        if telemetry is not None:
            telemetry.take(records)

    try:
        run = DataflowRun(
            dataflow_id,
            context,
            holder,
            own_socket(),
            watch=watch,
            options=RunOptions(
                exit_when_nodes_finish=finish_flag,
                stop_after=stop_after,
                hot_reload=hot_reload,
                stepped=stepped,
            ),
        )
    except (OSError, ValueError) as error:  # the runtime directory, or a variable's value
        raise click.ClickException(str(error)) from error

    try:
        return asyncio.run(_follow(run, holder, live, telemetry, beside))
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _telemetry(dataflow_id: str, name: str) -> RunTelemetry | None:
    """Return what feeds an exporter of telemetry; None if no variable names an endpoint.

    Raises:
        TelemetryError: such a variable cannot be used.
    """
    ours = {"DORA_OTLP_ENDPOINT", "DORA_JAEGER_TRACING"} & os.environ.keys()
    if not ours and not any(
        name.startswith("OTEL_EXPORTER_OTLP_") and name.endswith("ENDPOINT") for name in os.environ
    ):
        return None
    from dorad.cli.runtelemetry import RunTelemetry  # few runs have one
    from dorad.telemetry.settings import settings_of

    settings = settings_of(os.environ)
    return None if settings.idle else RunTelemetry(settings, dataflow_id, name)


async def _follow(
    run: DataflowRun,
    holder: HolderClient,
    live: LiveLog,
    telemetry: RunTelemetry | None,
    beside: Callable[[DataflowRun], AbstractAsyncContextManager[None]],
) -> Ended:
    """Run a dataflow to its end, with its live log, and stop it at signals."""
    import asyncio
    import resource

    from dorad.cli.runtraces import answering

    loop = asyncio.get_running_loop()
    Interrupts(run, lambda text: print_line("dora:", "cyan", text)).install(loop)
    live.on_broken = from_thread(loop, run.stop)
    with live:
        async with holder:
            # After the holder has started: nodes must not inherit the raised limit.
            _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            async with (
                answering(run, run.dataflow.path.stem),
                beside(run),
                nullcontext() if telemetry is None else telemetry.of(run),
            ):
                ended = await run.run()
                if telemetry is not None:
                    telemetry.ended = ended
            if holder.died:
                run.log.report("error", None, "the process holder ended, and every node with it")
    if live.stuck:
        print_warning("the last log lines were not read and are lost")
    return ended


def run_dataflow(
    dataflow: Dataflow,
    holder: HolderClient,
    shown: LogFilter,
    launch: Launch,
    *,
    log_format: Format = "pretty",
    stop_after: float | None = None,
    hot_reload: bool = False,
    stepped: bool = False,
    secrets: Path | None = None,
    beside: Callable[[DataflowRun], AbstractAsyncContextManager[None]] = lambda _: nullcontext(),
) -> Ended:
    """Check a dataflow, build it and run it, as `dora run` does. Raises as `run_foreground`."""
    from dorad.launch.command import LaunchContext, NodeRights
    from dorad.launch.secrets import own_secrets

    refuse_unsupported(dataflow, strict=launch.strict)
    print_warnings(dataflow)
    build_first(dataflow, launch)
    folder = own_secrets() if secrets is None else secrets.absolute()
    context = LaunchContext(
        dataflow,
        os.environ,
        launch.env,
        uv=launch.uv,
        allow_shell=launch.allow_shell,
        parent_pid=os.getpid(),
        rights=NodeRights((folder,)),
    )
    return run_foreground(
        context,
        holder,
        shown,
        log_format,
        stop_after=stop_after,
        finish_flag=launch.finish_flag,
        hot_reload=hot_reload,
        stepped=stepped,
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
    """Yield a line for each edge that dropped or lost messages, or delivered unreadable ones.

    Drops are expected on inputs with `queue_size` 1 or a maximum rate. They are left out unless
    `every` is set.
    """
    for edge in edges:
        way = f"{edge.source_node}/{edge.output} -> {edge.node}/{edge.input}"
        if edge.unreadable:
            yield f"{edge.unreadable} of {edge.received} messages on {way} could not be read"
        if edge.lost:
            yield f"{edge.lost} messages of {way} were lost before {edge.source_node} had them"
        if edge.dropped and (every or (edge.queue_size > 1 and not edge.limited)):
            yield (
                f"{edge.dropped} of {edge.sent} messages dropped on {way}"
                f" (queue_size {edge.queue_size})"
            )
