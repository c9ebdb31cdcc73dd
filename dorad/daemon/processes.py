"""How one node is started: its command, its pipes, and the reading of what it writes."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from dorad.dataflow.model import NodeKind
from dorad.launch.command import command_for
from dorad.launch.model import LaunchError
from dorad.logs.capture import Capture

if TYPE_CHECKING:
    from dorad.daemon.ports import Notice
    from dorad.dataflow.errors import Problem
    from dorad.dataflow.model import Node
    from dorad.launch.client import Guard, Process
    from dorad.launch.command import LaunchContext
    from dorad.launch.model import Exit
    from dorad.logs.capture import Sink


class NodeProcess:
    """A node's process and the readers of its two pipes."""

    def __init__(self, process: Process, out: Capture, err: Capture) -> None:
        self._process = process
        self._out = out
        self._err = err

    def signal(self, sig: int) -> None:
        """Send `sig` to the whole process group; nothing happens after its end."""
        self._process.signal(sig)

    async def wait(self) -> Exit:
        """Return how the process ended, once all it wrote has been read."""
        try:
            return await self._process.wait()
        finally:
            self._out.finish()
            self._err.finish()

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines it wrote to stderr."""
        return tuple(self._err.tail)


class Launcher:
    """Starts the nodes of one run through its guard."""

    def __init__(self, guard: Guard, context: LaunchContext, logs: Sink, notice: Notice) -> None:
        self._guard = guard
        self._context = context
        self._logs = logs
        self._notice = notice

    async def start(self, node: Node, node_config: str) -> NodeProcess:
        """Start the process of `node`; a node whose path is a URL is downloaded first.

        Raises:
            LaunchError: one line with what is missing or forbidden.
        """
        downloaded = None
        if node.kind is NodeKind.URL and node.path is not None:
            from dorad.launch.fetch import download  # few nodes need an HTTP client

            downloaded = await download(
                node.path, self._context.dataflow.base_dir, sha256=node.path_sha256
            )
        command = command_for(node, self._context, node_config, downloaded=downloaded)
        for warning in command.warnings:
            self._notice("warn", node.id, warning)
        (out_read, out_write), (err_read, err_write) = _pipes(2)
        try:
            process = await self._guard.spawn(command, out_write, err_write)
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        if process.skipped_cores:
            cores = ", ".join(map(str, process.skipped_cores))
            self._notice("warn", node.id, f"cpu_affinity: this machine has no core {cores}")
        return NodeProcess(
            process,
            Capture(out_read, node.id, "stdout", self._logs),
            Capture(err_read, node.id, "stderr", self._logs),
        )


def _pipes(count: int) -> list[tuple[int, int]]:
    """Return pipes, each as its two ends. Raises LaunchError when descriptors run out."""
    pipes: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            pipes.append(os.pipe())
    except OSError as error:
        for end in itertools.chain(*pipes):
            os.close(end)
        raise LaunchError(f"no pipe can be made for its output: {error.strerror}") from error
    return pipes


def broken_commands(context: LaunchContext) -> tuple[Problem, ...]:
    """Return what keeps nodes from being started that can be told without starting them."""
    dataflow = context.dataflow
    problems = []
    for node in dataflow.nodes:
        if node.kind in (NodeKind.PATH, NodeKind.SHELL):
            try:
                command_for(node, context, "")
            except LaunchError as error:
                problems.append(dataflow.problem(f"{node.key}.path", str(error)))
    return tuple(problems)
