"""`dorafleet uninstall`: take machines out of the fleet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import OverSsh, file_port_option, over_ssh, state_option
from dorafleet.cli.coordinator import connect

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.client import Client
    from dorafleet.cli.progress import Reporter
    from dorafleet.inventory.model import Machine

EPILOG = """\b
Examples:
  dorafleet uninstall cluster.yml --only arm3
  dorafleet uninstall cluster.yml
\b
The agent of each machine is stopped and disabled, and its certificate is revoked. The machine's own
dorad keeps running its dataflows; `dora stop` and `apt-get remove dorad` there end them. The
machine is shown as `refused` until it is removed from the fleet: `dorafleet robot remove`.
Exit code 0: success on all machines. 1: some failed, and they are named.
"""


@click.command(epilog=EPILOG)
@over_ssh()
@file_port_option
@state_option
def uninstall(over: OverSsh, *, port: int | None, state: Path) -> int:
    """Stop the agents of the machines in FILE, and revoke their certificates."""
    from dorafleet.cli.enrol import ask_known
    from dorafleet.cli.progress import Reporter, check_outcomes

    with connect(state, port or over.cluster.coordinator.port) as client:
        known = ask_known(client)
        with Reporter(over.ids, 0) as reporter:

            async def remove(machine: Machine) -> str:
                enrolled = known.get(machine.id) == "enrolled"
                return await _remove(client, machine, over, reporter, enrolled=enrolled)

            outcomes = over.run(remove, reporter.outcome)
    check_outcomes(outcomes)
    return 0


async def _remove(
    client: Client, machine: Machine, over: OverSsh, reporter: Reporter, *, enrolled: bool
) -> str:
    """Take one machine out of the fleet; return what was done. Raises SshError."""
    from dorad.control.errors import ControlError
    from dorafleet.coordinator.accessmessages import ACCESS_REVOKE, Revoke
    from dorafleet.robot.enrol import as_ssh_error
    from dorafleet.robot.state import disable_agent
    from dorafleet.ssh.connection import connect as connect_ssh

    async with connect_ssh(machine, accept_new=over.accept_new) as robot:
        reporter.step(machine.id, "stopping the agent")
        await disable_agent(robot)
    if not enrolled:
        return "its agent is stopped; it was not enrolled"
    reporter.step(machine.id, "revoking its certificate")
    params = Revoke(kind="robot", name=machine.id)
    try:
        await asyncio.to_thread(client.call, ACCESS_REVOKE, params)
    except ControlError as error:
        raise as_ssh_error(error) from error
    return "its agent is stopped, its certificate revoked; its dataflows keep running"
