"""The `dora` command for click: its groups and options."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import click

from dorad.cli.groups import LazyGroup
from dorad.cli.main import ABOUT, COMMANDS, COMPLETE_VARIABLE, EPILOG, MOVED_COMMANDS, page
from dorad.cli.outcome import run_group
from dorad.cli.page import MAX_WIDTH
from dorad.version import version_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.cli.page import CommandEntry

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
@version_option("dora")
def cli() -> None:
    """Hold the commands."""


def run_command(arguments: Sequence[str]) -> int:
    """Run one `dora` command line, whatever it is, and return its exit code."""
    return run_group(cli, arguments, "dora", COMPLETE_VARIABLE, _missing)


def _missing(error: ImportError) -> str | None:
    """Return the message for a library that dorad needs and this machine lacks."""
    return str(error) if error.name == MISSING_LIBRARY else None
