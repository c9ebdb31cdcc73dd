"""Groups of commands: suggestions for typos, and commands that are imported when called."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, ClassVar

import click

from dorad.commandline.page import CommandEntry

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["CommandEntry", "Group", "LazyGroup"]


@click.command("help", add_help_option=False)
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help_command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of this group or of one of its commands."""
    assert ctx.parent is not None
    about = ctx.parent
    for word in words:
        group = about.command
        if not isinstance(group, click.Group):
            raise click.UsageError(f"`{about.command_path}` has no commands", about)
        name, command, _ = group.resolve_command(about, [word])
        assert command is not None
        about = click.Context(command, about, name, **command.context_settings)
    click.echo(about.get_help())


class Group(click.Group):
    """A group with the command `help` that lists its commands in the order of definition."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of definition."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command `cmd_name`, or None if there is no such command."""
        return help_command if cmd_name == "help" else super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Without any, print the help and exit with a usage error."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command to call. For an unknown name, suggest the nearest one."""
        name = args[0]
        names = self.list_commands(ctx)
        if not name.startswith("-") and name not in names and self.get_command(ctx, name) is None:
            raise click.UsageError(self.unknown(name, names), ctx)
        return super().resolve_command(ctx, args)

    def unknown(self, name: str, names: list[str]) -> str:
        """Return the error message for an unknown command."""
        return f"no command named '{name}'{_suggestion(name, names)}"


class LazyGroup(Group):
    """A group that has a table of its commands and imports only the one that is called."""

    table: ClassVar[dict[str, CommandEntry]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return [name for name, entry in self.table.items() if not entry.hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command `cmd_name`, or None if there is no such command.

        It gets the options that choose a server if its entry says so.
        """
        entry = self.table.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        if entry.server:
            from dorad.commandline.instance import add_options

            add_options(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self.table[name].summary) for name in self.list_commands(ctx)]
            )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name from the table, without importing it, or an option."""
        if incomplete and not incomplete[0].isalnum():
            return click.Command.shell_complete(self, ctx, incomplete)
        from click.shell_completion import CompletionItem  # no other command line needs it

        return [
            CompletionItem(name, help=self.table[name].summary)
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]


def _suggestion(name: str, names: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
