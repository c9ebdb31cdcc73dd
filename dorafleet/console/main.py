"""Start the console: for which server, and on which terminal."""

from __future__ import annotations

import os
import sys
import termios
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.control.choosing import chosen
from dorad.control.target import Targets
from dorafleet.console.link.server import Server
from dorafleet.console.options import ConsoleOptions, options_for

if TYPE_CHECKING:
    from dorafleet.console.terminal import Answers


def run(options: ConsoleOptions, *, mouse: bool = True, socket: Path | None = None) -> None:
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


def run_over_ssh(options: ConsoleOptions, host: str, *, mouse: bool = True) -> None:
    """Run the console for one robot: its dorad's socket is forwarded over SSH.

    Raises:
        ProblemError: the robot cannot be reached, or has no dorad that this account may use.
    """
    from dorafleet.console.link.tunnel import Tunnel

    tunnel = Tunnel(host)
    tunnel.check()
    _show(Server(tunnel.open, tunnel.close, host=host), options, mouse=mouse)


ANSWER_S, ANSWER_SSH_S = 1.0, 3.0
"""Seconds that the terminal has to answer a question. A later answer is left out."""


def _asked(options: ConsoleOptions, timeout: float) -> tuple[ConsoleOptions, Answers | None]:
    """Return options that fit the terminal, and its answers with the keys typed meanwhile.

    There are none if it was not asked: it is not a terminal, or what it can show is not used.
    """
    from dorafleet.console.terminal import LIGHT, PICTURE_QUESTIONS, ask, has_placeholders
    from dorafleet.console.themes import USES_TERMINAL_COLOURS

    colours = options.theme not in USES_TERMINAL_COLOURS and not os.environ.get("NO_COLOR")
    pixels = colours and not options.ascii_only
    answers = None
    with suppress(OSError, termios.error):  # the app says that there is no terminal
        keys, screen = sys.stdin.fileno(), sys.stderr.fileno()
        if pixels or options.theme == "auto":
            answers = ask(keys, screen, timeout)
        if pixels and answers is not None and answers.complete and has_placeholders(answers.name):
            more = ask(keys, screen, timeout, PICTURE_QUESTIONS)
            answers = more._replace(brightness=answers.brightness, typed=answers.typed + more.typed)
    if options.theme == "auto":
        light = answers is not None and (answers.brightness or 0.0) >= LIGHT
        options = replace(options, theme="light" if light else "dark")
    return replace(options, pixels=answers is not None and answers.takes_pictures), answers


def _show(server: Server, options: ConsoleOptions, *, mouse: bool) -> None:
    over_ssh = bool(os.environ.get("SSH_CONNECTION"))
    # Over SSH a key's bytes may come one by one. Textual reads the variable when it is imported.
    os.environ.setdefault("ESCDELAY", "300" if over_ssh else "100")
    from dorafleet.console.app import ConsoleApp
    from dorafleet.console.driver import KeyParser, PacedDriver, keys_of
    from dorafleet.console.terminal import LateAnswers

    options, answers = _asked(options, ANSWER_SSH_S if over_ssh else ANSWER_S)
    typed = [] if answers is None else keys_of(answers.typed.decode(errors="replace"))
    if answers is not None and not answers.complete:
        KeyParser.late = LateAnswers(answers.torn.decode(errors="replace"))
    if options.pixels:
        # The number of a picture is a colour. SSH does not pass on that the terminal has them all.
        os.environ["COLORTERM"] = "truecolor"
    app = ConsoleApp(server, options, PacedDriver, typed=typed)
    app.run(mouse=mouse)
    if app.return_code:
        sys.exit(app.return_code)


def top(interval: float, machine: str | None) -> None:
    """Show nodes and edges live, as `dora top` does. Raises as `run`.

    `interval` are the seconds between two measurements, `machine` the only robot to show.
    """
    run(options_for(os.environ, start="top", robot=machine, interval=interval))
