"""Steps before a start, shared by `dora run`, `start` and `build`: check, warn, build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.dataflow.model import Dataflow


def refuse_unsupported(dataflow: Dataflow, *, strict: bool = False, placed: bool = False) -> None:
    """Raise DataflowError if the dataflow cannot be run as it is written.

    It may use unsupported features, or types that do not match although it has `strict_types`. With
    `strict`, ignored keys are errors, too. `placed` allows `deploy`: a coordinator will follow it.
    """
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.problems import in_order
    from dorad.dataflow.support import unsupported
    from dorad.dataflow.types.strict import type_problems

    ignored = dataflow.ignored if strict else ()
    problems = (*unsupported(dataflow, placed=placed), *type_problems(dataflow), *ignored)
    if problems:
        raise DataflowError(in_order(problems))


def print_warnings(dataflow: Dataflow) -> None:
    """Print the warnings about a dataflow to standard error."""
    from dorad.cli.reporting import print_warning
    from dorad.dataflow.types.strict import all_warnings

    for warning in all_warnings(dataflow):
        print_warning(str(warning))


def build_first(dataflow: Dataflow, *, uv: bool, env: Mapping[str, str]) -> None:
    """Run the build commands, if there are any. Raises BuildError if one fails."""
    if not has_builds(dataflow):
        return
    import asyncio

    from dorad.cli.builder import build_nodes

    asyncio.run(build_nodes(dataflow, uv=uv, extra_env=env, echo=_echo))


def has_builds(dataflow: Dataflow) -> bool:
    """Return True if there are build commands."""
    return any(node.build or any(o.build for o in node.operators) for node in dataflow.nodes)


def _echo(line: str) -> None:
    """Print a line of the build to stderr: stdout is only for the nodes' lines."""
    click.echo(line, err=True)
