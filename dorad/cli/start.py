"""`dora start`: start a dataflow under the daemon, or over the machines of a fleet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from dorad.cli.enable import warn_unless_of_machine
from dorad.cli.options import (
    Launch,
    LaunchCommand,
    debug_option,
    launch_options,
    reload_option,
)
from dorad.cli.select import connect
from dorad.cli.startsteps import build_first
from dorad.commandline.files import (
    dataflow_argument,
    load_dataflow,
    note_unbuilt,
    print_warnings,
    refuse_unsupported,
)
from dorad.commandline.startprogress import report_start
from dorad.terminal import visible

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
Examples:
  dora start dataflow.yml --name demo
  dora start dataflow.yml --detach && dora logs --follow
  dora start dataflow.yml --attach --env CAMERA=/dev/video2
  dora start dataflow.yml --attach --hot-reload

\b
At a terminal, the command stays and shows the log (--attach); otherwise it ends once the nodes have
been started (--detach). While attached, Ctrl-C stops the dataflow and a second Ctrl-C kills it; the
exit code is 1 if any node failed. Nodes get the daemon's environment, not that of this command.
Through a coordinator (--coordinator-addr) the nodes run on the machines of the fleet, where their
programs must be: build commands are not run.
"""


@click.command(cls=LaunchCommand, epilog=EPILOG)
@dataflow_argument()
@click.option("-n", "--name", metavar="NAME", help="Name of the dataflow for other commands.")
@click.option("--attach/--detach", default=None, help="Stay until the dataflow ends, or not.")
@click.option("--enable", is_flag=True, help="Also start it at every boot; needs --name.")
@reload_option
@launch_options
@debug_option
def start(
    path: Path,
    *,
    name: str | None,
    attach: bool | None,
    enable: bool,
    hot_reload: bool,
    launch: Launch,
    debug: bool,
) -> int:
    """Start the dataflow PATH under the daemon, or over the machines of a fleet.

    PATH is a file, or an http(s) URL that is downloaded into the current directory.
    """
    del debug
    if enable and name is None:
        raise click.UsageError("--enable needs --name, the name of the dataflow after a boot")
    dataflow = load_dataflow(path)
    refuse_unsupported(dataflow, strict=launch.strict, placed=True)
    with connect() as client:  # report a missing daemon before a long build
        placed = client.server.path is None
    if not placed:
        refuse_unsupported(dataflow, strict=launch.strict)
    print_warnings(dataflow)
    if attach is None:
        attach = sys.stdout.isatty()
    if not placed:
        build_first(dataflow, launch)
    else:
        note_unbuilt(dataflow)
    with connect() as client:
        started = client.start(
            dataflow,
            name=name,
            env=launch.env,
            uv=launch.uv,
            allow_shell=launch.allow_shell,
            exit_when_nodes_finish=launch.finish_flag,
            hot_reload=hot_reload,
        )
        click.echo(visible(f"dataflow start triggered: {started.uuid}"))
        if enable:
            client.enable(started.uuid)
            warn_unless_of_machine(client.server.path)
        sys.stdout.flush()
        if not attach:
            return report_start(client, started.uuid)
    from dorad.cli.attach import follow

    return follow(started.uuid, [node.id for node in dataflow.nodes])
