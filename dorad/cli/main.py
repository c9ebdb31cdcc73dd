"""The entry of the `dora` command: the table of commands, errors as one line, exit codes.

`dora --help` has to answer at once, so this module imports click and nothing else; a command's
module is imported when the command is called.
"""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem

from dorad import __version__

COMPLETE_VARIABLE = "_DORA_COMPLETE"
"""The environment variable by which a shell asks for completions."""

INTERRUPTED = 130
"""The exit code of a command ended by Ctrl-C: 128 + SIGINT, as shells report it."""


class Entry(NamedTuple):
    """One row of the table of commands: where the command is, and its line in the help."""

    target: str
    help: str


COMMANDS: dict[str, Entry] = {
    "run": Entry("dorad.cli.run:run", "Run a dataflow on this machine and show its logs."),
    "build": Entry("dorad.cli.build:build", "Run the build commands of a dataflow's nodes."),
    "validate": Entry("dorad.cli.validate:validate", "Check a dataflow file and list problems."),
    "graph": Entry("dorad.cli.graph:graph", "Draw a dataflow as an HTML page or as Mermaid."),
    "expand": Entry("dorad.cli.expand:expand", "Print the flat dataflow, with env filled in."),
    "new": Entry("dorad.cli.new:new", "Make a new dataflow or node, with tests."),
    "completion": Entry("dorad.cli.completion:completion", "Print a shell's completion script."),
}


class LazyGroup(click.Group):
    """A command group that knows its commands by name and imports them one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, which is the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`, or return None when there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name from the table alone, an option as any command does."""
        if incomplete and not incomplete[0].isalnum():
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=entry.help)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command to call; a name that is none of ours gets the nearest suggested."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"no command named '{name}'{_suggestion(name)}", ctx)
        return super().resolve_command(ctx, args)


def _suggestion(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


EPILOG = """\b
Examples:
  dora new hello && cd hello && dora run dataflow.yml
  dora validate dataflow.yml
  dora graph dataflow.yml --open

`dora COMMAND --help` explains one command and gives examples.
"""


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="dora %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Build and run dataflows: processes that exchange Arrow data through shared memory."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def run_command(arguments: Sequence[str]) -> int:
    """Run one `dora` command line and return its exit code; every error is told on stderr.

    0 is success, 1 an error, 2 a usage error, 130 Ctrl-C.
    """
    if COMPLETE_VARIABLE in os.environ:
        importlib.import_module("dorad.cli.shells").register()
    colour = False if os.environ.get("NO_COLOR") else None
    try:
        result = cli.main(
            list(arguments),
            prog_name="dora",
            complete_var=COMPLETE_VARIABLE,
            standalone_mode=False,
            color=colour,
        )
        sys.stdout.flush()
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "dora"
        _tell(f"{_sentence(error.format_message())} (see `{path} --help`)")
        return error.exit_code
    except click.ClickException as error:
        _tell(error.format_message())
        return error.exit_code
    except _dataflow_error() as error:
        for line in str(error).splitlines():
            _tell(line)
        return 1
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        _abandon_stdout()
        _tell(f"cannot write the output: {error.strerror}")
        return 1
    return result if isinstance(result, int) else 0


def _dataflow_error() -> type[Exception]:
    """Return DataflowError; imported when something was raised, so that help stays quick."""
    from dorad.dataflow.errors import DataflowError

    return DataflowError


def _sentence(message: str) -> str:
    """Bring click's wording of a usage error into the form of our own messages."""
    message = message.strip().removesuffix(".")
    return message[:1].lower() + message[1:]


def _tell(message: str) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True, color=_colour())


def _colour() -> bool | None:
    return False if os.environ.get("NO_COLOR") else None


def _abandon_stdout() -> None:
    """Stop the interpreter's last flush from failing as an earlier one did."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """Run the `dora` command with the arguments of this process."""
    sys.exit(run_command(sys.argv[1:]))
