"""`dora record stop`: end the recorders that have joined a running dataflow."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from dorad.cli.select import connect, dataflow_name, select
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.control.client import Client

END_S = 30.0
"""Seconds until the recorders have ended."""

EPILOG = """\b
Examples:
  dora record stop                                            the only running dataflow
  dora record stop demo --coordinator-addr fleet.local        on every machine

\b
Ctrl-C in `dora record --attach` does the same. Use this after that command was killed, or when its
terminal is lost. A recorder that is part of the dataflow continues.
"""


@click.command("stop", epilog=EPILOG)
@dataflow_name
def stop(dataflow: str | None) -> int:
    """End the recordings of `dora record --attach` in the running dataflow NAME."""
    with connect() as client:
        run = select(client, dataflow)
        if client.server.path is None:
            from dorad.cli.record_fleet import stop_on_machines

            return stop_on_machines(client, run)
        return _stop_here(client, run)


def _stop_here(client: Client, run: str) -> int:
    """End the recorders on this machine, and remove those whose process was killed."""
    from dorad.cli.record_attach import recorders
    from dorad.control.errors import ControlError
    from dorad.record.outcome import END_PARAM

    known = recorders(client, run)
    for info in known:
        try:
            if info.pid is None:
                client.remove_node(info.node, dataflow=run)
            else:
                client.set_param(info.node, END_PARAM, "dora record stop", dataflow=run)
        except ControlError:
            if info.node in {each.node for each in recorders(client, run)}:
                raise
    names = {info.node for info in known}
    end = time.monotonic() + END_S
    while left := names & {info.node for info in recorders(client, run)}:
        if time.monotonic() > end:
            raise click.ClickException(f"{', '.join(sorted(left))} has not ended in {END_S:g} s")
        time.sleep(0.1)
    for name in sorted(names):
        click.echo(visible(f"ended {name}"))
    if not names:
        click.echo("no recorder has joined the dataflow")
    return 0
