"""`dorafleet uninstall`: take machines out of the fleet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import over_ssh, state_option
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.cli.arguments import OverSsh
    from dorafleet.cli.reporting import Reporter
    from dorafleet.inventory.model import Machine
    from dorafleet.ssh.fanout import Outcome

EPILOG = """\b
Examples:
  dorafleet uninstall cluster.yml --only arm3
  dorafleet uninstall cluster.yml
\b
The agent of each machine is stopped and disabled, and its certificate is revoked. The machine's own
dorad keeps running its dataflows; `dora stop` and `apt-get remove dorad` there end them. The
machine is shown as `refused` until it is removed from the coordinator's cluster file.
Exit code 0: success on all machines. 1: some failed, and they are named.
"""


@click.command(epilog=EPILOG)
@over_ssh()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The coordinator's port.  [default: `coordinator.port` of FILE]",
)
@state_option
def uninstall(over: OverSsh, *, port: int | None, state: Path) -> int:
    """Stop the agents of the machines in FILE, and revoke their certificates."""
    from dorafleet.cli.reporting import Reporter, check_outcomes

    with connect(state, port or over.cluster.coordinator.port) as client:
        with Reporter(over.ids, 0) as reporter:
            work = _Remover(client, reporter, accept_new=over.accept_new)
            outcomes = asyncio.run(work.run(over.machines, over.parallel))
    check_outcomes(outcomes)
    return 0


class _Remover:
    """Takes machines out of one fleet."""

    def __init__(self, client: Client, reporter: Reporter, *, accept_new: bool) -> None:
        self._client = client
        self._reporter = reporter
        self._accept_new = accept_new
        self._enrolled: frozenset[str] = frozenset()

    async def run(self, machines: Sequence[Machine], parallel: int) -> list[Outcome[str]]:
        """Take out up to `parallel` machines at once; return the outcomes in order."""
        from dorad.control.messages import Nothing
        from dorafleet.coordinator.accessmessages import ACCESS_LIST
        from dorafleet.ssh.fanout import run_on_each

        listed = await asyncio.to_thread(self._client.call, ACCESS_LIST, Nothing())
        self._enrolled = frozenset(
            grant.name for grant in listed.grants if grant.kind == "robot" and not grant.revoked
        )
        return await run_on_each(
            machines, self._remove, parallel=parallel, on_outcome=self._reporter.outcome
        )

    async def _remove(self, machine: Machine) -> str:
        from dorad.control.errors import ControlError
        from dorafleet.coordinator.accessmessages import ACCESS_REVOKE, Revoke
        from dorafleet.robot.enrol import as_ssh_error
        from dorafleet.robot.units import disable_agent
        from dorafleet.ssh.connection import connect as connect_ssh

        async with connect_ssh(machine, accept_new=self._accept_new) as robot:
            self._reporter.step(machine.id, "stopping the agent")
            await disable_agent(robot)
        if machine.id not in self._enrolled:
            return "its agent is stopped; it was not enrolled"
        self._reporter.step(machine.id, "revoking its certificate")
        params = Revoke(kind="robot", name=machine.id)
        try:
            await asyncio.to_thread(self._client.call, ACCESS_REVOKE, params)
        except ControlError as error:
            raise as_ssh_error(error) from error
        return "its agent is stopped, its certificate revoked; its dataflows keep running"
