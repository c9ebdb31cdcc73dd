"""`dora trace`: why a message was late. Its commands, and whom they ask."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

import click

from dorad.commandline.groups import CommandEntry, LazyGroup
from dorad.commandline.reports import print_note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dorad.control.client import Client
    from dorad.control.messages import TraceList, TracePaths
    from dorad.record.traces import RecordedTraces

    Source = Client | RecordedTraces

T = TypeVar("T", bound="TraceList | TracePaths")

EPILOG = """\b
Examples:
  dora trace list --slow            the slowest messages
  dora trace view 9f3a              where the time of one went
  dora trace paths                  how long messages take on each path, and why
  dora trace export --perfetto robot.pftrace
  dora trace start --rate 10        ten a second of each source over OpenTelemetry
  dora trace paths day.mcap         the same of a recording, or of the folder of an incident

\b
Nodes record what they do with each message, so nothing has to be set up. It works for dataflows
of the daemon and of each `dora run` of this user.
"""


class Traces(LazyGroup):
    """The commands of `dora trace`."""

    table: ClassVar[dict[str, CommandEntry]] = {
        "list": CommandEntry(
            "dorad.cli.trace_list:list_traces",
            "List traces: messages with all that followed from them.",
            server=True,
        ),
        "view": CommandEntry(
            "dorad.cli.trace_view:view", "Show where the time of a message went.", server=True
        ),
        "paths": CommandEntry(
            "dorad.cli.trace_list:paths",
            "Show how long messages take on each path, and why.",
            server=True,
        ),
        "export": CommandEntry(
            "dorad.cli.trace_view:export", "Write traces to a file for Perfetto.", server=True
        ),
        "start": CommandEntry(
            "dorad.cli.trace_sampling:start",
            "Let exporters of telemetry send traces, so many a second.",
            server=True,
        ),
        "stop": CommandEntry(
            "dorad.cli.trace_sampling:stop",
            "Let exporters of telemetry send no more traces.",
            server=True,
        ),
    }


@click.group("trace", cls=Traces, epilog=EPILOG)
def trace() -> None:
    """Show where the time of messages goes: in queues, in nodes, or on the way."""


_RECORDING = click.Path(exists=True, path_type=Path)
recordings_argument = click.argument("files", metavar="[FILE]...", nargs=-1, type=_RECORDING)


class Asked(NamedTuple):
    """Whom a command asks."""

    sources: Sequence[Source]
    recorded: RecordedTraces | None = None
    """The only one, if it asks recordings."""


@contextmanager
def asking(files: Sequence[Path]) -> Iterator[Asked]:
    """Read recordings; without any, connect to the daemon and each `dora run`, as `servers` does.

    Raises:
        RecordingError: a file cannot be read, or none has hop records.
    """
    if not files:
        with servers() as clients:
            yield Asked(clients)
        return
    from dorad.record.traces import read_traces

    recorded = read_traces(files)
    yield Asked([recorded], recorded)


@contextmanager
def servers() -> Iterator[list[Client]]:
    """Connect to the daemon, or the coordinator that is used, and to each `dora run` of this user.

    Raises:
        ControlError: none of them runs, or the daemon does not answer.
    """
    from dorad.cli.select import connect
    from dorad.control.client import Client
    from dorad.control.errors import ControlError, NoDaemonError
    from dorad.control.target import UnixSocket
    from dorad.shm.rendezvous import ADDRESS_VARIABLE, run_sockets, runtime_dir

    with ExitStack() as stack:
        clients = []
        absent: NoDaemonError | None = None
        try:
            clients.append(stack.enter_context(connect()))
        except NoDaemonError as error:
            absent = error
        if not os.environ.get(ADDRESS_VARIABLE):
            for path in run_sockets(runtime_dir()):
                with suppress(ControlError):  # it has just ended
                    clients.append(stack.enter_context(Client(UnixSocket(path))))
        if not clients and absent is not None:
            raise absent
        yield clients


def ask(asked: Asked, call: Callable[[Source], T], dataflow: str | None) -> list[T]:
    """Return the answers of all that know a dataflow, or of all.

    Raises:
        ControlError: nobody knows it.
    """
    from dorad.control.errors import ControlError

    answers = []
    unknown: ControlError | None = None
    for source in asked.sources:
        try:
            answers.append(call(source))
        except ControlError as error:
            if dataflow is None or error.code != "not-found":
                raise
            unknown = error
    if not answers and unknown is not None:
        raise unknown
    return answers


def ask_all(
    call: Callable[[Source], T], dataflow: str | None, files: Sequence[Path]
) -> tuple[Asked, list[T]]:
    """Return who was asked, and the answers; warn of machines that are not in them.

    Raises as `asking` and `ask` do.
    """
    from dorad.cli.select import warn_missing

    with asking(files) as asked:
        answers = ask(asked, call, dataflow)
    for answer in answers:
        warn_missing(answer.missing)
    return asked, answers


def print_losses(asked: Asked, answers: Sequence[TraceList | TracePaths]) -> int:
    """Tell what the traces lack; return the exit code, which is not 0 for a damaged recording."""
    from dorad.control.messages import TraceCounts

    counts = TraceCounts.total(answer.counts for answer in answers)
    for name, why in (
        ("overwritten", "were overwritten before they were read"),
        ("skipped", "were not read: there were more than 10,000 a second"),
        ("damaged", "were not valid"),
        ("unknown", "name an input or output that the dataflow does not have"),
        ("contexts", "have a trace context of OpenTelemetry that is not valid, and is ignored"),
    ):
        if number := getattr(counts, name):
            print_note(f"{number} records of nodes {why}")
    if counts.drops:
        print_note(f"{counts.drops} dropped messages belong to no trace that is known")
    if asked.recorded is None:
        return 0
    from dorad.cli.record_options import report_missing

    for text in asked.recorded.lacking:
        print_note(text)
    return max((report_missing(*each) for each in asked.recorded.damaged), default=0)


def dataflow_title(name: str | None, uuid: str, machine: str | None) -> str:
    """Return what to call a dataflow."""
    title = name or uuid
    return f"{machine}/{title}" if machine else title
