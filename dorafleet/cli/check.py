"""`dorafleet check`: check a cluster file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import file_argument

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
Examples:
  dorafleet check cluster.yml
\b
Each problem is one line, `file:line:column: key: message`, which editors understand.
No machine is contacted. Exit code 0: the file is valid. 1: it has problems.
"""


@click.command(epilog=EPILOG)
@file_argument
def check(file: Path) -> int:
    """Check the cluster FILE and list all its problems."""
    from dorad.dataflow.errors import DataflowError
    from dorafleet.inventory.load import load

    try:
        cluster = load(file)
    except DataflowError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        return 1
    for problem in cluster.warnings:
        click.echo(f"{click.style('warning:', fg='yellow')} {problem}", err=True)
    count = len(cluster.machines)
    machines = "1 machine" if count == 1 else f"{count} machines"
    click.echo(f"{file}: {click.style('ok', fg='green')}, {machines}")
    return 0
