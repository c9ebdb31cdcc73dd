"""`dora run`: run a dataflow on this machine and show what its nodes print."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from dorad.cli.durations import Duration
from dorad.cli.files import dataflow_argument, load_dataflow
from dorad.cli.launching import (
    LaunchCommand,
    build_first,
    debug_option,
    env_option,
    finish_option,
    refuse_unsupported,
    reload_option,
    shell_nodes_option,
    strict_option,
    tell_warnings,
    uv_option,
)
from dorad.cli.session import early_holder, report, run_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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

VERBOSE = ("debug", "trace")


@click.command(cls=LaunchCommand, epilog=EPILOG)
@dataflow_argument()
@uv_option
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
@reload_option
@shell_nodes_option
@debug_option
@env_option
@strict_option
@finish_option
def run(
    path: Path,
    *,
    uv: bool,
    stop_after: float | None,
    log_level: str | None,
    log_format: Format,
    log_filter: str | None,
    hot_reload: bool,
    allow_shell_nodes: bool,
    debug: bool,
    env: Mapping[str, str],
    strict: bool,
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
    with early_holder() as holder:
        from dorad.launch.command import LaunchContext

        dataflow = load_dataflow(path)
        refuse_unsupported(dataflow, strict=strict)
        tell_warnings(dataflow)
        build_first(dataflow, uv=uv, env=env)
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
            holder,
            shown,
            log_format,
            stop_after=stop_after,
            finish_flag=exit_when_nodes_finish,
            hot_reload=hot_reload,
        )
    report(ended, verbose=log_level in VERBOSE)
    return 0 if ended.ok else 1
