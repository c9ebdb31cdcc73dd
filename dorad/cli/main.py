"""The entry of the `dora` command: the table of commands, errors as one line, exit codes.

`dora --help` has to answer at once, so this module imports click and nothing else; a command's
module is imported when the command is called.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NoReturn

import click

from dorad import __version__
from dorad.cli.groups import Entry, LazyGroup
from dorad.cli.outcome import run_group

if TYPE_CHECKING:
    from dorad.control.errors import ControlError

COMPLETE_VARIABLE = "_DORA_COMPLETE"
"""The environment variable by which a shell asks for completions."""

COMMANDS: dict[str, Entry] = {
    "run": Entry("dorad.cli.run:run", "Run a dataflow on this machine and show its logs."),
    "up": Entry("dorad.cli.up:up", "Start the daemon in the background."),
    "down": Entry("dorad.cli.down:down", "Stop the daemon."),
    "start": Entry("dorad.cli.start:start", "Start a dataflow under the daemon."),
    "stop": Entry("dorad.cli.stop:stop", "Stop a dataflow and wait for its end."),
    "restart": Entry("dorad.cli.restart:restart", "Stop a dataflow and start it again."),
    "enable": Entry("dorad.cli.enable:enable", "Have a dataflow started at boot."),
    "disable": Entry("dorad.cli.enable:disable", "Have a dataflow no longer started at boot."),
    "list": Entry("dorad.cli.list:list_dataflows", "List dataflows that run or have ended."),
    "logs": Entry("dorad.cli.logs:logs", "Show and follow what nodes have printed."),
    "clean": Entry("dorad.cli.clean:clean", "Forget dataflows that have ended."),
    "status": Entry("dorad.cli.status:status", "Tell whether the daemon runs."),
    "doctor": Entry("dorad.cli.doctor:doctor", "Check this machine, the daemon and its nodes."),
    "top": Entry("dorad.cli.top:top", "Watch what nodes use and what passes between them."),
    "node": Entry("dorad.cli.node:node", "Inspect and change the nodes of a running dataflow."),
    "topic": Entry("dorad.cli.topic:topic", "Look at what passes over outputs, or send there."),
    "param": Entry("dorad.cli.param:param", "Read and set parameters of running nodes."),
    "build": Entry("dorad.cli.build:build", "Run the build commands of a dataflow's nodes."),
    "validate": Entry("dorad.cli.validate:validate", "Check a dataflow file and list problems."),
    "types": Entry("dorad.cli.types:types", "List the types of data, and make a module of them."),
    "graph": Entry("dorad.cli.graph:graph", "Draw a dataflow as an HTML page or as Mermaid."),
    "expand": Entry("dorad.cli.expand:expand", "Print the flat dataflow, with env filled in."),
    "new": Entry("dorad.cli.new:new", "Make a new dataflow or node, with tests."),
    "completion": Entry("dorad.cli.completion:completion", "Print a shell's completion script."),
    "ps": Entry("dorad.cli.list:list_dataflows", "`ps` is `list`.", hidden=True),
    "check": Entry("dorad.cli.status:status", "`check` is `status`.", hidden=True),
    "destroy": Entry("dorad.cli.down:down", "`destroy` is `down`.", hidden=True),
    "system": Entry("dorad.cli.status:system", "`system status` is `status`.", hidden=True),
    "inspect": Entry("dorad.cli.top:inspect", "`inspect top` is `top`.", hidden=True),
}


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

    table: ClassVar[dict[str, Entry]] = COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`; one that talks to a daemon can be told to which."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and cmd_name in WITH_DAEMON:
            from dorad.cli.instance import add_options

            add_options(command)
        return command

    def unknown(self, name: str, names: list[str]) -> str:
        """Say of a command of dora 1.x what takes its place."""
        from dorad.cli.elsewhere import HINTS

        if name in HINTS:
            return f"`dora {name}` {HINTS[name]}"
        return super().unknown(name, names)


EPILOG = """\b
Examples:
  dora new hello && cd hello && dora run dataflow.yml
  dora validate dataflow.yml
  dora graph dataflow.yml --open

`dora COMMAND --help` explains one command and gives examples.
"""


@click.group(
    cls=Cli,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="dora %(version)s")
def cli() -> None:
    """Build and run dataflows: processes that exchange Arrow data through shared memory."""


def run_command(arguments: Sequence[str]) -> int:
    """Run one `dora` command line and return its exit code; every error is told on stderr.

    0 is success, 1 an error, 2 a usage error, 130 Ctrl-C.
    """
    return run_group(cli, arguments, "dora", COMPLETE_VARIABLE, _problems)


def _problems(error: Exception) -> Sequence[str] | None:
    """Return the lines of an error that is told without a traceback."""
    if isinstance(error, _dataflow_error()):
        return str(error).splitlines()
    if isinstance(error, _control_error()):
        return error.problems or [str(error)]
    return None


def _dataflow_error() -> type[Exception]:
    """Return DataflowError; imported when something was raised, so that help stays quick."""
    from dorad.dataflow.errors import DataflowError

    return DataflowError


def _control_error() -> type["ControlError"]:
    """Return ControlError, in the same way."""
    from dorad.control.errors import ControlError

    return ControlError


def main() -> NoReturn:
    """Run the `dora` command with the arguments of this process."""
    sys.exit(run_command(sys.argv[1:]))
