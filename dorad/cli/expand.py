"""`dora expand`: print the flat dataflow."""

from pathlib import Path

import click

from dorad.cli.files import dataflow_argument, load_dataflow

EPILOG = """\b
Examples:
  dora expand dataflow.yml
  SPEED=3 dora expand dataflow.yml | grep -A3 env
"""


@click.command(epilog=EPILOG)
@dataflow_argument()
def expand(path: Path) -> None:
    """Print the dataflow PATH as the daemon reads it, with variables in `env` filled in."""
    from dorad.dataflow.expand import flat_yaml

    click.echo(flat_yaml(load_dataflow(path)), nl=False)
