"""`dora stop`: stop a dataflow, or all, and wait for the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.cli.durations import Duration
from dorad.cli.select import connect, dataflow_name, name_option, one_name, running, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.control.messages import DataflowState

EPILOG = """\b
Examples:
  dora stop                            the only one that runs
  dora stop demo --grace-duration 2s
  dora stop --all

Nodes get STOP, SIGTERM after the grace (10 s), and SIGKILL after half as long again. Exit code 1
if a node failed. With nothing to stop it says so, and that is no error.
"""

grace_option = click.option(
    "--grace-duration", type=Duration(), metavar="DURATION", help="Time until SIGTERM; default 10s."
)
force_option = click.option("-f", "--force", is_flag=True, help="Kill all nodes at once.")


@click.command(epilog=EPILOG)
@dataflow_name
@name_option
@click.option("--all", "every", is_flag=True, help="Stop every dataflow that runs.")
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
    """Stop a dataflow and wait for its end."""
    given = one_name(dataflow, name)
    if every and given is not None:
        raise click.UsageError("--all stops every dataflow; leave the name out")
    with connect() as client:
        if every:
            return _stop_all([info.uuid for info in running(client)], grace_duration, force=force)
        if given is None and not running(client):
            return _nothing()
        state = client.stop(select(client, given), grace=grace_duration, force=force)
    return 0 if report_end(state) else 1


def _nothing() -> int:
    click.echo("no dataflow is running")
    return 0


def _stop_all(dataflows: Sequence[str], grace: float | None, *, force: bool) -> int:
    """Stop dataflows at the same time, so that their graces do not add up."""
    import asyncio

    from dorad.control.asyncclient import AsyncClient

    async def stop_together() -> list[DataflowState]:
        async with AsyncClient() as client:
            stops = (client.stop(uuid, grace=grace, force=force) for uuid in dataflows)
            return await asyncio.gather(*stops)

    if not dataflows:
        return _nothing()
    states = asyncio.run(stop_together())
    click.echo(f"stopped {len(states)} dataflow{'s' if len(states) > 1 else ''}")
    fine = [report_end(state) for state in states]
    return 0 if all(fine) else 1


def report_end(state: DataflowState) -> bool:
    """Tell why a dataflow failed; return whether it did not."""
    if state.status != "failed":
        return True
    from dorad.cli.session import tell_failures

    tell_failures(state.failures)
    return False
