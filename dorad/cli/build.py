"""`dora build`: run the build commands of a dataflow's nodes."""

from pathlib import Path

import click

from dorad.cli.files import dataflow_argument, load_dataflow
from dorad.cli.launching import strict_option

EPILOG = """\b
Examples:
  dora build dataflow.yml
  dora build dataflow.yml --uv         pip becomes `uv pip`, each Python node gets its own
                                       environment in .dora/python-envs/
\b
Each line of `build:` is one command. No shell runs it: no pipes, `&&` or globs.
"""

NOT_YET = ("git", "hub")
"""Kinds of source that cannot be fetched yet; building around them would build the wrong thing."""


@click.command(epilog=EPILOG)
@dataflow_argument()
@click.option("--uv", is_flag=True, help="Build with uv, a virtual environment per Python node.")
@click.option("--local", is_flag=True, help="Build on this machine, which is the default.")
@click.option("--strict-types", is_flag=True, help="Build nothing unless all types fit.")
@strict_option
@click.option("--offline", is_flag=True, help="Let uv and pip download nothing.")
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
    """Run the build commands of all nodes of the dataflow PATH, in the order of the file."""
    from dorad.cli.builder import build_dataflow
    from dorad.cli.launching import tell_warnings
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
        tell_warnings(dataflow)
    count = build_dataflow(
        dataflow, uv=uv, extra_env={}, echo=click.echo, parallel=parallel, offline=offline
    )
    click.echo(f"built {count} of {len(dataflow.nodes)} nodes" if count else "nothing to build")
