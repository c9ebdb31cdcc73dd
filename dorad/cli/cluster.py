"""`dora cluster`: the commands of dora 1.x for a fleet, carried out by the program `dorafleet`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from dorad.commandline.files import DataflowFile
from dorad.commandline.groups import Group

PROGRAM = "dorafleet"

EPILOG = """\b
Examples:
  dora cluster up cluster.yml
  dora cluster status
  dora cluster down

These are commands of `dorafleet` under the names of dora 1.x; `dorafleet --help` lists more.
"""

file_argument = click.argument("file", type=DataflowFile())
accept_new_option = click.option(
    "--accept-new", is_flag=True, help="Trust new host keys, as dora 1.x does always."
)


@click.group("cluster", cls=Group, epilog=EPILOG)
def cluster() -> None:
    """Manage the machines of a fleet, as `dorafleet` does."""


UP_EPILOG = """\b
Example:
  dora cluster up cluster.yml
"""


@cluster.command(epilog=UP_EPILOG)
@file_argument
@accept_new_option
def up(file: Path, *, accept_new: bool) -> None:
    """Start the coordinator of FILE, enrol the machines, and wait for them."""
    _run("up", str(file), *_flag("--accept-new", given=accept_new))


STATUS_EPILOG = """\b
Examples:
  dora cluster status
  dora cluster status --json
"""


@cluster.command(epilog=STATUS_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def status(*, as_json: bool) -> None:
    """Show the machines: whether they are connected, and what runs there."""
    _run("status", *_flag("--json", given=as_json))


DOWN_EPILOG = """\b
Example:
  dora cluster down
"""


@cluster.command(epilog=DOWN_EPILOG)
def down() -> None:
    """Stop all dataflows on all machines, then the coordinator."""
    _run("down")


INSTALL_EPILOG = """\b
Examples:
  dora cluster install cluster.yml dorad_0.1.0_arm64.deb
  dora cluster install cluster.yml                          dorad is installed there already
\b
With PACKAGE it installs dorad on the machines. Without PACKAGE it enrols them, which starts and
enables their agents.
"""


@cluster.command(epilog=INSTALL_EPILOG)
@file_argument
@click.argument("package", required=False)
@accept_new_option
def install(file: Path, package: str | None, *, accept_new: bool) -> None:
    """Install PACKAGE on the machines of FILE, or start their agents as services."""
    more = _flag("--accept-new", given=accept_new)
    if package is None:
        _run("enrol", str(file), *more)
    _run("install", str(file), package, *more)


UNINSTALL_EPILOG = """\b
Example:
  dora cluster uninstall cluster.yml
"""


@cluster.command(epilog=UNINSTALL_EPILOG)
@file_argument
def uninstall(file: Path) -> None:
    """Stop the agents of the machines in FILE, and revoke their certificates."""
    _run("uninstall", str(file))


UPGRADE_EPILOG = """\b
Examples:
  dora cluster upgrade cluster.yml dorad_0.2.0_arm64.deb
  dora cluster upgrade cluster.yml dorad_0.2.0_arm64.deb --canary 2 --max-parallel 5

Options are those of `dorafleet upgrade`. Running dataflows continue undisturbed; a machine that is
not healthy afterwards reinstalls its previous package.
"""


@cluster.command(epilog=UPGRADE_EPILOG, context_settings={"ignore_unknown_options": True})
@file_argument
@click.argument("package")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def upgrade(file: Path, package: str, options: tuple[str, ...]) -> None:
    """Upgrade dorad to PACKAGE on the machines of FILE, a few at a time."""
    _run("upgrade", str(file), package, *options)


RESTART_EPILOG = """\b
Example:
  dora cluster restart cluster.yml demo
"""


@cluster.command(epilog=RESTART_EPILOG)
@file_argument
@click.argument("dataflow", metavar="NAME")
def restart(file: Path, dataflow: str) -> None:
    """Stop the dataflow NAME on all its machines, and start it again."""
    _run("restart", str(file), dataflow)


def _flag(name: str, *, given: bool) -> Sequence[str]:
    return (name,) if given else ()


def _run(*words: str) -> NoReturn:
    """Become the program `dorafleet` with these words. Raises click.ClickException."""
    program = find_program(Path(sys.argv[0]).parent)
    if program is None:
        raise click.ClickException(
            f"`dora cluster` needs the program {PROGRAM} (install the package dorafleet, or "
            "`pip install 'dorad[fleet]'`)"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, [PROGRAM, *words])


def find_program(beside: Path) -> str | None:
    """Return the path of `dorafleet`: next to this program, or else in `PATH`."""
    near = beside / PROGRAM
    is_program = near.is_file() and os.access(near, os.X_OK)
    return str(near.absolute()) if is_program else shutil.which(PROGRAM)
