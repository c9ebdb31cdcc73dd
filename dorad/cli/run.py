"""`dora run`: run a dataflow on this machine and show what its nodes print."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from dorad.cli.durations import Duration
from dorad.cli.files import dataflow_argument, load_dataflow
from dorad.cli.session import early_guard, report, run_session, tell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.model import Dataflow
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


def parse_finish(_: click.Context, __: click.Parameter, word: str | None) -> bool | None:
    """Return the truth that `--exit-when-nodes-finish` was given, None if it was not."""
    return None if word is None else word == "true"


@click.command(cls=RunCommand, epilog=EPILOG)
@dataflow_argument()
@click.option("--uv", is_flag=True, help="Build and run Python nodes with uv.")
@click.option(
    "--stop-after",
    type=Duration(),
    metavar="DURATION",
    help="Stop after 10s, 5m, 1h30m of running.",
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
    type=click.Choice(["true", "false"], case_sensitive=False),
    callback=parse_finish,
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
    with early_guard() as guard:
        from dorad.launch.command import LaunchContext

        dataflow = load_dataflow(path)
        _refuse_unsupported(dataflow)
        for warning in dataflow.warnings:
            tell("warning:", "yellow", str(warning))
        _build(dataflow, uv=uv, env=env)
        context = LaunchContext(
            dataflow,
            os.environ,
            env,
            uv=uv,
            allow_shell=allow_shell_nodes,
            parent_pid=os.getpid(),
        )
        ended = run_session(
            context,
            guard,
            shown,
            log_format,
            stop_after=stop_after,
            finish_flag=exit_when_nodes_finish,
        )
    report(ended, verbose=log_level in VERBOSE)
    return 0 if ended.ok else 1


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
        build_dataflow(dataflow, uv=uv, extra_env=env, echo=_echo)
    except BuildError as error:
        raise click.ClickException(str(error)) from error


def _echo(line: str) -> None:
    """Show a line of the build; standard output is for the nodes' lines alone."""
    click.echo(line, err=True)
