"""The entry of the `dora` command: the table of commands, and the help of all of them.

`dora --help` has to answer at once, so this module does not even import click; `root.py` does, for
every other command line.
"""

import os
import sys

from dorad import __version__
from dorad.cli.page import CommandEntry, help_page, terminal_width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

COMPLETE_VARIABLE = "_DORA_COMPLETE"
"""The environment variable by which a shell asks for completions."""

COMMANDS: dict[str, CommandEntry] = {
    "run": CommandEntry("dorad.cli.run:run", "Run a dataflow on this machine and show its logs."),
    "up": CommandEntry("dorad.cli.up:up", "Start the daemon in the background."),
    "down": CommandEntry("dorad.cli.down:down", "Stop the daemon."),
    "start": CommandEntry("dorad.cli.start:start", "Start a dataflow under the daemon."),
    "stop": CommandEntry("dorad.cli.stop:stop", "Stop a dataflow and wait for its end."),
    "restart": CommandEntry("dorad.cli.stop:restart", "Stop a dataflow and start it again."),
    "enable": CommandEntry("dorad.cli.enable:enable", "Have a dataflow started at boot."),
    "disable": CommandEntry(
        "dorad.cli.enable:disable", "Have a dataflow no longer started at boot."
    ),
    "list": CommandEntry("dorad.cli.list:list_dataflows", "List dataflows that run or have ended."),
    "logs": CommandEntry("dorad.cli.logs:logs", "Show and follow what nodes have printed."),
    "clean": CommandEntry("dorad.cli.list:clean", "Forget dataflows that have ended."),
    "status": CommandEntry("dorad.cli.status:status", "Tell whether the daemon runs."),
    "doctor": CommandEntry(
        "dorad.cli.doctor:doctor", "Check this machine, the daemon and its nodes."
    ),
    "top": CommandEntry("dorad.cli.top:top", "Watch what nodes use and what passes between them."),
    "node": CommandEntry(
        "dorad.cli.node:node", "Inspect and change the nodes of a running dataflow."
    ),
    "topic": CommandEntry(
        "dorad.cli.topic:topic", "Look at what passes over outputs, or send there."
    ),
    "param": CommandEntry("dorad.cli.param:param", "Read and set parameters of running nodes."),
    "build": CommandEntry("dorad.cli.build:build", "Run the build commands of a dataflow's nodes."),
    "validate": CommandEntry(
        "dorad.cli.validate:validate", "Check a dataflow file and list problems."
    ),
    "types": CommandEntry(
        "dorad.cli.types:types", "List the types of data, and make a module of them."
    ),
    "graph": CommandEntry(
        "dorad.cli.graph:graph", "Draw a dataflow as an HTML page or as Mermaid."
    ),
    "expand": CommandEntry(
        "dorad.cli.expand:expand", "Print the flat dataflow, with env filled in."
    ),
    "new": CommandEntry("dorad.cli.new:new", "Make a new dataflow or node, with tests."),
    "completion": CommandEntry(
        "dorad.cli.completion:completion", "Print a shell's completion script."
    ),
    "ps": CommandEntry("dorad.cli.list:list_dataflows", "`ps` is `list`.", hidden=True),
    "check": CommandEntry("dorad.cli.status:status", "`check` is `status`.", hidden=True),
    "destroy": CommandEntry("dorad.cli.down:down", "`destroy` is `down`.", hidden=True),
    "system": CommandEntry("dorad.cli.status:system", "`system status` is `status`.", hidden=True),
    "inspect": CommandEntry("dorad.cli.top:inspect", "`inspect top` is `top`.", hidden=True),
}

MOVED_COMMANDS = {
    "coordinator": "is not needed: `dora up` starts the daemon, which is all there is",
    "daemon": "is `dorad` here; `dora up` starts one in the background",
    "self": "is not there: update and uninstall with what installed it, such as pip or apt",
    "cluster": "is `dorafleet` here, a program of its own; it has `check`, `install` and `status`",
    "hub": "is not available yet",
    "record": "is not available yet",
    "replay": "is not available yet",
    "trace": "is not available yet",
}
"""Commands of dora 1.x that do not exist here: what takes their place."""

ABOUT = "Build and run dataflows: processes that exchange Arrow data through shared memory."

EPILOG = """\b
Examples:
  dora new hello && cd hello && dora run dataflow.yml
  dora validate dataflow.yml
  dora graph dataflow.yml --open

`dora COMMAND --help` explains one command and gives examples.
"""


def page() -> str:
    """Return the help of the whole command, for this terminal."""
    return help_page("dora", ABOUT, COMMANDS, EPILOG, terminal_width())


def run_command(arguments: "Sequence[str]") -> int:
    """Run one `dora` command line and return its exit code; every error is told on stderr.

    0 is success, 1 an error, 2 a usage error, 130 Ctrl-C.
    """
    text = None if COMPLETE_VARIABLE in os.environ else _known_answer(arguments)
    if text is None:
        from dorad.cli.root import run_command as run

        return run(arguments)
    try:
        print(text, flush=True)
    except OSError as error:
        from dorad.cli.outcome import output_failed

        return output_failed(error)
    return 0


def _known_answer(arguments: "Sequence[str]") -> str | None:
    """Return the answer to a command line that only asks for the help or the version."""
    match list(arguments):
        case ["-h" | "--help"]:
            return page()
        case ["-V" | "--version"]:
            return f"dora {__version__}"
    return None


def main() -> "NoReturn":
    """Run the `dora` command with the arguments of this process."""
    leave(run_command(sys.argv[1:]))


def leave(code: int) -> "NoReturn":
    """End this process without taking the interpreter apart, which takes a command longer than its
    work.

    So nothing may be left to exit handlers: what has to be done at the end, `with` blocks do.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads, or it is closed: who runs us has seen to that
        code = code or 1
    os._exit(code)
