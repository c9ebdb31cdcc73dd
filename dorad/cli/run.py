"""`dora run`: run a dataflow on this machine and show its log."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.cli.foreground import early_holder, report_result, run_dataflow
from dorad.cli.options import (
    Launch,
    LaunchCommand,
    LockFile,
    debug_option,
    launch_options,
    lock_options,
    log_filter_option,
    log_format_option,
    log_level_option,
    reload_option,
    shown_lines,
)
from dorad.commandline.durations import Duration
from dorad.commandline.files import dataflow_argument, load_dataflow

if TYPE_CHECKING:
    from dorad.daemon.run import DataflowRun
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
@launch_options
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
@debug_option
@lock_options
@click.option(
    "--secrets",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder with a file for each secret of the nodes; default: ~/.config/dora/secrets.",
)
@click.option("--view", is_flag=True, help="Show it in Foxglove, as `dora view` does.")
def run(
    path: Path,
    *,
    launch: Launch,
    stop_after: float | None,
    log_level: str | None,
    log_format: Format,
    log_filter: str | None,
    hot_reload: bool,
    debug: bool,
    secrets: Path | None,
    view: bool,
    lock: LockFile,
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
            launch._replace(lock=lock),
            log_format=log_format,
            stop_after=stop_after,
            hot_reload=hot_reload,
            secrets=secrets,
            beside=_viewed if view else lambda _: nullcontext(),
        )
    report_result(ended, verbose=log_level in VERBOSE)
    return 0 if ended.ok else 1


def _viewed(run: DataflowRun) -> AbstractAsyncContextManager[None]:
    from dorad.cli.view import viewed  # few runs are

    return viewed(run)
