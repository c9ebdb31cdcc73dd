"""Connect to the coordinator that a command talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.client import Client


def connect(state: Path, port: int) -> Client:
    """Connect to the coordinator that `--state` and `--port` name.

    Without those options it is the one in the variables or in the settings of the user, else the
    one of this machine.

    Raises:
        ControlError: it does not run, or refuses this client.
    """
    from dorad.control.choosing import chosen, encrypts, in_folder
    from dorad.control.client import Client
    from dorad.control.target import Tcp
    from dorafleet.coordinator.messages import METHODS

    target = in_folder(state, port, encrypts=encrypts(state))
    if not _is_given("state", "port"):
        target = next((each for each in chosen() if isinstance(each, Tcp)), target)
    return Client(target, methods=METHODS)


def _is_given(*options: str) -> bool:
    """Return True if one of these options is on the command line."""
    context = click.get_current_context()
    sources = map(context.get_parameter_source, options)
    return ParameterSource.COMMANDLINE in sources
