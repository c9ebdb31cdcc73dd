"""`dora up` and `dora down`: start this user's daemon in the background, and stop it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.commandline.detached import start_detached
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.control.messages import DaemonStatus

START_S = 15.0
"""Seconds within which a new daemon must answer."""

END_S = 2.0
"""Seconds within which a daemon that closes its connections is expected to be gone."""

POLL_S = 0.05

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
    from dorad.commandline.instance import refuse_address
    from dorad.control.choosing import SOCKET_VARIABLE
    from dorad.daemon.paths import system_paths, user_paths
    from dorad.shm.rendezvous import instance

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
    status = start_detached(
        "dorad",
        ["dorad.daemon.main"],
        places.log,
        lambda: _status(places.control),
        timeout=START_S,
    )
    adopted = f", took over {status.adopted} running nodes" if status.adopted else ""
    click.echo(f"dorad started (pid {status.pid}, {places.control}){adopted}")
    notices = list(status.notices)
    if instance() is None:
        notices += beside(system_paths().control)
    for notice in notices:
        click.echo(f"note: {visible(notice)}", err=True)
    return 0


def beside(machine: Path) -> tuple[str, ...]:
    """Return a notice if this user could have used the daemon of the machine as well."""
    if not os.access(machine, os.W_OK):
        return ()
    text = (
        f"the daemon of the machine has a socket, too, at {machine}; commands of this user go to "
        "the one that was started, until `dora down`"
    )
    return (text,)


def _status(control: Path) -> DaemonStatus | None:
    """Return the state of the daemon, None if none runs.

    Raises:
        ControlError: it runs, but does not answer or refuses this client.
    """
    from dorad.control.client import Client, ControlError, NoDaemonError

    deadline = time.monotonic() + END_S
    while True:
        try:
            with Client(control) as client:
                return client.status()
        except NoDaemonError:
            return None
        except ControlError as error:
            # A daemon that ends right now closes the connection, and is gone a moment later.
            if error.code != "unavailable" or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


EXIT_S = 30.0
"""Seconds within which the daemon must exit after it has accepted the request."""

DOWN_EPILOG = """\b
Examples:
  dora down
  dora down --force

\b
Without --force it is refused while dataflows run, and lists them; with --force they are stopped
first.
"""


@click.command(epilog=DOWN_EPILOG)
@click.option("-f", "--force", is_flag=True, help="Stop running dataflows first.")
def down(*, force: bool) -> int:
    """Stop the daemon."""
    from dorad.commandline.instance import refuse_address
    from dorad.control.choosing import chosen_daemons
    from dorad.control.client import Client
    from dorad.procinfo import is_alive

    refuse_address("dora down", "it stops the daemon of this machine", "dorafleet down")
    with Client(chosen_daemons()) as client:
        status = client.status()
        client.shutdown(force=force)
    deadline = time.monotonic() + EXIT_S
    while is_alive(status.pid):
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"dorad (pid {status.pid}) is still running after {EXIT_S:g} s"
            )
        time.sleep(POLL_S)
    click.echo(f"dorad ended (pid {status.pid})")
    return 0
