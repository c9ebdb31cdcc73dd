"""`dora run`: run a dataflow on this machine and show its log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.cli.durations import Duration
from dorad.cli.files import dataflow_argument, load_dataflow
from dorad.cli.foreground import early_holder, report_result, run_dataflow
from dorad.cli.options import (
    LaunchCommand,
    debug_option,
    env_option,
    finish_option,
    log_filter_option,
    log_format_option,
    log_level_option,
    reload_option,
    shell_nodes_option,
    shown_lines,
    strict_option,
    uv_option,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.logs.format import Format

EPILOG = """\b
Examples:
  dora run dataflow.yml
  dora run dataflow.yml --stop-after 10s --log-level warn
  dora run dataflow.yml --env CAMERA=/dev/video2 --exit-when-nodes-finish

\b
It ends when all nodes have ended; exit code 1 if any failed. Ctrl-C asks the nodes to stop, sends
SIGTERM after 10 s and SIGKILL after 15 s. A second Ctrl-C kills them at once. No node outlives it.
"""

VERBOSE = ("debug", "trace")


@click.command(cls=LaunchCommand, epilog=EPILOG)
@dataflow_argument()
@uv_option
@click.option(
    "--stop-after",
    "--duration",
    "stop_after",
    type=Duration(),
    metavar="DURATION",
    help="Stop this long after the start of the processes, such as 10s, 5m, 1h30m.",
)
@log_level_option("--log-level")
@log_format_option
@log_filter_option
@reload_option
@shell_nodes_option
@debug_option
@env_option
@strict_option
@finish_option
@click.option(
    "--secrets",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with a file for each secret of the nodes; default: ~/.config/dora/secrets.",
)
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
    secrets: Path | None,
) -> int:
    """Run the dataflow PATH on this machine and show its log.

    PATH is a file, or an http(s) URL that is downloaded into the current directory.
    """
    del debug
    shown = shown_lines(log_level, log_filter)
    with early_holder() as holder:
        from dorad.dataflow.recording import recorded

        ended = run_dataflow(
            recorded(load_dataflow(path)),
            holder,
            shown,
            log_format,
            uv=uv,
            allow_shell=allow_shell_nodes,
            env=env,
            strict=strict,
            stop_after=stop_after,
            finish_flag=exit_when_nodes_finish,
            hot_reload=hot_reload,
            secrets=secrets,
        )
    report_result(ended, verbose=log_level in VERBOSE)
    return 0 if ended.ok else 1
