"""`dora expand`: print the flat dataflow, or check one module."""

import os
from pathlib import Path

import click

from dorad.commandline.files import dataflow_argument, load_dataflow
from dorad.commandline.reports import print_warning

EPILOG = """\b
Examples:
  dora expand dataflow.yml
  SPEED=3 dora expand dataflow.yml | grep -A3 env
  dora expand --module modules/arm.yml     check the file of a module
"""


@click.command(epilog=EPILOG)
@dataflow_argument()
@click.option("--module", is_flag=True, help="Check PATH as the file of a module.")
def expand(path: Path, *, module: bool) -> None:
    """Print the dataflow PATH as the daemon sees it.

    Variables in `env` are expanded, and modules are replaced by their nodes.
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
        print_warning(str(warning))
    nodes = sum(1 for _ in module.flat())
    facts = [f"module `{module.header.name}`", f"{nodes} node{'' if nodes == 1 else 's'}"]
    for word, ports in (("inputs", module.header.inputs), ("outputs", module.header.outputs)):
        names = (f"{port.name}?" if port.optional else port.name for port in ports.values())
        facts.append(f"{word}: {', '.join(names) or 'none'}")
    click.echo(f"{path}: {click.style('ok', fg='green')}, {'; '.join(facts)}")
