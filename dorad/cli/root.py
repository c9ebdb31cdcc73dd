"""The `dora` command for click: its groups and options, and which errors are told as lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import click

from dorad import __version__
from dorad.cli.groups import LazyGroup
from dorad.cli.main import ABOUT, COMMANDS, COMPLETE_VARIABLE, EPILOG, MOVED_COMMANDS, page
from dorad.cli.outcome import run_group
from dorad.cli.page import MAX_WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.cli.page import CommandEntry
    from dorad.control.errors import ControlError

MISSING_LIBRARY = "libatomic.so.1"
"""What `dorad.shm.fence` needs on arm64; the one import that fails where all of dorad is there."""


WITH_DAEMON = frozenset(
    (
        *("up", "down", "destroy", "start", "stop", "restart", "enable", "disable", "list", "ps"),
        *("logs", "clean", "status", "check", "doctor", "top", "node", "topic", "param"),
        *("system", "inspect"),
    )
)
"""The commands that talk to a daemon, and so can be told to which."""


class Cli(LazyGroup):
    """All commands."""

    table: ClassVar[dict[str, CommandEntry]] = COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`; one that talks to a daemon can be told to which."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and cmd_name in WITH_DAEMON:
            from dorad.cli.instance import add_options

            add_options(command)
        return command

    def unknown(self, name: str, names: list[str]) -> str:
        """Say of a command of dora 1.x what takes its place."""
        if name in MOVED_COMMANDS:
            return f"`dora {name}` {MOVED_COMMANDS[name]}"
        return super().unknown(name, names)

    def get_help(self, ctx: click.Context) -> str:
        """Return the page that `dora --help` prints without click."""
        del ctx
        return page()


@click.group(
    cls=Cli,
    help=ABOUT,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MAX_WIDTH},
)
@click.version_option(__version__, "-V", "--version", message="dora %(version)s")
def cli() -> None:
    """Hold the commands."""


def run_command(arguments: Sequence[str]) -> int:
    """Run one `dora` command line, whatever it is, and return its exit code."""
    return run_group(cli, arguments, "dora", COMPLETE_VARIABLE, _problems)


def _problems(error: Exception) -> Sequence[str] | None:
    """Return the lines of an error that is told without a traceback."""
    if isinstance(error, _dataflow_error()):
        return str(error).splitlines()
    if isinstance(error, _control_error()):
        return error.problems or [str(error)]
    if isinstance(error, ImportError) and error.name == MISSING_LIBRARY:
        return [str(error)]
    return None


def _dataflow_error() -> type[Exception]:
    """Return DataflowError; imported when something was raised, so that help stays quick."""
    from dorad.dataflow.errors import DataflowError

    return DataflowError


def _control_error() -> type[ControlError]:
    """Return ControlError, in the same way."""
    from dorad.control.errors import ControlError

    return ControlError
