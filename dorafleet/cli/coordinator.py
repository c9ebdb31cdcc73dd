"""Connect to the coordinator that a command talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.client import Client
    from dorad.control.target import Tcp
    from dorafleet.coordinator.messages import Robot
    from dorafleet.inventory.model import Cluster


def serves_tls(state: Path) -> bool:
    """Return True if the coordinator with this folder listens with TLS."""
    from dorad.control.choosing import encrypts

    return encrypts(state)


def folder_of(state: Path) -> Path:
    """Return the folder of `--state`, else of the user's coordinator, else of the machine's."""
    from dorad.control.choosing import coordinator_folder

    return state if _is_given("state") else coordinator_folder()


def target_of(state: Path, port: int) -> Tcp:
    """Return where the coordinator is that `--state` and `--port` name.

    Without those options it is the one in the variables or in the settings of the user, else the
    one of this machine.
    """
    from dorad.control.choosing import chosen, in_folder
    from dorad.control.target import Tcp

    folder = folder_of(state)
    own = in_folder(folder, port, encrypts=serves_tls(folder))
    if _is_given("state", "port"):
        return own
    return next((each for each in chosen() if isinstance(each, Tcp)), own)


def port_of(cluster: Cluster | None, port: int) -> int:
    """Return the value of `--port`, without that option the port in the cluster file, if any."""
    return port if cluster is None or _is_given("port") else cluster.coordinator.port


def connect(state: Path, port: int) -> Client:
    """Connect to the coordinator at `target_of`.

    Raises:
        ControlError: it does not run, or refuses this client.
    """
    from dorad.control.client import Client
    from dorafleet.coordinator.messages import METHODS

    return Client(target_of(state, port), methods=METHODS)


def list_robots(client: Client) -> list[Robot]:
    """Return all machines that the coordinator knows."""
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.messages import RobotList

    return client.call("robot.list", Nothing(), RobotList).robots


def _is_given(*options: str) -> bool:
    """Return True if one of these options is on the command line."""
    context = click.get_current_context()
    return ParameterSource.COMMANDLINE in map(context.get_parameter_source, options)
