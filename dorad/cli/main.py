"""The entry point of `dora`.

`dora --help` must answer at once, so this module does not import click. `root.py`, which handles
every other command line, does.
"""

import gc
import os
import sys

from dorad.cli.commands import COMPLETE_VARIABLE, page
from dorad.commandline.streams import open_standard_streams
from dorad.exit import exit_at_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def run_command(arguments: "Sequence[str]") -> int:
    """Run one `dora` command line and return its exit code; errors are reported on stderr.

    0 is success, 1 an error, 2 a usage error, 130 Ctrl-C.
    """
    text = None if COMPLETE_VARIABLE in os.environ else _known_answer(arguments)
    if text is None:
        from dorad.cli.root import run_command as run

        return run(arguments)
    try:
        print(text, flush=True)
    except OSError as error:
        from dorad.commandline.outcome import output_failed

        return output_failed(error)
    return 0


def _known_answer(arguments: "Sequence[str]") -> str | None:
    """Return the output of `dora --help`, None for other command lines."""
    return page() if list(arguments) in (["-h"], ["--help"]) else None


_NEW_OBJECTS = 100_000
"""New objects between two collections of garbage. A start makes 50,000 and leaves none unused: to
look through them would take a tenth of its time."""


def main() -> "NoReturn":
    """Run the `dora` command with the arguments of this process."""
    gc.set_threshold(_NEW_OBJECTS)
    open_standard_streams()
    try:
        code = run_command(sys.argv[1:])
    except KeyboardInterrupt:  # while modules were imported
        code = 130  # as INTERRUPTED, whose module takes long to import
    exit_at_once(code)
