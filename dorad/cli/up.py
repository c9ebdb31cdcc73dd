"""`dora up`: start this user's daemon in the background, unless it runs already."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.control.messages import DaemonStatus

START_S = 15.0
"""Seconds within which a new daemon must answer."""
POLL_S = 0.02
MAX_LOG_BYTES = 1 << 20
"""Size from which the daemon's own log is rotated at the next start."""

EPILOG = """\b
Examples:
  dora up
  dora up && dora start dataflow.yml

\b
The daemon belongs to this user, runs until `dora down`, and takes over the running nodes of a
previous one. Its own log is $XDG_STATE_HOME/dora/dorad.log. With --coordinator-port it is a
separate daemon with its own dataflows, sockets and log.
"""


@click.command(epilog=EPILOG)
def up() -> int:
    """Start this user's daemon in the background."""
    from dorad.cli.instance import refuse_address
    from dorad.control.choosing import SOCKET_VARIABLE
    from dorad.daemon.paths import user_paths

    refuse_address("dora up", "it starts the daemon of this machine", "dorafleet up cluster.yml")
    try:
        places = user_paths()
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    named = os.environ.get(SOCKET_VARIABLE)
    control = Path(named) if named else places.control
    status = _status(control)
    if status is not None:
        click.echo(f"dorad is already running (pid {status.pid}, {control})")
        return 0
    if control != places.control:
        raise click.ClickException(
            f"no dorad is running at {control}, the socket in {SOCKET_VARIABLE}; `dora up` starts "
            f"one only at {places.control} (unset {SOCKET_VARIABLE})"
        )
    status = _start(places.control, places.log)
    adopted = f", took over {status.adopted} running nodes" if status.adopted else ""
    click.echo(f"dorad started (pid {status.pid}, {places.control}){adopted}")
    for notice in status.notices:
        click.echo(f"note: {visible(notice)}", err=True)
    return 0


def _status(control: Path) -> DaemonStatus | None:
    """Return the state of the daemon, None if none runs.

    Raises:
        ControlError: it runs, but does not answer or refuses this client.
    """
    from dorad.control.client import Client, NoDaemonError

    try:
        with Client(control) as client:
            return client.status()
    except NoDaemonError:
        return None


def _start(control: Path, log: Path) -> DaemonStatus:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as out:
        begin = out.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "dorad.daemon.main"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd="/",
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            output = log.read_bytes()[begin:].decode(errors="replace").strip()
            raise click.ClickException(f"dorad exited at once:\n{output}")
        status = _status(control)
        if status is not None:
            return status
        time.sleep(POLL_S)
    raise click.ClickException(
        f"dorad (pid {process.pid}) does not answer {START_S:g} s after its start; see {log}"
    )
