"""Tending one node: starts its process, learns how it ends, and starts the next one if need be."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.daemon.rules.exits import (
    History,
    Outcome,
    Result,
    classify,
    describe,
    not_started,
)
from dorad.daemon.rules.restart import GiveUp, NoRestart, Restart, decide
from dorad.launch.model import Exit, LaunchError, RefusedError, SpawnerExitedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.daemon.supervisor.noderun import NodeRun
    from dorad.daemon.supervisor.ports import Started, StartNode
    from dorad.daemon.supervisor.shared import Shared

BREATH_S = 0.1
"""Least time from one start to the next, so that a node that dies at once does not eat a core."""

RETRY_S = 1.0
"""Least delay after a process that could not even be started; there is nothing to slow that."""

_log = logging.getLogger(__name__)


class NodeRunner:
    """Sees nodes through their lives, each in a task of its own."""

    def __init__(
        self, shared: Shared, start: StartNode, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._shared = shared
        self._start = start
        self._chance = chance

    async def run_node(self, run: NodeRun, adopted: Started | Exit | None = None) -> None:
        """See one node through all its lives; the first may have begun, or even ended, already."""
        result = run.ended_as  # an earlier daemon saw it end, and was about to start it again
        if result is None or adopted is not None:
            result = await self._run_once(run, adopted)
            again = self._decide(run, result)
        else:
            again = True
        while again and await self._delay(run):
            self._next_run(run)
            result = await self._run_once(run, None)
            again = self._decide(run, result)
        self._end(run, run.ended_as or result)

    # -- a life ------------------------------------------------------------------------------

    async def _run_once(self, run: NodeRun, adopted: Started | Exit | None) -> Result:
        """Start the process, unless it is there already, and return how it ended."""
        name = run.node.id
        if isinstance(adopted, Exit):
            return self._judge(run, adopted, ())
        try:
            process = adopted or await self._start_unless_stopped(run)
        except LaunchError as error:
            run.again = False
            run.unstartable = isinstance(error, SpawnerExitedError)
            run.refused = isinstance(error, RefusedError)
            result = not_started(name, str(error))
            run.gone(result.reason)
            return result
        if process is None:
            if run.ended_as is not None and not run.stopped:
                return run.ended_as
            return Result(name, Outcome.OK, None, "was stopped before it was started")
        loop = asyncio.get_running_loop()
        if adopted is None:
            run.started(process, loop.time(), time.time())
            if run.history.window_start is None:
                run.history = replace(run.history, window_start=run.spawned)
            self._shared.tell("node-started", name, pid=process.pid, restarts=run.restarts)
        else:
            if run.spawned is None:  # its start could not be written down any more
                run.spawned, run.started_at = loop.time(), time.time()
                run.restarts += run.runs > 0
                run.runs += 1
                run.resume_at = run.ended_as = None
            run.process, run.pid = process, process.pid
        self._shared.changed()
        if self._shared.killing:
            run.forced = self._shared.killing
            process.signal(signal.SIGKILL)
        _log.debug("node %s runs as process %d, restarts: %d", name, process.pid, run.restarts)
        exit_ = await process.wait()
        while (successor := run.successor) is not None:
            exit_ = await self._hand_over(run, successor, exit_)
            process = successor
        return self._judge(run, exit_, process.stderr)

    async def _start_unless_stopped(self, run: NodeRun) -> Started | None:
        """Start a node, which may take long (a download); None if a stop came first."""
        config = self._shared.broker.node_config(run.node.id)
        starting = asyncio.ensure_future(self._start(run.node, config, run.restarts))
        try:
            while not (starting.done() or self._is_unwanted(run)):
                run.wake.clear()
                woken = asyncio.ensure_future(run.wake.wait())
                await asyncio.wait((starting, woken), return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
            return starting.result() if starting.done() else None
        finally:
            if not starting.done():
                starting.cancel()
                await asyncio.wait((starting,))

    def _is_unwanted(self, run: NodeRun) -> bool:
        """Whether a process that is just being started is not to be waited for."""
        life = self._shared.life
        return run.stopped or life.stopping or (run.runs > 0 and not life.may_restart(run.node.id))

    async def _hand_over(self, run: NodeRun, successor: Started, exit_: Exit) -> Exit:
        """Let the process that waits take the place of the one that ended; return its end."""
        shared, name = self._shared, run.node.id
        _log.debug("node %s: process %d follows", name, successor.pid)
        words, connected, api_pid = describe(exit_), run.successor_connected, run.api_pid
        run.gone(words)
        run.successor = None
        run.successor_waits = run.successor_connected = False
        shared.tell("node-exited", name, words, code=exit_.code, signal=exit_.signal)
        loop = asyncio.get_running_loop()
        run.started(successor, loop.time(), time.time())
        if connected:
            run.connected, run.api_pid = True, api_pid
        run.restarts += 1
        if not shared.broker.end_handover(name):
            shared.broker.released(name)
        shared.tell("node-started", name, pid=successor.pid, restarts=run.restarts)
        shared.changed()
        return await successor.wait()

    def _judge(self, run: NodeRun, exit_: Exit, stderr: tuple[str, ...]) -> Result:
        life, name = self._shared.life, run.node.id
        root_cause = life.barrier.root_cause
        history = History(
            stopping=life.stopping or run.stopped or run.again,
            forced=run.forced,
            killed=run.killed,
            root_cause=root_cause if root_cause != name else None,
        )
        result = classify(name, exit_, history, stderr)
        _log.debug("node %s ended: %s, judged %s by %s", name, exit_, result.outcome, history)
        run.gone(result.reason)
        self._shared.tell(
            "node-exited", name, result.reason, code=exit_.code, signal=exit_.signal, ok=result.ok
        )
        return result

    # -- between two lives -------------------------------------------------------------------

    def _may_run(self, run: NodeRun) -> bool:
        return not run.stopped and self._shared.life.may_restart(run.node.id)

    def _decide(self, run: NodeRun, result: Result) -> bool:
        """Decide whether another life follows; if so, announce it. The result is in `ended_as`."""
        run.ended_as = result
        if not self._may_run(run):
            _log.debug("node %s: no other process may follow", run.node.id)
            return False
        # A program that cannot be started the first time is a mistake in the file, unless it was
        # refused for a reason that may pass.
        never_ran = result.exit is None and run.runs == 0 and not run.refused
        if never_ran or run.unstartable:
            _log.debug("%s is not started again: %s", run.node.id, result.reason)
            return False
        now = asyncio.get_running_loop().time()
        if run.again:
            self._announce(run, result, Restart(0.0, run.history), now)
            return True
        decision = decide(run.node.restart, result.ok, run.history, now, self._chance)
        _log.debug("node %s, %s: %s", run.node.id, run.node.restart, decision)
        match decision:
            case NoRestart():
                return False
            case GiveUp(reason):
                # A node whose last process ended well has not failed, as in dora 1.x.
                outcome = Outcome.OK if result.ok else Outcome.FAILED
                run.ended_as = replace(result, outcome=outcome, reason=f"{result.reason}; {reason}")
                if result.ok:
                    self._shared.notice("info", run.node.id, run.ended_as.reason)
                return False
            case Restart():
                least = run.begun + BREATH_S - now if result.exit else RETRY_S
                decision = replace(decision, after=max(decision.after, least))
                self._announce(run, result, decision, now)
                return True

    def _announce(self, run: NodeRun, result: Result, decision: Restart, now: float) -> None:
        shared, name = self._shared, run.node.id
        run.history = decision.history
        run.resume_at = now + decision.after
        shared.broker.released(name)
        shared.carry_out(shared.life.after_run(name))
        when = f"in {decision.after:.3g} s" if decision.after else "now"
        limit = run.node.restart.max_restarts
        number = "" if run.again or not limit else f" ({decision.history.count} of {limit})"
        text = f"{result.reason}; restarting {when}{number}"
        shared.notice("info" if result.ok else "warn", name, text)
        shared.tell("node-restarting", name, text, after=decision.after)
        shared.changed()

    async def _delay(self, run: NodeRun) -> bool:
        """Wait until the next life is due; False if there is to be none any more."""
        loop = asyncio.get_running_loop()
        while self._may_run(run) and not run.again:
            left = (run.resume_at or 0.0) - loop.time()
            if left <= 0:
                break
            run.wake.clear()
            try:
                async with asyncio.timeout(left):
                    await run.wake.wait()
            except TimeoutError:
                break
        if run.stopped and run.ended_as is not None:
            words = "was stopped while it waited to be started again"
            run.ended_as = Result(run.node.id, Outcome.OK, run.ended_as.exit, words)
        return self._may_run(run)

    def _next_run(self, run: NodeRun) -> None:
        run.restarts += 1
        self._shared.totals.restarts += 1
        self._shared.broker.restarting(run.node.id, run.restarts)
        if run.again:
            self._shared.broker.reopen(run.node.id)

    # -- the end -----------------------------------------------------------------------------

    def _end(self, run: NodeRun, result: Result) -> None:
        """Take note that no life follows any more."""
        shared, name = self._shared, run.node.id
        run.result, run.ended_as, run.resume_at = result, None, None
        if not run.apart:
            shared.results.append(result)
        if not result.ok and result.outcome is not Outcome.CASCADING:
            shared.notice("error", name, result.reason)
            shared.tell("node-failed", name, result.reason)
        shared.broker.detach(name)
        shared.carry_out(shared.life.after_exit(result, removed=run.apart))
        shared.changed()
