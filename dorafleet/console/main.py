"""Start the console: for which server, and on which terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from dorad.control.choosing import chosen
from dorafleet.console.link.server import Server
from dorafleet.console.options import Options, options_for

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.control.target import Targets


def run(options: Options, *, mouse: bool = True, socket: Path | None = None) -> None:
    """Run the console until the operator quits. `socket` is the only server to use.

    Raises:
        ControlError: a variable or the settings are invalid.
        DataflowError: the settings have problems.
    """
    from dorad.control.target import UnixSocket

    targets: Targets = chosen() if socket is None else (UnixSocket(socket),)

    async def opened() -> Targets:
        return targets

    _show(Server(opened), options, mouse=mouse)


def run_over_ssh(options: Options, host: str, *, mouse: bool = True) -> None:
    """Run the console for one robot: its dorad's socket is forwarded over SSH.

    Raises:
        ProblemError: the robot cannot be reached, or has no dorad that this account may use.
    """
    from dorafleet.console.link.tunnel import Tunnel

    tunnel = Tunnel(host)
    tunnel.check()
    _show(Server(tunnel.open, tunnel.close, host=host), options, mouse=mouse)


def _show(server: Server, options: Options, *, mouse: bool) -> None:
    # Over SSH a key's bytes may come one by one. Textual reads the variable when it is imported.
    os.environ.setdefault("ESCDELAY", "300" if os.environ.get("SSH_CONNECTION") else "100")
    from dorafleet.console.app import ConsoleApp
    from dorafleet.console.driver import PacedDriver

    app = ConsoleApp(server, options, PacedDriver)
    app.run(mouse=mouse)
    if app.return_code:
        sys.exit(app.return_code)


def top(interval: float, machine: str | None) -> None:
    """Show nodes and edges live, as `dora top` does. Raises as `run`.

    `interval` are the seconds between two measurements, `machine` the only robot to show.
    """
    run(options_for(os.environ, start="top", robot=machine, interval=interval))
