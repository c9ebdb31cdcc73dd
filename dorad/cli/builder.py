"""Build a dataflow's nodes: run their build commands and relay the output."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from typing import TYPE_CHECKING

from dorad.cli.build_plan import BuildContext, BuildError, NodeBuild, plan
from dorad.cli.node_packages import Packages, damage, is_install, read
from dorad.launch.holder.client import HolderClient
from dorad.launch.model import Command, LaunchError
from dorad.launch.programs import own_environment
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dorad.dataflow.model import Dataflow

CHUNK = 1 << 16
DRAIN_S = 1.0
"""Seconds to wait for output after a command's end: a background process may hold the pipe."""


async def build_nodes(
    dataflow: Dataflow,
    *,
    uv: bool,
    extra_env: Mapping[str, str],
    echo: Callable[[str], None],
    parallel: bool = False,
    offline: bool = False,
) -> int:
    """Build every node that has `build` commands, and return their number.

    Lines of progress and output go to `echo`, each starting with the node's id. With `parallel`,
    nodes are built at the same time; with `offline`, uv and pip download nothing. Cancelling kills
    the commands.

    Raises:
        BuildError: a command failed or cannot be started. All others are stopped.
    """
    builds = plan(BuildContext(dataflow, os.environ, extra_env, uv, own_environment(), offline))
    if not builds:
        return 0
    async with HolderClient.start() as holder:
        if parallel:
            await _together(holder, builds, echo)
        else:
            for build in builds:
                await _build(holder, build, echo)
    return len(builds)


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
        echo(f"{build.node}: $ {shlex.join(argv)}")
        command = Command((program, *argv[1:]), build.cwd, build.env)
        await _run(holder, build, argv, command, echo)
        after = await read(build.python, build.env) if installs else None
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
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
    )
    try:
        try:
            process = await holder.spawn(command, writing, writing)
        except LaunchError as error:
            raise BuildError(
                f"node '{build.node}': {error}; to repeat it: {build.pasteable(argv)}"
            ) from error
        finally:
            os.close(writing)
        relay = asyncio.create_task(_relay(reader, lambda line: echo(f"{build.node}: {line}")))
        ending = asyncio.create_task(process.wait())
        try:
            await asyncio.wait({ending, relay}, return_when=asyncio.FIRST_COMPLETED)
            if relay.done():
                relay.result()  # raises if the output cannot be written
            end = await ending
            await asyncio.wait({relay}, timeout=DRAIN_S)
        finally:
            relay.cancel()
            ending.cancel()
    finally:
        transport.close()
    if not end.ok:
        raise BuildError(
            f"node '{build.node}': a build command {end}; to repeat it: {build.pasteable(argv)}"
        )


async def _relay(reader: asyncio.StreamReader, write: Callable[[str], None]) -> None:
    """Pass on the lines that are not empty. A carriage return ends a line, too."""
    rest = b""
    while chunk := await reader.read(CHUNK):
        *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
        for line in filter(None, lines):
            write(visible(line.decode(errors="replace")))
    if rest:
        write(visible(rest.decode(errors="replace")))
