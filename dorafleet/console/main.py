"""Start the console: which server, which terminal, which theme."""

from __future__ import annotations

import locale
import os
import shlex
import sys
from typing import TYPE_CHECKING

from dorad.control.choosing import chosen, server_variables
from dorafleet.console.app import ConsoleApp, Options
from dorafleet.console.driver import PacedDriver
from dorafleet.console.link.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.control.target import Targets


def options_for(
    environment: Mapping[str, str],
    *,
    readonly: bool = False,
    ascii_only: bool = False,
    theme: str | None = None,
    start: str = "fleet",
    robot: str | None = None,
    interval: float = 1.0,
    encoding: str | None = None,
) -> Options:
    """Return how the console behaves on this terminal. `encoding` is that of the terminal.

    Without UTF-8 only ASCII is shown; with NO_COLOR there is no colour; a terminal of 16 colours
    gets these.
    """
    encoding = encoding or locale.getencoding()
    plain = ascii_only or encoding.lower().replace("-", "") not in ("utf8", "utf_8")
    if theme is None:
        rich = environment.get("COLORTERM") in ("truecolor", "24bit")
        rich = rich or "256color" in environment.get("TERM", "")
        theme = "mono" if environment.get("NO_COLOR") else "dark" if rich else "ansi"
    if robot is not None:
        start = f"{start} {shlex.quote(robot)}"
    return Options(readonly, plain, theme, start, interval, server_variables(environment))


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

    _show(ConsoleApp(Server(opened), options, PacedDriver), mouse=mouse)


def run_over_ssh(options: Options, host: str, *, mouse: bool = True) -> None:
    """Run the console for one robot: its dorad's socket is forwarded over SSH.

    Raises:
        ProblemError: the robot cannot be reached, or has no dorad that this account may use.
    """
    from dorafleet.console.link.tunnel import Tunnel

    tunnel = Tunnel(host)
    tunnel.check()
    _show(
        ConsoleApp(Server(tunnel.open, tunnel.close, host=host), options, PacedDriver), mouse=mouse
    )


def _show(app: ConsoleApp, *, mouse: bool) -> None:
    # Over SSH a key's bytes may come one by one.
    os.environ.setdefault("ESCDELAY", "300" if os.environ.get("SSH_CONNECTION") else "100")
    app.run(mouse=mouse)
    if app.return_code:
        sys.exit(app.return_code)


def top(interval: float, machine: str | None) -> None:
    """Show nodes and edges live, as `dora top` does. Raises as `run`.

    `interval` are the seconds between two measurements, `machine` the only robot to show.
    """
    run(options_for(os.environ, start="top", robot=machine, interval=interval))
