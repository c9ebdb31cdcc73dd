"""The processes of one run: starts them, adopts them from an earlier daemon, ends leftovers."""

import asyncio
import logging
import signal
from collections.abc import Callable, Collection, Iterable, Mapping

from dorad.daemon.broker.admission import Admission
from dorad.daemon.broker.broker import Broker
from dorad.daemon.runmodel import RunServices
from dorad.daemon.supervisor.processes import Launcher, NodeProcess, log_name
from dorad.daemon.supervisor.state import RunListener
from dorad.dataflow.model import Dataflow, NodeSpec
from dorad.launch.host import KeptProcess
from dorad.launch.model import Exit, LaunchError
from dorad.launch.spawner import Process
from dorad.node.protocol import close_all

_log = logging.getLogger(__name__)


class NodeProcesses:
    """All processes of one run that the host must not forget yet."""

    def __init__(
        self,
        launcher: Launcher,
        admission: Admission,
        broker: Broker,
        services: RunServices,
        listener: RunListener,
    ) -> None:
        """`admission` learns of each process, and `services` of its end."""
        self._launcher = launcher
        self._admission = admission
        self._broker = broker
        self._store = services.store
        self._forget = services.forget
        self._report = listener.report
        self._processes: dict[int, NodeProcess] = {}
        self._ending: set[asyncio.Task[Exit]] = set()
        """Waits for processes that were killed because another one has their place."""

    async def start(self, node: NodeSpec, node_config: str, restart_count: int) -> NodeProcess:
        """Start the process of a node and admit it to the broker. Raises LaunchError."""
        process = None
        self._admission.begin(node.id)
        try:
            process = await self._launcher.start(node, node_config, restart_count)
        finally:
            self._admission.end(node.id, process)
            self._broker.start_finished(node.id)
        self._processes[process.pid] = process
        return process

    def adopt(
        self,
        kept: Iterable[KeptProcess],
        descriptors: dict[str, tuple[int, ...]],
        attached: Collection[int],
        dataflow: Dataflow,
        node_config: Callable[[str], str],
    ) -> dict[str, NodeProcess]:
        """Return the adopted process of each node that has one; it may have exited.

        `kept` are the processes of an earlier daemon, `attached` the pids of those that had their
        nodes' places. Of two processes of one node that one stays, else the younger one.
        Descriptors that a process needs are taken out of `descriptors`.
        """
        adopted: dict[str, NodeProcess] = {}
        for old in sorted(kept, key=lambda each: _preference(each, attached)):
            _, node_id, *_ = old.tag.split("/")
            own = descriptors.pop(log_name(old.tag), ())
            try:
                node, config = dataflow.node(node_id), node_config(node_id)
                taken, own = own, ()
                process = self._launcher.adopt(node, old.process, old.tag, taken, config)
            except (KeyError, LaunchError) as error:
                self._report("error", node_id, f"its process {old.pid} is killed: {error}")
                old.process.signal(signal.SIGKILL)
                self._forget(old.pid)
                self._store.drop(log_name(old.tag))
                close_all(own)
                continue
            _log.debug("process %d is adopted as node %s", old.pid, node_id)
            self._processes[process.pid] = process
            self._admission.add(node_id, process)
            if node_id in adopted:
                # The node was being replaced: keep only the later process.
                self._end(adopted[node_id])
            adopted[node_id] = process
        return adopted

    def _end(self, process: NodeProcess) -> None:
        """Kill a process that no supervisor waits for, and release its output."""
        process.signal(signal.SIGKILL)
        ending = asyncio.create_task(process.wait(), name=f"end of process {process.pid}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def forget_exited(self, in_use: Collection[int | None]) -> None:
        """Make the host forget all processes that have exited and are not `in_use`, by pid."""
        for pid, process in list(self._processes.items()):
            if process.ended and pid not in in_use:
                del self._processes[pid]
                self._forget(pid)

    def close(
        self, kept: Iterable[KeptProcess], descriptors: Mapping[str, tuple[int, ...]]
    ) -> None:
        """Kill processes that still run because of a fault of the daemon.

        `kept` and `descriptors` are the rest of an earlier daemon's after `adopt`.
        """
        for ending in self._ending:
            ending.cancel()
        left: dict[int, Process | NodeProcess] = {
            old.pid: old.process for old in kept if old.exit is None
        }
        for name, own in descriptors.items():
            self._store.drop(name)
            close_all(own)
        left |= {pid: process for pid, process in self._processes.items() if not process.ended}
        for pid, process in left.items():
            _log.debug("process %d is left over and killed", pid)
            process.signal(signal.SIGKILL)
            self._forget(pid)


def _preference(process: KeptProcess, attached: Collection[int]) -> tuple[bool, bool, int]:
    """Return a sort key that puts the process to keep last: running, attached, youngest."""
    return process.exit is None, process.pid in attached, process.started
