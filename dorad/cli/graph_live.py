"""`dora graph --live`: serve a page that shows a running dataflow with its figures."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import click

from dorad.cli.select import label, running
from dorad.cli.trace import servers
from dorad.commandline.reports import print_note
from dorad.control.errors import NoDaemonError
from dorad.control.target import UnixSocket
from dorad.shm.rendezvous import ADDRESS_VARIABLE, run_sockets, runtime_dir
from dorad.view.follow import Place, Wanted
from dorad.view.graphserver import GraphServer


def serve(given: str | None, port: int | None, show: Callable[[str], None]) -> None:
    """Serve the page of a dataflow, by its file, name or UUID, until Ctrl-C.

    `show` gets its address. Without `given` it is the only running one.

    Raises:
        click.ClickException: none runs, or several do, or the port is in use.
        ControlError: the daemon does not answer.
    """
    server = GraphServer(places, wanted(given))

    def announce(address: str) -> None:
        print_note(f"the live graph is at {address}")
        show(address)

    with contextlib.suppress(KeyboardInterrupt):  # the usual way to end it
        try:
            asyncio.run(server.run(port, announce))
        except OSError as error:
            raise click.ClickException(
                f"cannot listen on port {port}: {error.strerror}; choose another one with --port"
            ) from error


def places() -> list[Place]:
    """Return the daemon or coordinator, and each `dora run` of this user."""
    places = [Place()]
    if not os.environ.get(ADDRESS_VARIABLE):
        places += [Place(UnixSocket(path)) for path in run_sockets(runtime_dir())]
    return places


def wanted(given: str | None) -> Wanted:
    """Return the dataflow that is meant. Raises as `serve` does."""
    if given is not None:
        path = Path(given)
        if path.is_file() or "/" in given or path.suffix in (".yml", ".yaml"):
            from dorad.commandline.files import DataflowFile

            return Wanted(path=DataflowFile().convert(given, None, None).absolute())
        return Wanted(name=given)
    try:
        with servers() as clients:
            known = [info for client in clients for info in running(client)]
    except NoDaemonError:
        known = []
    if not known:
        raise click.ClickException(
            "no dataflow is running; name its file or its name to wait for its start"
        )
    if len(known) > 1:
        names = ", ".join(sorted(label(info) for info in known))
        raise click.ClickException(f"{len(known)} dataflows are running; name one: {names}")
    return Wanted(name=label(known[0]))
