"""`dora stop` and `dora restart`: end dataflows, and start one again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.cli.select import (
    connect,
    dataflow_name,
    label,
    name_option,
    one_name,
    running,
    select,
)
from dorad.commandline.durations import Duration
from dorad.commandline.reports import print_error, report_end
from dorad.commandline.startprogress import report_restart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.control.errors import ControlError
    from dorad.control.messages import DataflowInfo, DataflowState

EPILOG = """\b
Examples:
  dora stop                            stop the only running dataflow
  dora stop demo --grace-duration 2s
  dora stop --all

Nodes get STOP, SIGTERM after the grace duration (10 s), and SIGKILL after half as long again. Exit
code 1 if a node failed. It is not an error if no dataflow is running.
"""

grace_option = click.option(
    "--grace-duration", type=Duration(), metavar="DURATION", help="Time until SIGTERM; default 10s."
)
force_option = click.option("-f", "--force", is_flag=True, help="Kill all nodes at once.")


@click.command(epilog=EPILOG)
@dataflow_name
@name_option
@click.option("--all", "every", is_flag=True, help="Stop all running dataflows.")
@grace_option
@force_option
def stop(
    dataflow: str | None,
    *,
    name: str | None,
    every: bool,
    grace_duration: float | None,
    force: bool,
) -> int:
    """Stop a dataflow and wait until it has ended."""
    given = one_name(dataflow, name)
    if every and given is not None:
        raise click.UsageError("--all stops every dataflow; leave out the name")
    with connect() as client:
        if every:
            return _stop_all(running(client), grace_duration, force=force)
        if given is None and not running(client):
            return _nothing()
        state = client.stop(select(client, given), grace=grace_duration, force=force)
    return 0 if report_end(state) else 1


def _nothing() -> int:
    click.echo("no dataflow is running")
    return 0


def _stop_all(dataflows: Sequence[DataflowInfo], grace: float | None, *, force: bool) -> int:
    """Stop dataflows at the same time, so that their grace durations do not add up; report each."""
    import asyncio

    from dorad.control.errors import ControlError

    if not dataflows:
        return _nothing()
    ends = asyncio.run(_stop_together([info.uuid for info in dataflows], grace, force=force))
    stopped = [label(info) for info, end in zip(dataflows, ends, strict=True) if _stopped(end)]
    count = "1 dataflow" if len(dataflows) == 1 else f"{len(dataflows)} dataflows"
    if len(stopped) == len(dataflows):
        click.echo(f"stopped {count}")
    else:
        names = f": {', '.join(stopped)}" if stopped else ""
        click.echo(f"stopped {len(stopped)} of {count}{names}")
    fine = True
    for info, end in zip(dataflows, ends, strict=True):
        if isinstance(end, ControlError):
            print_error(f"dataflow {label(info)} was not stopped: {end}")
            fine = False
        else:
            fine &= report_end(end)
    return 0 if fine else 1


async def _stop_together(
    dataflows: Sequence[str], grace: float | None, *, force: bool
) -> list[DataflowState | ControlError]:
    """Return how each dataflow ended, or why it was not stopped.

    Uses several connections, because the daemon limits the number of calls of one client.
    """
    import asyncio

    from dorad.control.asyncclient import AsyncClient
    from dorad.control.errors import ControlError
    from dorad.control.limits import Limits

    async def stop_one(client: AsyncClient, uuid: str) -> DataflowState | ControlError:
        try:
            return await client.stop(uuid, grace=grace, force=force)
        except ControlError as error:
            return error

    async def stop_some(uuids: Sequence[str]) -> list[DataflowState | ControlError]:
        try:
            async with AsyncClient() as client:
                return await asyncio.gather(*(stop_one(client, uuid) for uuid in uuids))
        except ControlError as error:  # there is no connection
            return [error] * len(uuids)

    size = Limits().calls
    parts = [dataflows[start : start + size] for start in range(0, len(dataflows), size)]
    ends = await asyncio.gather(*map(stop_some, parts))
    return [end for part in ends for end in part]


def _stopped(end: DataflowState | ControlError) -> bool:
    return not isinstance(end, Exception)


RESTART_EPILOG = """\b
Examples:
  dora restart demo
  dora restart --grace-duration 2s

The new run keeps the nodes and edges that were added or removed since the start, and lists them.
The file is not read again; for that, stop and start the dataflow. A UUID also names a dataflow that
has ended, which begins again. Exit code 1 if the new run does not start.
"""


@click.command(epilog=RESTART_EPILOG)
@dataflow_name
@name_option
@grace_option
@force_option
def restart(
    dataflow: str | None, *, name: str | None, grace_duration: float | None, force: bool
) -> int:
    """Stop a dataflow and start it again with its changes, under a new UUID."""
    given = one_name(dataflow, name)
    with connect() as client:
        result = client.restart(select(client, given), grace=grace_duration, force=force)
        return report_restart(client, result)
