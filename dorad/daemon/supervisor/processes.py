"""Starting the processes of nodes: command, pipes, and the capture of their output."""

import fcntl
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeAlias

from msgspec.structs import replace

from dorad.daemon.runmodel import RunServices
from dorad.dataflow.errors import Problem
from dorad.dataflow.model import NodeKind, NodeSpec
from dorad.launch import operators
from dorad.launch.command import LaunchContext, command_for
from dorad.launch.membership import belongs
from dorad.launch.model import Command, Exit, LaunchError, NoFileError, RefusedError
from dorad.launch.orphans import VARIABLE
from dorad.launch.spawner import Process, Spawner
from dorad.logs import staging
from dorad.logs.capture import TAIL_LINES, Capture
from dorad.logs.dataflowlog import DataflowLog
from dorad.logs.staging import Staging
from dorad.node.protocol import CONFIG
from dorad.realtime.refusal import policy_refused, rights
from dorad.shm.check import check_pipe

_PIPE_SIZES = (1 << 20, 1 << 19, 1 << 18, 1 << 17)
_PIPE_BUDGET = 32 << 20
"""Bytes for all pipes of a dataflow: half of the limit above which the kernel gives all programs of
a user smaller pipes."""

_log = logging.getLogger(__name__)


def log_name(tag: str) -> str:
    """Return the name under which the descriptors of the process `tag` are stored.

    A tag is `<dataflow>/<node>/<restart count>`, with a number added if that is taken.
    """
    dataflow_id, _, process = tag.partition("/")
    return f"{dataflow_id}/log/{process}"


class NodeProcess:
    """A node's process and the capture of its output."""

    def __init__(
        self,
        process: Process,
        capture: Capture | None,
        tail: Iterable[str] = (),
        on_end: Callable[[], None] = lambda: None,
        node_config: str = "",
    ) -> None:
        """`capture` is None if all output has been read; `tail` holds the last lines of stderr.

        `node_config` is the process's DORA_NODE_CONFIG. `on_end` is called after its exit.
        """
        self._process = process
        self._node_config = node_config
        self._capture = capture
        self._tail = tail
        self._on_end = on_end

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has exited."""
        return self._process.exit is not None

    @property
    def uid(self) -> int:
        """The user it runs as."""
        return self._process.uid

    def owns(self, pid: int) -> bool:
        """Return True if process `pid` is this process or was started by it."""
        return belongs(pid, self._process, (CONFIG, self._node_config))

    def signal(self, sig: int) -> None:
        """Send `sig` to the whole process group; do nothing after the process has exited."""
        self._process.signal(sig)

    async def exited(self) -> Exit:
        """Return how the process exited. Its output is still read, even if this is cancelled."""
        return await self._process.wait()

    async def wait(self) -> Exit:
        """Return how the process exited, once all its output has been read.

        If this is cancelled, only the output that has arrived is read.
        """
        ended = False
        try:
            how = await self._process.wait()
            ended = True
            if self._capture is not None:
                await self._capture.drain()
                if not how.ok:
                    await self._capture.recall()
            return how
        finally:
            if self._capture is not None:
                self._capture.finish()
            if ended:
                self._on_end()

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines it wrote to stderr."""
        return tuple(self._tail)


StartNode: TypeAlias = "Callable[[NodeSpec, str, int], Awaitable[NodeProcess]]"
"""Starts the process of a node. Takes the node, its DORA_NODE_CONFIG and its restart count. Raises
LaunchError."""


class Launcher:
    """Starts the processes of one dataflow, and adopts those that an earlier daemon started."""

    def __init__(
        self,
        dataflow_id: str,
        spawner: Spawner,
        context: LaunchContext,
        log: DataflowLog,
        services: RunServices,
        note: Callable[[str, str], None],
    ) -> None:
        """`services` keep the pipes for the next daemon, and its marker becomes DORA_DAEMON.

        They keep downloaded nodes; without a place these are stored in `build/` beside the
        dataflow's file. `note` gets a node's id and one line about each setting that its process
        did not get.
        """
        self._id = dataflow_id
        self._spawner = spawner
        self._context = context
        self._log = log
        self._store = services.store
        self._marker = services.marker
        self._downloads = services.downloads
        self._note = note
        self._tags: set[str] = set()

    async def start(self, node: NodeSpec, node_config: str, restart_count: int = 0) -> NodeProcess:
        """Start the process of `node`; download it first if its path is a URL.

        Raises:
            LaunchError: one line that says what is missing or forbidden.
        """
        command = await self._command(node, node_config)
        _log.debug("node %s is started, restart count %d", node.id, restart_count)
        for warning in command.warnings:
            self._log.report("warn", node.id, warning)
        tag = self._new_tag(node.id, restart_count)
        with ExitStack() as on_error:
            (out, out_write), (err, err_write) = self._pipes()
            for end in (out, err):
                on_error.callback(os.close, end)
            try:
                memory = self._store_output(tag, out, err)
                on_error.callback(memory.close)
                on_error.callback(self._forget, tag)
                process = await self._spawner.spawn(command, out_write, err_write, tag=tag)
            finally:
                for end in (out_write, err_write):
                    os.close(end)
            on_error.pop_all()
        if process.skipped_cores:
            cores = ", ".join(map(str, process.skipped_cores))
            self._note(node.id, f"cpu_affinity: this machine has no core {cores}")
        for key in process.left_out:
            self._note(node.id, f"{key}: is left out; it needs a dorad that systemd runs")
        if process.refused and command.schedule is not None:
            limit, nice = rights(process.pid)
            text = policy_refused(command.schedule, process.refused, limit, nice=nice)
            self._note(node.id, text)
        capture = Capture(out, err, memory, self._log.node(node), unit=process.unit)
        return self._as_node(process, capture, tag, node_config)

    def adopt(
        self,
        node: NodeSpec,
        process: Process,
        tag: str,
        descriptors: Sequence[int],
        node_config: str = "",
    ) -> NodeProcess:
        """Adopt a process that an earlier daemon started; it may have exited.

        `descriptors` are those stored under `log_name(tag)`; this method takes ownership of them.
        An exited process without any has all its output in its log.

        Raises:
            LaunchError: the descriptors are not a process's pipes and staging memory.
        """
        if not descriptors and process.exit is not None:
            _log.debug("process %d has exited and all its output is logged", process.pid)
            return NodeProcess(process, None, self._log.node(node).last_errors(TAIL_LINES))
        with ExitStack() as on_error:
            for descriptor in descriptors:
                on_error.callback(os.close, descriptor)
            try:
                out, err, memory = descriptors
                check_pipe(out)
                check_pipe(err)
                staged = Staging(memory)
            except (ValueError, OSError) as error:
                raise LaunchError(
                    f"the output of {node.id} can no longer be read: {error}"
                ) from error
            on_error.pop_all()
        os.close(memory)
        self._tags.add(tag)
        log = self._log.node(node)
        _log.debug("process %d is adopted as %s", process.pid, tag)
        capture = Capture(out, err, staged, log, adopted=True, unit=process.unit)
        return self._as_node(process, capture, tag, node_config)

    async def _command(self, node: NodeSpec, node_config: str) -> Command:
        downloaded = None
        if node.kind is NodeKind.URL and node.path is not None:
            from dorad.launch.fetch import Downloads  # few nodes need an HTTP client

            if self._downloads is None:
                self._downloads = Downloads(self._context.dataflow.base_dir / "build", plain=True)
            downloaded = await self._downloads.get(node.path, node.path_sha256)
        command = command_for(node, self._context, node_config, downloaded=downloaded)
        if self._marker is not None:
            command = replace(command, env={**command.env, VARIABLE: self._marker})
        return command

    def _pipes(self) -> list[tuple[int, int]]:
        return _pipes(2, _pipe_size(len(self._context.dataflow.nodes)))

    def _new_tag(self, node_id: str, restart_count: int) -> str:
        """Return an unused tag for a process; a node that is being replaced has two processes."""
        first = f"{self._id}/{node_id}/{restart_count}"
        more = (f"{first}/{number}" for number in itertools.count(2))
        tag = next(each for each in itertools.chain([first], more) if each not in self._tags)
        self._tags.add(tag)
        return tag

    def _store_output(self, tag: str, out: int, err: int) -> Staging:
        """Create staging memory and store it together with the pipes."""
        try:
            descriptor = staging.create()
            try:
                memory = Staging(descriptor)
                self._store.store(log_name(tag), (out, err, descriptor))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RefusedError(f"no memory for its output: {error.strerror}") from error
        return memory

    def _as_node(
        self, process: Process, capture: Capture, tag: str, node_config: str
    ) -> NodeProcess:
        return NodeProcess(process, capture, capture.tail, lambda: self._forget(tag), node_config)

    def _forget(self, tag: str) -> None:
        self._tags.discard(tag)
        self._store.drop(log_name(tag))


def _pipe_size(nodes: int) -> int:
    """Return the size of a pipe: large, so that nodes can print while no daemon reads."""
    share = _PIPE_BUDGET // (2 * max(1, nodes))
    return next((size for size in _PIPE_SIZES if size <= share), 0)


def _pipes(count: int, size: int) -> list[tuple[int, int]]:
    """Return pipes, each as its two ends. Raises RefusedError if descriptors run out."""
    pipes: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            pipes.append(os.pipe())
            _enlarge(pipes[-1][1], size)
    except OSError as error:
        for end in itertools.chain(*pipes):
            os.close(end)
        raise RefusedError(f"no pipe for its output: {error.strerror}") from error
    return pipes


def _enlarge(pipe: int, size: int) -> None:
    """Set the size of a pipe to `size` bytes, or to the largest permitted size."""
    for each in _PIPE_SIZES:
        if each <= size:
            with suppress(PermissionError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, each)
                return


def _missing_secret(name: str, context: LaunchContext) -> str:
    """Return why a secret cannot be given to a node; empty if it can."""
    try:
        context.rights.secret(name)
    except LaunchError as error:
        return str(error)
    return ""


def broken_commands(context: LaunchContext, missing_hint: str | None = None) -> tuple[Problem, ...]:
    """Return the problems with the nodes' programs that can be found without starting them.

    `missing_hint` says what to do about a missing file.
    """
    dataflow = context.dataflow
    problems = []
    for node in dataflow.nodes:
        missing = [text for name in node.secrets if (text := _missing_secret(name, context))]
        problems += [
            dataflow.problem(f"{node.key}.secrets", f"node `{node.id}`: {text}") for text in missing
        ]
        if missing:
            continue
        if node.kind in (NodeKind.PATH, NodeKind.SHELL, NodeKind.LINK, NodeKind.ROS2):
            try:
                command_for(node, context, "")
            except LaunchError as error:
                hint = missing_hint if isinstance(error, NoFileError) else None
                key = "ros2" if node.kind is NodeKind.ROS2 else "path"
                problems.append(dataflow.problem(f"{node.key}.{key}", str(error), hint))
        elif node.kind is NodeKind.OPERATORS:
            for key, text in operators.missing_files(node, dataflow):
                problems.append(dataflow.problem(key, text))
    return tuple(problems)
