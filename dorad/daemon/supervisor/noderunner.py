"""Running a node: start its process, classify its exit, and restart it according to its policy."""

import asyncio
import logging
import random
import signal
import time

from msgspec.structs import replace

from dorad.daemon.rules.exits import (
    NOT_LAUNCHED,
    REPLACED,
    RESTARTED,
    ExitContext,
    Outcome,
    Result,
    classify,
    describe,
    never_started,
    not_started,
)
from dorad.daemon.rules.restart import GiveUp, NoRestart, Restart, decide
from dorad.daemon.supervisor.noderun import NodeRun
from dorad.daemon.supervisor.processes import NodeProcess, StartNode
from dorad.daemon.supervisor.state import SupervisorState
from dorad.dataflow.model import LINK
from dorad.launch.model import Exit, LaunchError, RefusedError, SpawnerExitedError
from dorad.logs.excerpt import error_line

MAX_ERROR = 300
"""Characters of the line that a failed node wrote last."""

MIN_RESTART_INTERVAL_S = 0.1
"""Minimum seconds between two starts of a node, so that a node that exits at once does not use up a
core."""

RETRY_S = 1.0
"""Minimum seconds until the next attempt after a process could not be started."""

_log = logging.getLogger(__name__)


class NodeRunner:
    """Runs each node in its own task, from its first process to its end."""

    def __init__(
        self,
        state: SupervisorState,
        start_process: StartNode,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.start_process = start_process
        self._state = state
        self._tasks = tasks

    def start(self, run: NodeRun, adopted: NodeProcess | Exit | None = None) -> None:
        """Start the task that runs a node.

        `adopted` is the process that an earlier daemon started, or how that process exited.
        """
        self._tasks.create_task(self._run(run, adopted), name=f"node {run.node.id}")

    async def _run(self, run: NodeRun, adopted: NodeProcess | Exit | None) -> None:
        result = run.last_result  # an earlier daemon was about to restart the node
        if result is None or adopted is not None:
            result = await self._run_process(run, adopted)
            restarts = self._decide(run, result)
        else:
            restarts = True
        while restarts and await self._delay(run):
            self._prepare_restart(run)
            result = await self._run_process(run, None)
            restarts = self._decide(run, result)
        self._end(run, run.last_result or result)

    async def _run_process(self, run: NodeRun, adopted: NodeProcess | Exit | None) -> Result:
        """Start the process, unless it is adopted, and return how it ended."""
        name = run.node.id
        if isinstance(adopted, Exit):
            return self._judge(run, adopted, ())
        try:
            process = adopted or await self._start_unless_stopped(run)
        except LaunchError as error:
            run.restart_requested = False
            run.unstartable = isinstance(error, SpawnerExitedError)
            run.start_refused = isinstance(error, RefusedError)
            result = not_started(name, str(error))
            _log.debug("node %s %s", name, result.reason)
            run.process_exited(result.reason)
            return result
        if process is None:
            if run.last_result is not None and not run.stop_requested:
                return run.last_result
            if self._state.lifecycle.was_stopped_early(name):
                return Result(name, Outcome.FAILED, None, NOT_LAUNCHED)
            return never_started(name, self._root_cause(name))
        if adopted is None:
            self._record_start(run, process)
        else:
            self._record_adoption(run, process)
        self._state.changed()
        if self._state.kill_reason:
            run.forced_reason = self._state.kill_reason
            process.signal(signal.SIGKILL)
        _log.debug("node %s runs as process %d, restarts: %d", name, process.pid, run.restarts)
        exit_ = await process.wait()
        while (successor := run.successor) is not None:
            exit_ = await self._run_successor(run, successor, exit_)
            process = successor
        return self._judge(run, exit_, process.stderr)

    def _record_start(self, run: NodeRun, process: NodeProcess) -> None:
        run.process_started(process, asyncio.get_running_loop().time(), time.time())
        if run.history.window_start is None:
            run.history = replace(run.history, window_start=run.spawned_at)
        self._state.publish("node-started", run.node.id, pid=process.pid, restarts=run.restarts)

    def _record_adoption(self, run: NodeRun, process: NodeProcess) -> None:
        if run.spawned_at is None:  # the earlier daemon ended before it could store the start
            run.spawned_at, run.started_at = asyncio.get_running_loop().time(), time.time()
            run.restarts += run.starts > 0
            run.starts += 1
            run.resume_at = run.last_result = None
        run.process, run.pid = process, process.pid

    async def _start_unless_stopped(self, run: NodeRun) -> NodeProcess | None:
        """Start the process; return None if the node is stopped before there is one.

        A start may take long: a node whose path is a URL is downloaded first.
        """
        config = self._state.broker.node_config(run.node.id)
        starting = asyncio.ensure_future(self.start_process(run.node, config, run.restarts))
        run.starting = True
        try:
            while not (starting.done() or self._is_unwanted(run)):
                run.wake.clear()
                woken = asyncio.ensure_future(run.wake.wait())
                await asyncio.wait((starting, woken), return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
            if starting.done():
                return starting.result()
            _log.debug("the start of node %s is cancelled", run.node.id)
            starting.cancel()
            await asyncio.wait((starting,))
            if starting.cancelled() or isinstance(starting.exception(), LaunchError):
                return None
            return starting.result()  # the process was there already: it is to be ended
        finally:
            if not starting.done():
                starting.cancel()
                await asyncio.wait((starting,))
            run.starting = False

    def _is_unwanted(self, run: NodeRun) -> bool:
        """Return True if the current start should be cancelled."""
        lifecycle = self._state.lifecycle
        return (
            run.stop_requested
            or lifecycle.stopping
            or (run.starts > 0 and not lifecycle.may_restart(run.node.id))
        )

    async def _run_successor(self, run: NodeRun, successor: NodeProcess, exit_: Exit) -> Exit:
        """Put the successor in the place of the process that exited; return how it exits."""
        state, name = self._state, run.node.id
        _log.debug("node %s: process %d takes over", name, successor.pid)
        reason, connected, api_pid = describe(exit_), run.successor_connected, run.api_pid
        run.process_exited(REPLACED)
        run.successor = None
        run.successor_waiting = run.successor_connected = False
        state.publish("node-exited", name, reason, code=exit_.code, signal=exit_.signal)
        loop = asyncio.get_running_loop()
        run.process_started(successor, loop.time(), time.time())
        if connected:
            run.connected, run.api_pid = True, api_pid
        run.restarts += 1
        if not state.broker.handovers.end(name):
            state.broker.released(name)
        state.publish("node-started", name, pid=successor.pid, restarts=run.restarts)
        state.changed()
        return await successor.wait()

    def _judge(self, run: NodeRun, exit_: Exit, stderr: tuple[str, ...]) -> Result:
        """Record the exit of the process and return its result."""
        lifecycle, name = self._state.lifecycle, run.node.id
        awaited = not run.connected and lifecycle.was_stopped_early(name)
        context = ExitContext(
            stopping=lifecycle.stopping or run.stop_requested or run.restart_requested,
            forced_reason=run.forced_reason,
            watchdog_reason=run.watchdog_reason,
            root_cause=self._root_cause(name),
            refused=self._state.broker.has_refused(name),
            awaited=awaited or name in self._state.late,
        )
        result = classify(name, exit_, context, stderr)
        _log.debug("node %s exited: %s, judged %s by %s", name, exit_, result.outcome, context)
        ordered = run.restart_requested and result.ok
        has_edges = run.node.all_inputs or run.node.all_outputs
        if result.ok and not run.connected and not context.stopping and has_edges:
            self._state.listener.report(
                "warn",
                name,
                "ended before it called Node(): it took no input and sent no output",
            )
        error = "" if result.ok else error_line(stderr)[:MAX_ERROR]
        run.process_exited(RESTARTED if ordered else result.reason, error)
        self._state.publish(
            "node-exited", name, result.reason, code=exit_.code, signal=exit_.signal, ok=result.ok
        )
        return result

    def _root_cause(self, node_id: str) -> str | None:
        """Return the other node whose early end aborted the start, if there is one."""
        root_cause = self._state.lifecycle.barrier.root_cause
        return None if root_cause == node_id else root_cause

    def _may_run(self, run: NodeRun) -> bool:
        return not run.stop_requested and self._state.lifecycle.may_restart(run.node.id)

    def _decide(self, run: NodeRun, result: Result) -> bool:
        """Return True if the node is restarted, and announce it; the result is `last_result`."""
        run.last_result = result
        if not self._may_run(run):
            _log.debug("node %s is not restarted: it may no longer run", run.node.id)
            return False
        # A program that cannot be started the first time is a mistake in the file, unless the
        # start was refused for a reason that may pass.
        never_ran = result.exit is None and run.starts == 0 and not run.start_refused
        if never_ran or run.unstartable:
            _log.debug("node %s is not restarted: %s", run.node.id, result.reason)
            return False
        now = asyncio.get_running_loop().time()
        if run.restart_requested:
            self._announce(run, result, Restart(0.0, run.history), now)
            return True
        decision = decide(run.node.restart, result.ok, run.history, now, random.random)
        _log.debug("node %s, %s: %s", run.node.id, run.node.restart, decision)
        match decision:
            case NoRestart():
                return False
            case GiveUp(reason):
                # A node whose last process ended well has not failed, as in dora 1.x.
                outcome = Outcome.OK if result.ok else Outcome.FAILED
                run.last_result = replace(
                    result, outcome=outcome, reason=f"{result.reason}; {reason}"
                )
                if result.ok:
                    self._state.listener.report("info", run.node.id, run.last_result.reason)
                return False
            case Restart():
                earliest = run.last_spawn_at + MIN_RESTART_INTERVAL_S - now
                shortest = earliest if result.exit else RETRY_S
                decision = replace(decision, after=max(decision.after, shortest))
                self._announce(run, result, decision, now)
                return True

    def _announce(self, run: NodeRun, result: Result, decision: Restart, now: float) -> None:
        """Report the coming restart to the user, to watchers and to the node's consumers."""
        state, name = self._state, run.node.id
        run.history = decision.history
        run.resume_at = now + decision.after
        state.broker.released(name)
        state.carry_out(state.lifecycle.after_run(name))
        when = f"in {decision.after:.3g} s" if decision.after else "now"
        limit = run.node.restart.max_restarts
        number = (
            "" if run.restart_requested or not limit else f" ({decision.history.count} of {limit})"
        )
        text = f"{result.reason}; restarting {when}{number}"
        state.listener.report("info" if result.ok else "warn", name, text)
        state.publish("node-restarting", name, text, after=decision.after, failed=not result.ok)
        state.changed()

    async def _delay(self, run: NodeRun) -> bool:
        """Wait until the restart is due; return False if the node may no longer run."""
        loop = asyncio.get_running_loop()
        while self._may_run(run) and not run.restart_requested:
            left = (run.resume_at or 0.0) - loop.time()
            if left <= 0:
                break
            run.wake.clear()
            try:
                async with asyncio.timeout(left):
                    await run.wake.wait()
            except TimeoutError:
                break
        if run.stop_requested and run.last_result is not None:
            reason = "was stopped while it waited to be started again"
            run.last_result = Result(run.node.id, Outcome.OK, run.last_result.exit, reason)
        return self._may_run(run)

    def _prepare_restart(self, run: NodeRun) -> None:
        run.restarts += 1
        self._state.broker.restarting(run.node.id, run.restarts)
        if run.restart_requested:
            self._state.broker.reopen(run.node.id)

    def _end(self, run: NodeRun, result: Result) -> None:
        """Record that the node has ended and will not restart."""
        state, name = self._state, run.node.id
        _log.debug("node %s has ended, no restart: %s", name, result.reason)
        run.result, run.last_result, run.resume_at = result, None, None
        # The end of the link process counts only if it failed while nodes needed it.
        ending = state.lifecycle.stopping or state.lifecycle.link_ends
        if not run.excluded and not (name == LINK and (ending or result.ok)):
            state.results.append(result)
        if not result.ok and result.outcome is not Outcome.CASCADING:
            state.listener.report("error", name, result.reason)
            state.publish("node-failed", name, result.reason)
        state.broker.detach(name)
        state.carry_out(state.lifecycle.after_exit(result, removed=run.excluded))
        state.changed()
