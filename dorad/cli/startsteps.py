"""The build before a start, shared by `dora run` and `start`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dorad.cli.options import Launch, LockFile
from dorad.commandline.files import has_builds

if TYPE_CHECKING:
    from dorad.dataflow.model import Dataflow


def build_first(dataflow: Dataflow, launch: Launch) -> None:
    """Fetch the sources and run the build commands, if there are any.

    Raises:
        BuildError: one failed.
        GitSourceError: the lock file cannot be used.
    """
    if not has_builds(dataflow) and launch.lock == LockFile():
        return
    import asyncio

    from dorad.cli.builder import build_nodes

    asyncio.run(
        build_nodes(
            dataflow,
            uv=launch.uv,
            extra_env=launch.env,
            echo=_echo,
            lock=launch.lock,
            may_be_old=True,
        )
    )


def _echo(line: str) -> None:
    """Print a line of the build to stderr: stdout is only for the nodes' lines."""
    click.echo(line, err=True)
