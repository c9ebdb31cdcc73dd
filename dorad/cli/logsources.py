"""The sources of `dora logs`: the daemon, or files and the journal without it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from dorad.commandline.reports import print_line
from dorad.daemon.paths import system_paths
from dorad.logs.find import Found, NoLogsError, find, list_runs
from dorad.logs.history import History
from dorad.logs.journal.reader import JournalError, JournalPast
from dorad.logs.paths import DAEMON, out_folder
from dorad.logs.selection import Selection
from dorad.logs.tailing import Tailing
from dorad.terminal import local_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dorad.control.client import Client
    from dorad.control.errors import ControlError
    from dorad.logrecord import LogRecord
    from dorad.logs.filter import LogFilter

POLL_S = 0.1
"""Seconds between two reads of followed files."""


class LineQuery(NamedTuple):
    """The lines to show. Times are in seconds since 1970."""

    dataflow: str | None
    nodes: tuple[str, ...]
    shown: LogFilter
    tail: int | None
    since: float | None
    until: float | None
    grep: str | None
    follow: bool
    machine: str | None = None
    """Only lines of this machine of a fleet."""


class Block(NamedTuple):
    """Lines, oldest first."""

    dataflow_id: str
    records: Sequence[LogRecord]
    nodes: Sequence[str] = ()
    """The nodes of the dataflow, empty if unknown."""
    left_out: int = 0


def blocks(wanted: LineQuery, *, local: bool) -> Iterator[Block]:
    """Yield the wanted lines.

    Raises:
        NoLogsError: there are none.
        click.ClickException: they cannot be read.
        ControlError: the daemon refuses.
    """
    if local:
        yield from _from_files(wanted, find_here(wanted.dataflow))
        return
    from dorad.cli.select import connect
    from dorad.control.errors import ControlError, NoDaemonError

    try:
        client = connect()
    except NoDaemonError as error:
        source = _find_instead(wanted, error)
    else:
        with client:
            lines = _from_daemon(client, wanted)
            try:
                first = next(lines, None)
            except ControlError as error:
                if error.code != "not-found" or client.server.path is None:
                    raise  # the files here are not those of a fleet
                source = _find_instead(wanted, error)
            else:
                if first is not None:
                    yield first
                yield from lines
                return
    yield from _from_files(wanted, source)


def find_here(dataflow: str | None) -> Found:
    """Return the logs of a dataflow in ./out, else in the folder of the machine's daemon.

    Raises:
        NoLogsError: there are none.
    """
    try:
        return find(out_folder(Path.cwd()), dataflow)
    except NoLogsError:
        machine = system_paths().logs
        if machine is None or not list_runs(out_folder(machine)):
            raise
        return find(out_folder(machine), dataflow)


def runs_here() -> list[str]:
    """Return the names, or else UUIDs, of the runs in ./out, newest first."""
    runs = list_runs(out_folder(Path.cwd()))
    return list(dict.fromkeys(run.name or run.folder.name for run in runs))


def _find_instead(wanted: LineQuery, error: ControlError) -> Found:
    """Return the logs from ./out that the daemon could not provide, else raise its error."""
    from dorad.control.errors import NoDaemonError

    if wanted.machine is not None:
        raise error  # the files here are not those of another machine
    try:
        return find_here(wanted.dataflow)
    except NoLogsError as none:
        if isinstance(error, NoDaemonError):
            raise click.ClickException(f"{error.message}, and {none}") from error
        raise error from none


def _from_daemon(client: Client, wanted: LineQuery) -> Iterator[Block]:
    stream = client.logs(
        wanted.dataflow,
        nodes=wanted.nodes,
        tail=wanted.tail,
        since=wanted.since,
        until=wanted.until,
        level=wanted.shown.level,
        by_node=wanted.shown.by_node,
        grep=wanted.grep,
        follow=wanted.follow,
        machine=wanted.machine,
    )
    with stream:
        for lines in stream:
            yield Block(lines.dataflow, lines.lines, left_out=lines.left_out)


def _from_files(wanted: LineQuery, source: Found) -> Iterator[Block]:
    _check_nodes(wanted.nodes, source)
    if wanted.dataflow != source.folder.name:
        _report_source(source)
    selection = Selection(
        frozenset(wanted.nodes), wanted.shown, wanted.since, wanted.until, wanted.grep
    )
    nodes = source.nodes
    sender = source.sender
    past = None if sender is None else JournalPast(source.folder.name, selection, sender)
    try:
        with closing(History(source.folder, nodes, selection, past)) as history:
            for lines in history.blocks(wanted.tail):
                yield Block(source.folder.name, lines.records, nodes, lines.left_out)
            if wanted.follow and past is not None:
                yield from _follow_journal(source, history, past, skip=wanted.tail == 0)
            elif wanted.follow:
                yield from _follow(source, history)
    except JournalError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        text = f"cannot read {error.filename}: {error.strerror}"
        raise click.ClickException(text) from error


def _follow(source: Found, history: History) -> Iterator[Block]:
    with Tailing(source.folder, history) as tailing:
        while True:
            running = source.running
            nodes = Found.at(source.folder).nodes
            records = tailing.read(nodes)
            if records:
                yield Block(source.folder.name, records, nodes)
            elif running:
                time.sleep(POLL_S)
            else:
                return


def _follow_journal(
    source: Found, history: History, past: JournalPast, *, skip: bool
) -> Iterator[Block]:
    """Follow the journal, and the files with the lines that it does not hold."""
    with Tailing(source.folder, history) as tailing:
        for new in past.follow(lambda: source.running, skip=skip):
            nodes = Found.at(source.folder).nodes
            records = [record for record in new if history.selection.passes(record)]
            records += tailing.read(nodes)
            if records:
                yield Block(source.folder.name, records, nodes)


def _check_nodes(wanted: Sequence[str], source: Found) -> None:
    there = source.nodes
    for node in wanted:
        if node not in there and node != DAEMON:
            names = ", ".join(there) or "none"
            raise click.ClickException(f"{source.title} has no node '{node}'; its nodes: {names}")


def _report_source(source: Found) -> None:
    state = "running" if source.running else "ended"
    if source.about is not None:
        moment = source.about.ended_at if state == "ended" else source.about.started_at
        if moment is not None:
            word = "ended" if state == "ended" else "started"
            state = f"{word} {local_time(moment, '%Y-%m-%d %H:%M:%S')}"
    older = f"; {source.others} older runs: choose by UUID" if source.others else ""
    print_line("logs of:", "cyan", f"{source.title}, {state}{older}")
