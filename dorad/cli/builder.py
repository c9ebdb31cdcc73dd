"""Build a dataflow's nodes: fetch their sources, run their build commands, relay the output."""

from __future__ import annotations

import asyncio
import os
import shlex
from typing import TYPE_CHECKING, NamedTuple

from dorad.cli import cflags
from dorad.cli.build_plan import BuildContext, BuildError, NodeBuild, plan
from dorad.cli.buildprocess import run_command
from dorad.cli.gitfetch import Fetcher
from dorad.cli.node_packages import Packages, before_of, damage, is_install, listed, read
from dorad.cli.options import LockFile
from dorad.commandline.files import has_builds
from dorad.dataflow.gitsources import lock_path, read_lock, write_lock
from dorad.launch.holder.client import HolderClient
from dorad.launch.model import Command, LaunchError
from dorad.launch.programs import own_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dorad.dataflow.model import Dataflow

NO_LOCK = LockFile()


class Built(NamedTuple):
    """What a build has done."""

    sources: int
    """Sources that are there, fetched now or before."""
    nodes: int
    """Nodes whose build commands were run."""


async def build_nodes(
    dataflow: Dataflow,
    *,
    uv: bool,
    extra_env: Mapping[str, str],
    echo: Callable[[str], None],
    lock: LockFile = NO_LOCK,
    may_be_old: bool = False,
    parallel: bool = False,
    offline: bool = False,
) -> Built:
    """Fetch the sources of nodes with `git`, and run the commands of those with `build`.

    Lines of progress and output go to `echo`, each starting with the node's id. With `parallel`,
    nodes are built at the same time; with `offline`, nothing is downloaded. With `may_be_old`,
    what was fetched before is used if a repository cannot be reached, with a line that says so.
    Cancelling kills the commands.

    Raises:
        BuildError: a source cannot be fetched, a command failed or cannot be started. All others
            are stopped.
        GitSourceError: a lock file cannot be used.
    """
    path = lock_path(dataflow, lock.path)
    locked = read_lock(path, dataflow) if lock.locked else {}
    if not has_builds(dataflow) and not lock.write:
        return Built(0, 0)
    async with HolderClient.start() as holder:
        fetcher = Fetcher(
            dataflow, holder, echo, locked=locked, offline=offline, may_be_old=may_be_old
        )
        fetched = await fetcher.fetch()
        if lock.write:
            write_lock(path, dataflow, fetched)
            echo(f"wrote {path}")
        environment = own_environment()
        builds = plan(
            BuildContext(
                dataflow, os.environ, extra_env, uv, environment, offline, cflags.own_prefix()
            )
        )
        if parallel:
            await _together(holder, builds, echo)
        else:
            for build in builds:
                await _build(holder, build, echo)
    return Built(len(fetched), len(builds))


async def _together(
    holder: HolderClient, builds: Sequence[NodeBuild], echo: Callable[[str], None]
) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for build in builds:
                group.create_task(_build(holder, build, echo))
    except* (BuildError, OSError) as errors:
        # The first failure cancels the others, so there is rarely more than one.
        raise errors.exceptions[0] from None


async def _build(holder: HolderClient, build: NodeBuild, echo: Callable[[str], None]) -> None:
    """Run the commands of one node in order."""
    try:
        build.cwd.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"node '{build.node}': cannot create its folder {build.cwd}: {error.strerror}"
        ) from error
    before: Packages | None = None
    for argv in build.commands:
        program = build.program(argv)
        installs = is_install(argv)
        if installs and before is None:
            before = await read(build.python, build.env)
        old = listed(build.python, build.env.get("HOME"))
        echo(f"{build.node}: $ {shlex.join(argv)}")
        command = Command((program, *argv[1:]), build.cwd, build.env)
        await _run(holder, build, argv, command, echo)
        new = listed(build.python, build.env.get("HOME"))
        after = await read(build.python, build.env) if installs or new != old else None
        if after is not None and before is None:
            before = before_of(after, old, new)
        if after is not None and (broken := damage(before, after, own=build.own)) is not None:
            text, advice = broken
            head = f"node '{build.node}': after its build command `{shlex.join(argv)}`"
            raise BuildError(f"{head} {text}", advice)
        before = after or before


async def _run(
    holder: HolderClient,
    build: NodeBuild,
    argv: tuple[str, ...],
    command: Command,
    echo: Callable[[str], None],
) -> None:
    repeat = f"to repeat it: {build.pasteable(argv)}"
    try:
        end = await run_command(holder, command, lambda line: echo(f"{build.node}: {line}"))
    except LaunchError as error:
        raise BuildError(f"node '{build.node}': {error}; {repeat}") from error
    if not end.ok:
        raise BuildError(f"node '{build.node}': a build command {end}; {repeat}")
