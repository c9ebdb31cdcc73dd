"""`dora record --attach`: join a running dataflow as one more subscriber, and record it.

`dora record stop` ends such recordings.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from dorad.cli.interrupts import stop_signals
from dorad.cli.record_options import Chosen, choose, refuse_existing
from dorad.cli.select import connect, dataflow_name, select
from dorad.commandline.reports import print_note, print_warning
from dorad.dataflow.recording import ATTACHED
from dorad.dataflow.settings import RECORD_FOLDER
from dorad.procinfo import is_alive, start_time
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dorad.control.client import Client
    from dorad.control.messages import NodeInfo
    from dorad.node.connection import DaemonConnection
    from dorad.record.recorder.outcome import Progress, RecordingOutcome
    from dorad.record.recorder.settings import Settings

NEXT_DAEMON_S = 10.0
"""Seconds that the next daemon may need to start, after the one before was killed."""

POLL_S = 0.2

CONNECT_S = 5.0
"""Seconds until the recorder is connected to the topics of an added node."""

_log = logging.getLogger(__name__)


def record_running(dataflow: str | None, settings: Settings, chosen: Chosen) -> int:
    """Record until the dataflow ends, a limit is reached, or Ctrl-C; return the exit code.

    If the path in `settings` is empty, the file is called after the dataflow.
    """
    from dorad.dataflow.load import from_descriptor
    from dorad.record.recorder.settings import default_path

    with connect() as client:
        run = select(client, dataflow)
        info = client.info(run)
        known = from_descriptor(info.descriptor, path=Path(info.path))
        named = settings.path != Path()
        if not named:
            name = info.info.name or Path(info.path).stem
            settings = replace(settings, path=default_path(name))
        if client.server.path is None:
            from dorad.cli.record_fleet import record_on_machines

            if not named:
                # On each machine, in the folder of the dataflow.
                settings = replace(settings, path=RECORD_FOLDER / settings.path)
            return record_on_machines(client, run, info, known, settings, chosen)
        settings = replace(settings, path=settings.path.absolute())
        refuse_existing(settings)
        wanted = choose(known, chosen.topics, chosen.excluded)
        with _joined(client, run, wanted, chosen.queue_size) as connection:
            folder = str(Path(info.path).absolute().parent)
            added = _AddedTopics(connection.config["node_id"], run, chosen)
            outcome = _record(connection, settings, folder, added)
    return _report(outcome)


@contextlib.contextmanager
def _joined(
    client: Client, dataflow: str, topics: Sequence[str], queue_size: int
) -> Iterator[DaemonConnection]:
    """Add a node to the dataflow, and attach this process as that node."""
    from dorad.node import attach
    from dorad.record.recorder.arguments import recorder_inputs
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


class _AddedTopics:
    """Connects the recorder to outputs of nodes that are added while it records."""

    def __init__(self, node: str, dataflow: str, chosen: Chosen) -> None:
        """`node` is the recorder."""
        self._node = node
        self._dataflow = dataflow
        self._chosen = chosen
        self._failed: dict[str, str] = {}
        self._due: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="added topics", daemon=True)
        self._thread.start()

    def take_event(self, what: str, value: Mapping[str, Any]) -> None:
        """Look for new topics if an event says that a node was added or replaced.

        Another recorder has none, and to look takes time from the thread that takes messages.
        """
        node, change = value.get("node"), value.get("change")
        if what != "topology-changed" or change not in ("added", "replaced"):
            return
        if not str(node).startswith(ATTACHED):
            self._due.put(f"node {node} was {change}")

    def lacking(self) -> list[str]:
        """Return what could not be connected, and why; nothing is connected from now on."""
        self._due.put(None)
        self._thread.join(CONNECT_S)
        late = ["a node was added at the end"] if self._thread.is_alive() else []
        return [*late, *self._failed.values()]

    def _run(self) -> None:
        from dorad.control.errors import ControlError

        while (change := self._due.get()) is not None:
            try:
                self._connect_new()
            except ControlError as error:
                _log.debug("%s: %s", change, error)
                self._failed[change] = f"{change} and is not recorded: {error}"

    def _connect_new(self) -> None:
        """Record the topics that are new. Raises ControlError."""
        from dorad.dataflow.load import from_descriptor
        from dorad.dataflow.recording import choose_topics, input_name

        options = {"queue_size": self._chosen.queue_size}
        with connect() as client:
            info = client.info(self._dataflow)
            dataflow = from_descriptor(info.descriptor, path=Path(info.path))
            known = {str(each.source) for each in dataflow.node(self._node).inputs}
            for topic in choose_topics(dataflow, self._chosen.topics, self._chosen.excluded):
                if topic not in known:
                    target = f"{self._node}/{input_name(topic)}"
                    client.connect(topic, target, options=options, dataflow=self._dataflow)
                    _log.debug("%s is recorded from now on", topic)


def _record(
    connection: DaemonConnection, settings: Settings, folder: str, added: _AddedTopics
) -> RecordingOutcome:
    from dorad.heap import collect_rarely, keep_freed
    from dorad.record.recorder.session import KEPT_BYTES, Session

    keep_freed(KEPT_BYTES)
    collect_rarely()
    place = settings.box or settings.part(1)
    try:
        before: list[Path] = []
        if settings.box is not None:
            settings.folder.mkdir(parents=True, exist_ok=True)
            before += settings.folder.glob("*.mcap")
        session = Session(
            connection,
            settings,
            arguments=shlex.join(sys.argv[1:]),
            folder=folder,
            on_event=added.take_event,
            lacking=added.lacking,
            before=before,
            report=print_note,
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
        from dorad.record.recorder.outcome import progress_line

        now_s = time.monotonic()
        before = self._last or now._replace(bytes=0)
        line = progress_line(now, before, now_s - self._last_s)
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        self._last, self._last_s = now, now_s


def _report(outcome: RecordingOutcome) -> int:
    from dorad.record.recorder.outcome import outcome_lines

    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    first, *drops = outcome_lines(outcome)
    for line in drops:
        print_warning(line)
    click.echo(visible(first))
    for path in outcome.paths:
        click.echo(f"recorded {visible(str(path))}")
    return 0 if outcome.complete else 1


END_S = 30.0
"""Seconds until recorders that are told to end have ended."""

STOP_EPILOG = """\b
Examples:
  dora record stop                                            the only running dataflow
  dora record stop demo --coordinator-addr fleet.local        on every machine

\b
Ctrl-C in `dora record --attach` does the same. Use this after that command was killed, or when its
terminal is lost. A recorder that is part of the dataflow continues.
"""


@click.command("stop", epilog=STOP_EPILOG)
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
    from dorad.control.errors import ControlError
    from dorad.record.recorder.outcome import END_PARAM

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
        time.sleep(POLL_S)
    for name in sorted(names):
        click.echo(visible(f"ended {name}"))
    if not names:
        click.echo("no recorder has joined the dataflow")
    return 0
