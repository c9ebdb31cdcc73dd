"""Connect to the coordinator that a command talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from dorad.commandline.reports import print_leader
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dorad.control.client import Client
    from dorad.control.target import Targets, Tcp
    from dorafleet.coordinator.messages import AlertReceivers, Robot
    from dorafleet.inventory.model import Cluster, Machine


def folder_of(state: Path) -> Path:
    """Return the folder of `--state`, else of the user's coordinator, else of the machine's."""
    from dorad.control.choosing import coordinator_folder

    return state if _is_given("state") else coordinator_folder()


def targets_of(state: Path, port: int) -> tuple[Tcp, ...]:
    """Return the coordinators to try, of which one leads; `--state` and `--port` name a single one.

    Without those options they are those in the variables or in the settings of the user, else the
    one of this machine.
    """
    from dorad.control.choosing import chosen, encrypts, in_folder
    from dorad.control.target import Tcp

    folder = folder_of(state)
    own = in_folder(folder, port, encrypts=encrypts(folder))
    if _is_given("state", "port"):
        return (own,)
    return tuple(each for each in chosen() if isinstance(each, Tcp)) or (own,)


def port_of(cluster: Cluster | None, port: int) -> int:
    """Return the value of `--port`, without that option the port in the cluster file, if any."""
    return port if cluster is None or _is_given("port") else cluster.coordinator.port


def connect(state: Path, port: int) -> Client:
    """Connect to the coordinator that leads, of those in `targets_of`.

    Raises:
        ControlError: none answers, or one refuses this client.
    """
    return connect_to(targets_of(state, port))


def connect_to(targets: Targets | None = None) -> Client:
    """Connect to the first of these servers that answers, by default of those of the user.

    It reports which coordinator leads if another one was asked first.

    Raises:
        ControlError: none answers, or one refuses this client.
    """
    from dorad.control.client import Client

    client = Client(targets)
    print_leader(client)
    return client


def list_robots(client: Client) -> list[Robot]:
    """Return all machines that the coordinator knows."""
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.messages import ROBOT_LIST

    return client.call(ROBOT_LIST, Nothing()).robots


def list_receivers(client: Client) -> AlertReceivers:
    """Return where the server sends alerts; none if it is a daemon, or of an older version."""
    from dorad.control.errors import ControlError
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.messages import ALERTS_RECEIVERS, AlertReceivers

    try:
        return client.call(ALERTS_RECEIVERS, Nothing())
    except ControlError as error:
        if error.code not in ("unknown-method", "unsupported"):
            raise
        return AlertReceivers(receivers=[])


def check_known(client: Client, machines: Sequence[Machine]) -> None:
    """Check that these machines are in the fleet.

    Raises:
        click.ClickException: it does not know some.
    """
    known = {robot.id for robot in list_robots(client)}
    unknown = [visible(machine.id) for machine in machines if machine.id not in known]
    if unknown:
        raise click.ClickException(
            f"not in the fleet: {', '.join(unknown)} (`dorafleet up FILE` adds the machines of the "
            "file, `dorafleet robot add` one)"
        )


def _is_given(*options: str) -> bool:
    """Return True if one of these options is on the command line."""
    context = click.get_current_context()
    return ParameterSource.COMMANDLINE in map(context.get_parameter_source, options)
