"""A service as a program: log level of its command line, errors on stderr, exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from dorad.exit import exit_at_once
from dorad.problems import ProblemError
from dorad.terminal import visible_lines

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 + SIGINT, as shells report it."""


def log_level(*, verbose: bool) -> str | None:
    """Return the level of `-v`, else that of the environment, else None.

    Raises:
        click.UsageError: the environment names an unknown level.
    """
    from dorad import ownlog

    try:
        return "debug" if verbose else ownlog.level_of(os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def run_program(command: click.Command, name: str) -> NoReturn:
    """Run a program with the arguments of this process, and exit.

    The exit code is that of the command, 1 after an error, 2 after a usage error.
    """
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        program = name if error.ctx is None else error.ctx.command_path
        _end(2, [f"{error.format_message()} (see `{program} --help`)"])
    except click.ClickException as error:
        _end(1, [error.format_message()])
    except ProblemError as error:
        _end(1, error.lines)
    except OSError as error:
        _end(1, [f"{error.filename}: {error.strerror}" if error.filename else str(error)])
    except click.Abort:
        sys.exit(INTERRUPTED)
    exit_at_once(code or 0)


def _end(code: int, lines: Sequence[str]) -> NoReturn:
    for line in lines:
        click.echo(f"error: {visible_lines(line)}", err=True)
    sys.exit(code)
