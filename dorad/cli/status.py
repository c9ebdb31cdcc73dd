"""`dora status`: show the state of the daemon, or of the coordinator."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dorad.cli.select import connect
from dorad.commandline.files import DataflowFile
from dorad.commandline.groups import Group
from dorad.commandline.tables import age, format_option, megabytes, percent, print_object
from dorad.natural import natural_item
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dorad.control.client import Client
    from dorad.control.messages import DaemonStatus, Network

EPILOG = """\b
Examples:
  dora status
  dora status --format json
  dora status --dataflow robot.yml     check the file as well, like `dora validate`

Exit code 1 if no daemon, or with --coordinator-addr no coordinator, answers. `dora doctor` checks
more.
"""


_WORDS = {"unavailable": "not running", "deadline": "not answering"}
"""The state of a server, by the code of the error."""


@click.command(epilog=EPILOG)
@format_option
@click.option("--dataflow", "path", type=DataflowFile(), help="Also check this dataflow file.")
def status(*, style: str, path: Path | None) -> int:
    """Show whether the daemon runs, and how many dataflows run under it."""
    from dorad.control.errors import ControlError

    answer: DaemonStatus | Fleet | None = None
    address, error, word = None, "", "running"
    try:
        with connect() as client:
            address = client.server.address
            answer = _ask(client)
    except ControlError as failure:
        error, word = str(failure), _WORDS.get(failure.code, "not reachable")
    if style == "json":
        print_object(_as_json(answer, address, word, error))
    elif isinstance(answer, Fleet):
        _show_fleet(answer, address)
    else:
        _show(answer, address, word, error)
    if path is not None:
        from dorad.commandline.files import load_dataflow

        load_dataflow(path)
        if style == "table":
            click.echo(f"{path}: {click.style('ok', fg='green')}")
    return 1 if answer is None else 0


def _show(status: DaemonStatus | None, address: str | None, word: str, error: str) -> None:
    if status is None:
        click.echo(f"{click.style('✗', fg='red')} {_wanted()}: {word}")
        click.echo(f"  {visible(error)}", err=True)
        return
    click.echo(f"{click.style('✓', fg='green')} dorad {visible(status.version)}: running")
    click.echo(f"  address: {address}")
    click.echo(
        f"  pid {status.pid}, up {age(time.time() - status.started_at)}, "
        f"CPU {percent(status.cpu)}, memory {megabytes(status.memory)}"
    )
    click.echo(visible(f"  state: {status.state}"))
    if status.network is not None:
        for line in network_lines(status.network):
            click.echo(visible(line))
    click.echo(f"active dataflows: {status.dataflows} ({status.nodes} node processes)")
    if status.problem:
        problem = visible(f"nodes cannot be started: {status.problem}")
        click.echo(f"{click.style('✗', fg='red')} {problem}")
    for notice in status.notices:
        click.echo(f"{click.style('note:', fg='yellow', bold=True)} {visible(notice)}")


def _wanted() -> str:
    """Return which kind of server was looked for first."""
    from dorad.control.choosing import chosen
    from dorad.control.target import UnixSocket

    return "dorad" if isinstance(chosen()[0], UnixSocket) else "coordinator"


class Fleet(NamedTuple):
    """What a coordinator says of the whole fleet."""

    status: DaemonStatus
    """Of the coordinator itself."""
    missing: Mapping[str, str]
    """Machines that did not answer, with the reason."""


def _ask(client: Client) -> DaemonStatus | Fleet:
    status = client.status()
    if client.server.path is not None:
        return status
    from dorad.control.messages import DATAFLOW_LIST, Nothing

    return Fleet(status, client.call(DATAFLOW_LIST, Nothing()).missing)


def _show_fleet(fleet: Fleet, address: str | None) -> None:
    status = fleet.status
    click.echo(f"{click.style('✓', fg='green')} coordinator {visible(status.version)}: running")
    click.echo(f"  address: {address}")
    click.echo(f"  pid {status.pid}, up {age(time.time() - status.started_at)}")
    click.echo(f"active dataflows: {status.dataflows} ({status.nodes} nodes)")
    for machine, reason in sorted(fleet.missing.items(), key=natural_item):
        click.echo(f"{click.style('✗', fg='red')} {visible(machine)}: {visible(reason)}")
    for notice in status.notices:
        click.echo(f"{click.style('note:', fg='yellow', bold=True)} {visible(notice)}")


def _as_json(
    answer: DaemonStatus | Fleet | None, address: str | None, word: str, error: str
) -> dict[str, Any]:
    """Return the JSON result: dora's keys first; a daemon is its own coordinator."""
    from msgspec import to_builtins

    if isinstance(answer, Fleet):
        status = answer.status
        return {
            "coordinator": {"status": "running", "address": address, "version": status.version},
            "daemon": {"status": "not running" if answer.missing else "running"},
            "active_dataflows": status.dataflows,
            "nodes": status.nodes,
            "state": status.state,
            "notices": status.notices,
            "missing": dict(answer.missing),
        }

    result: dict[str, Any] = {
        "coordinator": {"status": word, "address": address},
        "daemon": {"status": word},
        "active_dataflows": 0 if answer is None else answer.dataflows,
    }
    if answer is None:
        return result | {"error": error}
    result["daemon"] |= {
        "version": answer.version,
        "pid": answer.pid,
        "started_at": answer.started_at,
        "cpu": answer.cpu,
        "memory": answer.memory,
        "adopted": answer.adopted,
    }
    result |= {"nodes": answer.nodes, "state": answer.state, "notices": answer.notices}
    result |= {"problem": answer.problem or None}
    return result | {"network": None if answer.network is None else to_builtins(answer.network)}


def network_lines(network: Network) -> Iterator[str]:
    """Yield lines about the network: interfaces with an address, and default routes."""
    shown = [each for each in network.interfaces if each.name != "lo" and each.addresses]
    yield "network:" if shown else "network: no interface has an address"
    for each in shown:
        state = "" if each.up else " (down)"
        yield f"  {each.name}{state}: {', '.join(each.addresses)}"
    if shown:
        yield f"  default route: {', '.join(network.defaults) or 'none'}"


system = Group("system", commands={"status": status}, help="The state of the daemon.")
