"""`dorafleet incidents fetch` and `open`: an uploaded incident as one recording on this machine."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import plain, print_object
from dorad.terminal import visible
from dorafleet.cli.arguments import coordinator_options, json_option
from dorafleet.cli.coordinator import connect_to, targets_of
from dorafleet.cli.incidents import incident_argument

if TYPE_CHECKING:
    from dorad.control.target import Targets
    from dorafleet.coordinator.incidentmessages import UploadedIncident, UploadedRef
    from dorafleet.coordinator.keptincidents import KeptIncidents

ATTEMPTS = 8
"""Connections for one incident; what has arrived stays."""
RETRY_S = 1.0
NO_LIMIT = 1 << 50

FETCH_EPILOG = """\b
Examples:
  dorafleet incidents fetch 20260501-101500-3f2a
  dorafleet incidents fetch 20260501-101500-3f2a --robot arm1 -o dock.mcap

\b
The recording is cut to the time of the incident, as `dora record incidents --export` does. A fetch
that was interrupted continues where it was. Each file is checked against its SHA-256.
"""
OPEN_EPILOG = """\b
Examples:
  dorafleet incidents open 20260501-101500-3f2a
  dorafleet incidents open 20260501-101500-3f2a --with "dora replay"

\b
The file is kept in ~/.cache/dorafleet/incidents, and is not fetched twice. The exit code is that of
the program.
"""


@click.command(epilog=FETCH_EPILOG)
@incident_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The recording.  [default: INCIDENT.mcap]",
)
@json_option
@coordinator_options
def fetch(
    *,
    incident: str,
    robot: str | None,
    dataflow: str | None,
    output: Path | None,
    as_json: bool,
    state: Path,
    port: int,
) -> int:
    """Write INCIDENT to a recording on this machine."""
    from dorafleet.coordinator.incidentmessages import UploadedRef

    ref = UploadedRef(id=incident, robot=robot, dataflow=dataflow)
    target = output or Path(f"{Path(incident).name}.mcap")
    targets = targets_of(state, port)
    uploaded = _ask(targets, ref)
    messages = _fetch(targets, ref, uploaded, target)
    if as_json:
        print_object({**plain(uploaded), "file": str(target), "messages": messages})
    else:
        click.echo(visible(f"wrote {target}: {messages} messages of {uploaded.robot}"))
    return 0


@click.command("open", epilog=OPEN_EPILOG)
@incident_argument
@click.option(
    "--with",
    "program",
    metavar="COMMAND",
    default="dora record info",
    show_default=True,
    help="The program; the file is its last argument.",
)
@coordinator_options
def open_(
    *,
    incident: str,
    robot: str | None,
    dataflow: str | None,
    program: str,
    state: Path,
    port: int,
) -> int:
    """Fetch INCIDENT and run a program on it."""
    from dorafleet.coordinator.incidentmessages import UploadedRef

    ref = UploadedRef(id=incident, robot=robot, dataflow=dataflow)
    targets = targets_of(state, port)
    uploaded = _ask(targets, ref)
    file = _cache() / f"{_file_name(uploaded)}.mcap"
    if not file.exists():
        _fetch(targets, ref, uploaded, file)
    command = shlex.split(program)
    if command[:1] == ["dora"] and shutil.which("dora") is None:
        command[:1] = [sys.executable, "-m", "dorad.cli"]
    try:
        return subprocess.run([*command, str(file)], check=False).returncode
    except (OSError, IndexError) as error:
        raise click.ClickException(f"{program} cannot be run: {error}") from None


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".cache"
    folder = home / "dorafleet" / "incidents"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _file_name(each: UploadedIncident) -> str:
    return re.sub(r"[^\w.-]", "_", f"{each.robot}-{each.dataflow}-{each.id}-{int(each.at or 0)}")


def _ask(targets: Targets, ref: UploadedRef) -> UploadedIncident:
    from dorafleet.coordinator.incidentmessages import INCIDENTS_FETCH

    with connect_to(targets) as client:
        return client.call(INCIDENTS_FETCH, ref).incident


def _fetch(targets: Targets, ref: UploadedRef, incident: UploadedIncident, target: Path) -> int:
    """Write an incident to a recording; return the number of its messages.

    Raises:
        click.ClickException: the file exists, or the incident does not arrive.
        ProblemError: the coordinator refuses, or the recording cannot be written.
    """
    from dorad.atomicfile import temporary_folder
    from dorad.control.incidentfiles import IncidentKey
    from dorad.record.edit import merge
    from dorad.release.disk import link_or_copy
    from dorafleet.coordinator.keptincidents import IncidentSettings, KeptIncidents

    if target.exists():
        raise click.ClickException(f"{target} exists already; name another file with -o")
    bounds = IncidentSettings(limit=NO_LIMIT, per_robot=NO_LIMIT)
    # One folder for each incident: what has arrived of it stays there until it is complete.
    folder = _cache() / f".{_file_name(incident)}"
    cache = KeptIncidents(folder, bounds)
    key = IncidentKey(incident.dataflow, incident.id)
    asyncio.run(_receive(targets, ref, cache, incident))
    here = cache.of(incident.robot)
    kept = here.find(key)
    assert kept is not None
    near = target.absolute().parent
    with temporary_folder(near, ".incident-") as parts:
        segments = [parts / name for name in sorted(kept.names)]
        for path in segments:
            sha256 = kept.names[path.name]
            source = here.path(sha256, kept.files[sha256])
            try:
                link_or_copy(source, path)
            except OSError:  # another file system
                shutil.copy(source, path)
        start = int((incident.time - incident.before) * 1e9)
        end = int((incident.time + incident.after) * 1e9)
        copied = merge(segments, target, start=start, end=end)
    shutil.rmtree(folder)
    return copied.messages


async def _receive(
    targets: Targets, ref: UploadedRef, cache: KeptIncidents, incident: UploadedIncident
) -> None:
    """Receive the files of an incident into the cache, over lost connections."""
    from websockets.exceptions import ConnectionClosed

    from dorad.control.asyncclient import AsyncClient
    from dorad.control.errors import ControlError
    from dorad.control.incidentfiles import IncidentKey
    from dorad.release.connection import receive_over
    from dorad.release.receive import SenderLostError
    from dorafleet.coordinator.incidentmessages import INCIDENT_TICKET, INCIDENTS_FETCH
    from dorafleet.coordinator.keptincidents import IncidentArrival

    here = cache.of(incident.robot)
    arrival = IncidentArrival(here, IncidentKey(incident.dataflow, incident.id))
    why: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            async with AsyncClient(targets) as client:
                ticket = await client.call(INCIDENTS_FETCH, ref)
                headers = {INCIDENT_TICKET: ticket.ticket}
                async with client.beside(ticket.path, headers) as connection:
                    await receive_over(connection, arrival)
                    return
        except (SenderLostError, ConnectionClosed, OSError) as error:
            why = error
        except ControlError as error:
            if error.code not in ("unavailable", "deadline", "busy"):
                raise
            why = error
        await asyncio.sleep(RETRY_S)
    raise click.ClickException(f"the connection was lost {ATTEMPTS} times: {why}; run it again")
