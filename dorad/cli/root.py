"""The `dora` command as a click group, and its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import click

from dorad.cli.commands import ABOUT, COMMANDS, COMPLETE_VARIABLE, EPILOG, MOVED_COMMANDS, page
from dorad.commandline.groups import LazyGroup
from dorad.commandline.outcome import run_group
from dorad.commandline.page import MAX_WIDTH, CommandEntry
from dorad.version import version_option

MISSING_LIBRARY = "libatomic.so.1"
"""The library that `dorad.shm.fence` needs on arm64. pip cannot install it."""


class Cli(LazyGroup):
    """The group of all commands."""

    table: ClassVar[dict[str, CommandEntry]] = COMMANDS

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
