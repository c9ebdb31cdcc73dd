"""`dora build`: fetch the sources of a dataflow's nodes and run their build commands."""

from pathlib import Path

import click

from dorad.cli.options import LockFile, lock_options, strict_option
from dorad.commandline.files import dataflow_argument, load_dataflow

EPILOG = """\b
Examples:
  dora build dataflow.yml
  dora build dataflow.yml --uv         pip becomes `uv pip`, each Python node gets its own
                                       environment in .dora/python-envs/
  dora build dataflow.yml --write-lockfile
                                       note the commit of each `git` source in
                                       dataflow.dora-lock.yaml; --locked fetches just these
\b
A node with `git` is fetched into git/ beside the file; its programs and commands are in there.
Each line of `build:` is one command. It runs without a shell: no pipes, `&&` or globs.
"""


@click.command(epilog=EPILOG)
@dataflow_argument()
@click.option(
    "--uv", is_flag=True, help="Build with uv: a virtual environment for each Python node."
)
@click.option("--local", is_flag=True, help="Build on this machine (the default).")
@click.option("--strict-types", is_flag=True, help="Refuse to build if types do not match.")
@strict_option
@click.option("--offline", is_flag=True, help="Download nothing: use what is there.")
@lock_options
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
    lock: LockFile,
) -> None:
    """Fetch the `git` sources of the dataflow PATH, then run the `build` commands of its nodes."""
    import asyncio

    from dorad.cli.builder import build_nodes
    from dorad.commandline.files import print_warnings
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.problems import in_order
    from dorad.dataflow.support import unsupported
    from dorad.dataflow.types.strict import type_problems

    dataflow = load_dataflow(path)
    missing = [p for p in unsupported(dataflow) if p.key.endswith(".hub")]
    unfit = type_problems(dataflow, strict=strict_types)
    ignored = dataflow.ignored if strict else ()
    if missing or unfit or ignored:
        raise DataflowError(in_order((*missing, *unfit, *ignored)))
    if not dataflow.strict_types:
        print_warnings(dataflow)
    built = asyncio.run(
        build_nodes(
            dataflow,
            uv=uv,
            extra_env={},
            echo=click.echo,
            lock=lock,
            parallel=parallel,
            offline=offline,
        )
    )
    done = [f"fetched {built.sources} source{'s' * (built.sources > 1)}"] if built.sources else []
    if built.nodes:
        done.append(f"built {built.nodes} of {len(dataflow.nodes)} nodes")
    click.echo(", ".join(done) or "nothing to build")
