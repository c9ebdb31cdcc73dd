"""`dora up`: start a daemon in the background, unless one runs already."""

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
LOOK_S = 0.02
LARGEST_LOG = 1 << 20
"""Bytes after which the daemon's own log is put aside at the next start."""

EPILOG = """\b
Examples:
  dora up
  dora up && dora start dataflow.yml

\b
The daemon belongs to this user, runs until `dora down`, and takes over nodes that an earlier one
has left running. Its own log is in $XDG_STATE_HOME/dora/dorad.log. With --coordinator-port it is
one beside the others, with dataflows, sockets and a log of its own.
"""


@click.command(epilog=EPILOG)
def up() -> int:
    """Start a daemon in the background for this user."""
    from dorad.control.listening import VARIABLE
    from dorad.daemon.paths import user_paths

    try:
        places = user_paths()
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    named = os.environ.get(VARIABLE)
    control = Path(named) if named else places.control
    status = _status(control)
    if status is not None:
        click.echo(f"dorad is already running (pid {status.pid}, {control})")
        return 0
    if control != places.control:
        raise click.ClickException(
            f"no dorad is running at {control}, which {VARIABLE} names; `dora up` starts one at "
            f"{places.control} only (unset {VARIABLE})"
        )
    status = _start(places.control, places.log)
    adopted = f", took over {status.adopted} running nodes" if status.adopted else ""
    click.echo(f"dorad started (pid {status.pid}, {places.control}){adopted}")
    for notice in status.notices:
        click.echo(f"note: {visible(notice)}", err=True)
    return 0


def _status(control: Path) -> DaemonStatus | None:
    """Return what the daemon says of itself; None if there is none.

    Raises:
        ControlError: there is one, but it does not answer, or will not talk to us.
    """
    from dorad.control.client import Client, NoDaemonError

    try:
        with Client(control) as client:
            return client.status()
    except NoDaemonError:
        return None


def _start(control: Path, log: Path) -> DaemonStatus:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LARGEST_LOG:
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
            said = log.read_bytes()[begin:].decode(errors="replace").strip()
            raise click.ClickException(f"dorad ended at once:\n{said}")
        status = _status(control)
        if status is not None:
            return status
        time.sleep(LOOK_S)
    raise click.ClickException(
        f"dorad (pid {process.pid}) does not answer {START_S:g} s after its start; see {log}"
    )
