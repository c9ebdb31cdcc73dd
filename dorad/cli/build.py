"""`dora build`: run the build commands of a dataflow's nodes."""

from pathlib import Path

import click

from dorad.cli.files import dataflow_argument, load_dataflow
from dorad.cli.options import strict_option

EPILOG = """\b
Examples:
  dora build dataflow.yml
  dora build dataflow.yml --uv         pip becomes `uv pip`, each Python node gets its own
                                       environment in .dora/python-envs/
\b
Each line of `build:` is one command. It runs without a shell: no pipes, `&&` or globs.
"""

NOT_YET = ("git", "hub")
"""Node sources that cannot be fetched yet. A dataflow with one of them is not built at all."""


@click.command(epilog=EPILOG)
@dataflow_argument()
@click.option(
    "--uv", is_flag=True, help="Build with uv: a virtual environment for each Python node."
)
@click.option("--local", is_flag=True, help="Build on this machine (the default).")
@click.option("--strict-types", is_flag=True, help="Refuse to build if types do not match.")
@strict_option
@click.option("--offline", is_flag=True, help="Keep uv and pip from downloading anything.")
@click.option("--parallel", is_flag=True, help="Build nodes at the same time.")
def build(
    path: Path,
    *,
    uv: bool,
    local: bool,
    strict_types: bool,
    strict: bool,
    offline: bool,
    parallel: bool,
) -> None:
    """Run the build commands of all nodes in the dataflow PATH, in the order of the file."""
    import asyncio

    from dorad.cli.builder import build_nodes
    from dorad.cli.launching import print_warnings
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.problems import in_order
    from dorad.dataflow.support import unsupported
    from dorad.dataflow.types.strict import type_problems

    dataflow = load_dataflow(path)
    missing = [p for p in unsupported(dataflow) if p.key.rpartition(".")[2] in NOT_YET]
    unfit = type_problems(dataflow, strict=strict_types)
    ignored = dataflow.ignored if strict else ()
    if missing or unfit or ignored:
        raise DataflowError(in_order((*missing, *unfit, *ignored)))
    if not dataflow.strict_types:
        print_warnings(dataflow)
    count = asyncio.run(
        build_nodes(
            dataflow, uv=uv, extra_env={}, echo=click.echo, parallel=parallel, offline=offline
        )
    )
    click.echo(f"built {count} of {len(dataflow.nodes)} nodes" if count else "nothing to build")
