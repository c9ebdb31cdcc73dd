"""One dataflow from start to end on this machine: guard, broker and supervisor put together."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dorad.daemon.broker import Broker
from dorad.daemon.processes import Launcher, broken_commands
from dorad.daemon.sockets import own_socket
from dorad.daemon.stragglers import default_grace
from dorad.daemon.supervisor import Supervisor
from dorad.dataflow.errors import DataflowError
from dorad.launch.fdstore import NoStore
from dorad.logs.dataflowlog import DataflowLog

if TYPE_CHECKING:
    from dorad.daemon.exits import Result
    from dorad.daemon.ports import EdgeCounters
    from dorad.launch.client import Guard
    from dorad.launch.command import LaunchContext
    from dorad.logs.record import Sink


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known of a dataflow when it is over."""

    results: tuple[Result, ...]
    """One for each node that was to be started, in the order of their ends."""
    edges: tuple[EdgeCounters, ...]
    seconds: float
    """From the start of the first process to the end of the last."""

    @property
    def ok(self) -> bool:
        """Whether every node ended well."""
        return all(result.ok for result in self.results)


def new_dataflow_id() -> str:
    """Return the name of one run of a dataflow: a UUID."""
    return str(uuid.uuid4())


class DataflowRun:
    """Runs a dataflow once. Nothing of it outlives `run`: no process, task, descriptor or file."""

    def __init__(
        self,
        dataflow_id: str,
        context: LaunchContext,
        guard: Guard,
        logs: Sink,
        *,
        exit_when_nodes_finish: bool | None = None,
        stop_after: float | None = None,
    ) -> None:
        """Prepare a run; no node is started yet.

        `guard` is closed at the end of `run`. `logs` gets what nodes print and what there is to
        say about the run. The flag `exit_when_nodes_finish` overrides the file's, unless None;
        `stop_after` is in seconds from the opening of the start barrier; a start that takes as
        long as that is stopped, too.

        Raises:
            DataflowError: a node's program is missing, or it may not be run.
            ValueError: a variable of the environment cannot be understood.
        """
        problems = broken_commands(context)
        if problems:
            raise DataflowError(problems)
        self.dataflow = context.dataflow
        self.dataflow_id = dataflow_id
        self._context = context
        self._guard = guard
        self._log = DataflowLog(dataflow_id, context.dataflow, watch=logs)
        self._stop_after = stop_after
        self._socket = own_socket()
        wanted = exit_when_nodes_finish
        self._supervisor = Supervisor(
            self.dataflow,
            self._make_broker,
            self._log.say,
            exit_when_nodes_finish=bool(
                self.dataflow.exit_when_nodes_finish if wanted is None else wanted
            ),
            finish_grace=default_grace(context.environ),
        )

    async def run(self) -> Ended:
        """Start every node and return when all is over.

        Raises:
            LaunchError: no process can be started at all.
            OSError: shared memory or the socket cannot be made.
        """
        begun = time.monotonic()
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            guard = await stack.enter_async_context(self._guard)
            stack.callback(self._log.close)
            self._log.begin()
            stack.push_async_callback(self._broker.close)
            await self._broker.open()
            if self._stop_after is not None:
                self._timer = loop.call_later(
                    self._stop_after, self._stop_in_time, self._stop_after
                )
                stack.callback(lambda: self._timer.cancel())
            launcher = Launcher(self.dataflow_id, guard, self._context, self._log, store=NoStore())
            results = await self._supervisor.run(launcher.start)
            edges = tuple(self._broker.counters())
            if guard.died:
                self._log.say("error", None, "the guard process ended, and every node with it")
            ended = Ended(results, edges, time.monotonic() - begun)
            self._log.end("finished" if ended.ok else "failed")
        return ended

    def stop(self) -> None:
        """Ask every node to end; those that do not are ended within 15 s."""
        self._supervisor.stop()

    def kill(self, why: str) -> None:
        """Kill every node now; `why` goes on after a node's name in the report."""
        self._supervisor.kill(why)

    def abandon(self) -> None:
        """Remove the one file there is, for a process that is about to exit without more ado."""
        self._socket.unlink(missing_ok=True)

    def _stop_in_time(self, seconds: float) -> None:
        """Stop `seconds` after the barrier opened; or now, if it has not in as long a time."""
        loop = asyncio.get_running_loop()
        opened = self._supervisor.opened_at
        left = 0.0 if opened is None else opened + seconds - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._supervisor.stop)
        else:
            self._supervisor.stop()

    def _make_broker(self, listener: Supervisor) -> Broker:
        self._broker = Broker(self.dataflow, self.dataflow_id, self._socket, listener)
        return self._broker
