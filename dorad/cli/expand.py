"""`dora expand`: print the flat dataflow, or check one module."""

import os
from pathlib import Path

import click

from dorad.cli.files import dataflow_argument, load_dataflow

EPILOG = """\b
Examples:
  dora expand dataflow.yml
  SPEED=3 dora expand dataflow.yml | grep -A3 env
  dora expand --module modules/arm.yml     checks a module's file by itself
"""


@click.command(epilog=EPILOG)
@dataflow_argument()
@click.option("--module", is_flag=True, help="PATH is the file of a module: check it by itself.")
def expand(path: Path, *, module: bool) -> None:
    """Print the dataflow PATH as the daemon reads it.

    Variables in `env` are filled in, and the nodes of modules stand in the modules' places.
    """
    if module:
        _check_module(path)
        return
    from dorad.dataflow.expand import flat_yaml

    click.echo(flat_yaml(load_dataflow(path)), nl=False)


def _check_module(path: Path) -> None:
    from dorad.dataflow.modules.expansion import check_module

    module, warnings = check_module(path, environ=os.environ)
    for warning in warnings:
        click.echo(f"{click.style('warning:', fg='yellow')} {warning}", err=True)
    nodes = sum(1 for _ in module.flat())
    facts = [f"module `{module.header.name}`", f"{nodes} node{'' if nodes == 1 else 's'}"]
    for word, ports in (("inputs", module.header.inputs), ("outputs", module.header.outputs)):
        names = (f"{port.name}?" if port.optional else port.name for port in ports.values())
        facts.append(f"{word}: {', '.join(names) or 'none'}")
    click.echo(f"{path}: {click.style('ok', fg='green')}, {'; '.join(facts)}")
