"""`dora run`: run a dataflow on this machine and show what its nodes print."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

import click

from dorad.cli.durations import Duration
from dorad.cli.files import dataflow_argument, load_dataflow
from dorad.cli.interrupts import Interrupts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from dorad.cli.live import LiveLog
    from dorad.daemon.ports import EdgeCounters
    from dorad.daemon.run import Ended
    from dorad.dataflow.model import Dataflow
    from dorad.launch.client import Guard
    from dorad.launch.command import LaunchContext
    from dorad.logs.filter import LogFilter
    from dorad.logs.format import Format

EPILOG = """\b
Examples:
  dora run dataflow.yml
  dora run dataflow.yml --stop-after 10s --log-level warn
  dora run dataflow.yml --env CAMERA=/dev/video2 --exit-when-nodes-finish

\b
It ends when every node has ended; exit code 1 if any failed. Ctrl-C asks the nodes to stop, sends
SIGTERM after 10 s and SIGKILL after 15 s; a second one kills them at once. Nodes never outlive it.
"""

FINISH_FLAG = "--exit-when-nodes-finish"
VERBOSE = ("debug", "trace")


class RunCommand(click.Command):
    """A command with a flag that may be given a value, but only with `=`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let the bare flag stand for true, so that it does not take the next word."""
        whole = [f"{FINISH_FLAG}=true" if word == FINISH_FLAG else word for word in args]
        return super().parse_args(ctx, whole)


def parse_env(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the variables given with `--env`. Raises click.BadParameter."""
    env = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"'{text}': write it as KEY=VALUE")
        if "$" in text:
            raise click.BadParameter(f"'{text}': `$` is not expanded here; write the value itself")
        env[name] = value
    return env


@click.command(cls=RunCommand, epilog=EPILOG)
@dataflow_argument()
@click.option("--uv", is_flag=True, help="Build and run Python nodes with uv.")
@click.option(
    "--stop-after", type=Duration(), metavar="DURATION", help="Stop after 10s, 5m, 1h30m."
)
@click.option(
    "--log-level", metavar="LEVEL", envvar="DORA_LOG_LEVEL", help="Least severity to show."
)
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
@click.option("--allow-shell-nodes", is_flag=True, help="Allow nodes with `path: shell`.")
@click.option("--debug", is_flag=True, help="Accepted for dora 1.x; inspection needs no switch.")
@click.option(
    "--env",
    multiple=True,
    metavar="KEY=VALUE",
    callback=parse_env,
    help="Set a variable for all nodes.",
)
@click.option(
    FINISH_FLAG,
    type=bool,
    default=None,
    metavar="[=BOOL]",
    help="End timer-fed nodes too once their data inputs have closed.",
)
def run(
    path: Path,
    *,
    uv: bool,
    stop_after: float | None,
    log_level: str | None,
    log_format: Format,
    log_filter: str | None,
    allow_shell_nodes: bool,
    debug: bool,
    env: Mapping[str, str],
    exit_when_nodes_finish: bool | None,
) -> int:
    """Run the dataflow PATH on this machine and show what its nodes print.

    PATH is a file, or an http(s) address that is downloaded into the current directory.
    """
    del debug
    from dorad.logs.filter import parse_filter

    try:
        shown = parse_filter(log_level, log_filter)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with _early_guard() as guard:
        from dorad.launch.command import LaunchContext

        dataflow = load_dataflow(path)
        _refuse_unsupported(dataflow)
        for warning in dataflow.warnings:
            _tell("warning:", "yellow", str(warning))
        _build(dataflow, uv=uv, env=env)
        context = LaunchContext(
            dataflow,
            os.environ,
            env,
            uv=uv,
            allow_shell=allow_shell_nodes,
            parent_pid=os.getpid(),
        )
        ended = _run(
            context,
            guard,
            shown,
            log_format,
            stop_after=stop_after,
            finish_flag=exit_when_nodes_finish,
        )
    _report(ended, verbose=log_level in VERBOSE)
    return 0 if ended.ok else 1


@contextlib.contextmanager
def _early_guard() -> Iterator[Guard]:
    """Start the guard process, so that it is ready when the dataflow is read; end it if unused."""
    import asyncio

    from dorad.launch.client import Guard
    from dorad.launch.model import LaunchError

    try:
        guard = Guard.start()
    except LaunchError as error:
        raise click.ClickException(str(error)) from error
    try:
        yield guard
    except BaseException:
        asyncio.run(guard.close())
        raise


def _refuse_unsupported(dataflow: Dataflow) -> None:
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.support import unsupported

    problems = unsupported(dataflow)
    if problems:
        raise DataflowError(problems)


def _build(dataflow: Dataflow, *, uv: bool, env: Mapping[str, str]) -> None:
    """Run the build commands, if there are any."""
    if not any(node.build for node in dataflow.nodes):
        return
    from dorad.cli.builder import BuildError, build_dataflow

    try:
        build_dataflow(dataflow, uv=uv, extra_env=env, echo=click.echo)
    except BuildError as error:
        raise click.ClickException(str(error)) from error


def _run(
    context: LaunchContext,
    guard: Guard,
    shown: LogFilter,
    log_format: Format,
    *,
    stop_after: float | None,
    finish_flag: bool | None,
) -> Ended:
    """Run the dataflow with its live log and its signals. Raises click.ClickException."""
    import asyncio

    from dorad.daemon.run import DataflowRun
    from dorad.launch.model import LaunchError

    async def main() -> Ended:
        loop = asyncio.get_running_loop()
        run = DataflowRun(
            context,
            guard,
            lambda records: live.take(records),
            exit_when_nodes_finish=finish_flag,
            stop_after=stop_after,
        )
        Interrupts(run, lambda text: _tell("dora:", "cyan", text)).install(loop)
        live = _live_log(context, run.dataflow_id, shown, log_format, _from_thread(loop, run.stop))
        with live:
            return await run.run()

    try:
        return asyncio.run(main())
    except (LaunchError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _from_thread(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nothing is left to stop
            loop.call_soon_threadsafe(stop)

    return call


def _live_log(
    context: LaunchContext,
    dataflow_id: str,
    shown: LogFilter,
    log_format: Format,
    on_broken: Callable[[], None],
) -> LiveLog:
    from dorad.cli.live import LiveLog
    from dorad.logs.format import formatter

    line = formatter(
        log_format,
        dataflow_id=dataflow_id,
        nodes=[node.id for node in context.dataflow.nodes],
        color=sys.stdout.isatty() and not os.environ.get("NO_COLOR"),
    )
    return LiveLog(sys.stdout, line, shown, on_broken)


def _report(ended: Ended, *, verbose: bool) -> None:
    """Tell what failed, what was dropped and, at a terminal, that it is over."""
    for note in drop_notes(ended.edges, every=verbose):
        _tell("note:", "cyan", note)
    if ended.ok:
        if sys.stderr.isatty():
            nodes = "node" if len(ended.results) == 1 else "nodes"
            _tell("finished:", "green", f"{len(ended.results)} {nodes} ok, {ended.seconds:.1f} s")
        return
    from dorad.daemon.report import failure_report

    for block in failure_report(ended.results):
        _tell("error:", "red", block.headline)
        for line in block.lines:
            click.echo(f"    {line}", err=True)


def drop_notes(edges: Iterable[EdgeCounters], *, every: bool) -> Iterator[str]:
    """Yield a line for each edge that dropped messages.

    An input of one place asks for the newest message only, so its drops are news to nobody; they
    are left out unless `every` edge is wanted.
    """
    for edge in edges:
        if edge.dropped and (every or edge.queue_size > 1):
            way = f"{edge.source_node}/{edge.output} -> {edge.node}/{edge.input}"
            yield (
                f"{edge.dropped} of {edge.sent} messages dropped on {way}"
                f" (queue_size {edge.queue_size})"
            )


def _tell(head: str, colour: str, text: str) -> None:
    """Write one line to stderr."""
    click.echo(f"{click.style(head, fg=colour, bold=True)} {text}", err=True)
