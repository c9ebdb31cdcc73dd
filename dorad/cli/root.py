"""The `dora` command as a click group, and its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import click

from dorad.cli.commands import ABOUT, COMMANDS, COMPLETE_VARIABLE, EPILOG, MOVED_COMMANDS, page
from dorad.cli.groups import LazyGroup
from dorad.cli.outcome import run_group
from dorad.cli.page import MAX_WIDTH
from dorad.version import version_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.cli.page import CommandEntry

MISSING_LIBRARY = "libatomic.so.1"
"""The library that `dorad.shm.fence` needs on arm64. pip cannot install it."""


class Cli(LazyGroup):
    """The group of all commands."""

    table: ClassVar[dict[str, CommandEntry]] = COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`; add the options that choose a daemon if it needs one."""
        command, entry = super().get_command(ctx, cmd_name), COMMANDS.get(cmd_name)
        if command is not None and entry is not None and entry.server:
            from dorad.cli.instance import add_options

            add_options(command)
        return command

    def unknown(self, name: str, names: list[str]) -> str:
        """Return the error message; for a command of dora 1.x it names the replacement."""
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
@version_option("dora")
def cli() -> None:
    """Run one of the commands."""


def run_command(arguments: Sequence[str]) -> int:
    """Run one `dora` command line and return its exit code."""
    return run_group(cli, arguments, "dora", COMPLETE_VARIABLE, _missing)


def _missing(error: ImportError) -> str | None:
    """Return the message about a missing system library; None for any other import error."""
    return str(error) if error.name == MISSING_LIBRARY else None
