"""`dora record --attach`: join a running dataflow as one more subscriber, and record it."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from dorad.cli.record_options import choose, refuse_existing
from dorad.cli.reporting import print_note, print_warning
from dorad.cli.select import connect, select
from dorad.cli.stopsignals import stop_signals
from dorad.dataflow.recording import ATTACHED
from dorad.dataflow.settings import RECORD_FOLDER
from dorad.procinfo import is_alive, start_time
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dorad.cli.record_options import Chosen
    from dorad.control.client import Client
    from dorad.control.messages import NodeInfo
    from dorad.node.connection import DaemonConnection
    from dorad.record.items import Outcome, Progress
    from dorad.record.settings import Settings

NEXT_DAEMON_S = 10.0
"""Seconds that the next daemon may need to start, after the one before was killed."""

POLL_S = 0.2

_log = logging.getLogger(__name__)


def record_running(dataflow: str | None, settings: Settings, chosen: Chosen) -> int:
    """Record until the dataflow ends, a limit is reached, or Ctrl-C; return the exit code.

    If the path in `settings` is empty, the file is called after the dataflow.
    """
    from dorad.dataflow.load import from_descriptor
    from dorad.record.settings import default_path

    with connect() as client:
        run = select(client, dataflow)
        found = client.info(run)
        known = from_descriptor(found.descriptor, path=Path(found.path))
        named = settings.path != Path()
        if not named:
            name = found.info.name or Path(found.path).stem
            settings = replace(settings, path=default_path(name))
        if client.server.path is None:
            from dorad.cli.record_fleet import record_on_machines

            if not named:
                # On each machine, in the folder of the dataflow.
                settings = replace(settings, path=RECORD_FOLDER / settings.path)
            return record_on_machines(client, run, found, known, settings, chosen)
        settings = replace(settings, path=settings.path.absolute())
        refuse_existing(settings)
        wanted = choose(known, chosen.topics, chosen.excluded)
        with _joined(client, run, wanted, chosen.queue_size) as connection:
            folder = str(Path(found.path).absolute().parent)
            outcome = _record(connection, settings, folder)
    return _report(outcome)


@contextlib.contextmanager
def _joined(
    client: Client, dataflow: str, topics: Sequence[str], queue_size: int
) -> Iterator[DaemonConnection]:
    """Add a node to the dataflow, and attach this process as that node."""
    from dorad.node import attach
    from dorad.record.arguments import recorder_inputs
    from dorad.shm import rendezvous

    _remove_left_over(client, dataflow)
    pid = os.getpid()
    node_id = f"{ATTACHED}{pid}_{start_time(pid)}__"
    definition: dict[str, Any] = {
        "id": node_id,
        "path": "dynamic",
        "inputs": recorder_inputs(topics, queue_size),
    }
    try:
        client.add_node(definition, dataflow=dataflow)
        _log.debug("joined %s as %s", dataflow, node_id)
        connection = attach.connect(attach.Dynamic(node_id, rendezvous.port()))
        try:
            yield connection
        finally:
            connection.done()
    except RuntimeError as error:
        raise click.ClickException(f"cannot join the dataflow: {error}") from error
    finally:
        remove_added(client, node_id, dataflow)


def remove_added(client: Client, node: str, dataflow: str) -> None:
    """Remove a node that this command has added, even if a new daemon has taken over since.

    The node stays if the dataflow has ended, or no daemon comes.
    """
    from dorad.control.errors import ControlError

    try:
        client.remove_node(node, dataflow=dataflow)
        return
    except ControlError as error:
        _log.debug("%s is not removed: %s", node, error)
        if error.code != "unavailable" or client.server.path is None:
            return
    end = time.monotonic() + NEXT_DAEMON_S
    while True:
        try:
            with connect() as again:
                again.remove_node(node, dataflow=dataflow)
        except ControlError as error:
            _log.debug("%s is not removed from the next daemon: %s", node, error)
            if error.code == "unavailable" and time.monotonic() < end:
                time.sleep(POLL_S)
                continue
        return


def recorders(client: Client, dataflow: str) -> list[NodeInfo]:
    """Return the recorders that commands have added to a dataflow."""
    return [info for info in client.nodes(dataflow) if info.node.startswith(ATTACHED)]


def _remove_left_over(client: Client, dataflow: str) -> None:
    """Remove recorders whose process was killed."""
    from dorad.control.errors import ControlError

    for info in recorders(client, dataflow):
        if info.pid is None and not _is_joining(info.node):
            _log.debug("removing %s, which has no process", info.node)
            with contextlib.suppress(ControlError):  # another recorder has removed it
                client.remove_node(info.node, dataflow=dataflow)


def _is_joining(node: str) -> bool:
    """Return True if the process that adds a recorder still runs: it has not attached yet.

    Its start time is in the name, too: another process may have the number of a dead one.
    """
    pid, _, started = node.removeprefix(ATTACHED).removesuffix("__").partition("_")
    return pid.isdecimal() and started.isdecimal() and is_alive(int(pid), int(started))


def _record(connection: DaemonConnection, settings: Settings, folder: str) -> Outcome:
    from dorad.record.leftovers import recover_left
    from dorad.record.session import Session

    place = settings.box or settings.part(1)
    try:
        if settings.box is not None:
            settings.folder.mkdir(parents=True, exist_ok=True)
            for line in recover_left(settings.folder):
                print_note(line)
        session = Session(
            connection,
            settings,
            arguments=shlex.join(sys.argv[1:]),
            folder=folder,
        )
    except OSError as error:
        raise click.ClickException(f"cannot write to {place}: {error.strerror}") from error
    print_note(f"recording to {place}; Ctrl-C ends it")
    with stop_signals(session.stop):
        return session.run(_Progress() if sys.stderr.isatty() else None)


class _Progress:
    """Shows one line that changes, on a terminal."""

    def __init__(self) -> None:
        self._last: Progress | None = None
        self._last_s = time.monotonic()

    def __call__(self, now: Progress) -> None:
        from dorad.record.report import progress_line

        now_s = time.monotonic()
        before = self._last or now._replace(bytes=0)
        line = progress_line(now, before, now_s - self._last_s)
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        self._last, self._last_s = now, now_s


def _report(outcome: Outcome) -> int:
    from dorad.record.report import outcome_lines

    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    first, *drops = outcome_lines(outcome)
    for line in drops:
        print_warning(line)
    click.echo(visible(first))
    for path in outcome.paths:
        click.echo(f"recorded {visible(str(path))}")
    return 0 if outcome.complete else 1
