"""Running a command line: report every error on stderr, and return the exit code."""

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence

import click

from dorad.commandline.streams import abandon_stdout
from dorad.problems import ProblemError

INTERRUPTED = 130
"""The exit code of a command ended by Ctrl-C: 128 + SIGINT, as shells report it."""

_OF_THE_MACHINE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
)
"""Errors about a file for which the machine or its user is the cause, not this program."""


def run_group(
    group: click.Group,
    arguments: Sequence[str],
    program: str,
    complete_variable: str,
    missing: Callable[[ImportError], str | None],
) -> int:
    """Run one command line of `program` and return its exit code.

    0 is success, 1 an error, 2 a usage error, 130 Ctrl-C. `missing` returns the message about a
    library that the user has to install, or None. Any other exception is a bug and propagates. A
    shell requests completions through the environment variable `complete_variable`.
    """
    if complete_variable in os.environ:
        importlib.import_module("dorad.commandline.shells").register()
    colour = False if os.environ.get("NO_COLOR") else None
    try:
        result = group.main(
            list(arguments),
            prog_name=program,
            complete_var=complete_variable,
            standalone_mode=False,
            color=colour,
        )
        sys.stdout.flush()
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else _named(group, program, arguments)
        _print_error(f"{_sentence(error.format_message())} (see `{path} --help`)")
        return error.exit_code
    except click.ClickException as error:
        _print_error(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ProblemError as error:
        for line in error.lines:
            _print_error(line)
        return 1
    except ImportError as error:
        message = missing(error)
        if message is None:
            raise
        _print_error(message)
        return 1
    except UnicodeEncodeError as error:
        _print_error(f"cannot write the output: `{error.object}` is not {error.encoding.upper()}")
        return 1
    except OSError as error:
        if _is_output(error):
            return output_failed(error)
        if isinstance(error, FileNotFoundError) and not _has_folder():
            _print_error("the current directory does not exist any more (change to another one)")
            return 1
        if error.errno not in _OF_THE_MACHINE or error.filename is None:
            raise
        _print_error(f"cannot use {os.fsdecode(error.filename)}: {error.strerror}")
        return 1
    return result if isinstance(result, int) else 0


def output_failed(error: OSError) -> int:
    """Report that output cannot be written, unless its reader closed it; return the exit code."""
    abandon_stdout()
    if not isinstance(error, BrokenPipeError):
        _print_error(f"cannot write the output: {error.strerror}")
    return 1


def _named(group: click.Group, program: str, arguments: Sequence[str]) -> str:
    """Return the command that a line names, for errors of click that do not know theirs."""
    command: click.Command | None = group
    for word in arguments:
        if not isinstance(command, click.Group):
            break
        if not word.startswith("-"):
            command = command.get_command(click.Context(command), word)
            program += f" {word}" if command else ""
    return program


def _is_output(error: OSError) -> bool:
    if isinstance(error, BrokenPipeError):
        return True
    return error.errno in (errno.ENOSPC, errno.EIO) and error.filename is None


def _has_folder() -> bool:
    from pathlib import Path  # imported late: help must be fast

    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _sentence(message: str) -> str:
    """Return click's text of a usage error in the style of dora's own messages."""
    message = message.strip().removesuffix(".").replace("a valid integer range", "a whole number")
    message = message.replace("\n\t", " ")  # lists of choices
    is_a_word = not message[1:2].isupper()  # not JSON, not KEY
    return (message[:1].lower() if is_a_word else message[:1]) + message[1:]


def _print_error(message: str) -> None:
    from dorad.terminal import visible_lines  # imported late: help must be fast

    head = click.style("error:", fg="red", bold=True)
    click.echo(f"{head} {visible_lines(message)}", err=True, color=_colour())


def _colour() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None
