"""The stop ladder: SIGTERM and SIGKILL for processes that do not end on their STOP event."""

import asyncio
import logging
import math
import signal
from collections.abc import Callable

from dorad.daemon.rules.actions import StopReason
from dorad.daemon.rules.ladder import Step, ladder
from dorad.daemon.supervisor.noderun import NodeRun
from dorad.daemon.supervisor.processes import NodeProcess
from dorad.daemon.supervisor.state import SupervisorState

_log = logging.getLogger(__name__)


class StopLadder:
    """The stop ladder of a whole dataflow."""

    def __init__(self, state: SupervisorState, kill: Callable[[str], None]) -> None:
        """`kill` kills every process; its argument follows a node's name in the report."""
        self._state = state
        self._kill = kill
        self._due = {Step.TERMINATE: math.inf, Step.KILL: math.inf}
        self._started_at = 0.0

    def start(self, grace: float) -> None:
        """Start the ladder, after every node has been sent STOP.

        A further call can only bring the remaining steps forward.
        """
        now = asyncio.get_running_loop().time()
        if math.isinf(self._due[Step.TERMINATE]):
            self._started_at = now
        for step in ladder(grace):
            if step.step in self._due:
                self._due[step.step] = min(self._due[step.step], now + step.after)
        self._state.bell.ring()

    async def run(self) -> None:
        """Take each step when it is due; return after the last one."""
        loop = asyncio.get_running_loop()
        for step in (Step.TERMINATE, Step.KILL):
            while (left := self._due[step] - loop.time()) > 0:
                await self._state.bell.wait(None if math.isinf(left) else left)
            seconds = self._due[step] - self._started_at
            _log.debug("stop ladder: %s after %.3g s", step, seconds)
            if step is Step.TERMINATE:
                self._terminate(seconds)
            else:
                self._kill(_kill_reason(f"{seconds:.3g}"))

    def _terminate(self, seconds: float) -> None:
        for run in self._state.nodes.values():
            for process in (run.process, run.successor):
                if process is not None:
                    _terminate(self._state, run, process, f"{seconds:.3g}")


async def stop_process(
    state: SupervisorState, run: NodeRun, process: NodeProcess, grace: float
) -> None:
    """Stop one process of a node by the stop ladder; return once it has exited."""
    name, loop = run.node.id, asyncio.get_running_loop()
    started_at = loop.time()
    for step in ladder(grace):
        _log.debug("node %s, process %d: %s at %g s", name, process.pid, step.step, step.after)
        left = started_at + step.after - loop.time()
        if await state.bell.until(lambda: run.process is not process, left):
            return
        match step.step:
            case Step.EVENT:
                if not run.successor_connected:
                    state.broker.notifications.stop(name, StopReason.MANUAL)
            case Step.TERMINATE:
                _terminate(state, run, process, f"{step.after:g}")
            case Step.KILL:
                run.forced_reason = _kill_reason(f"{step.after:g}")
                state.changes.changed()
                process.signal(signal.SIGKILL)
    await state.bell.until(lambda: run.process is not process)


def _terminate(state: SupervisorState, run: NodeRun, process: NodeProcess, seconds: str) -> None:
    text = f"did not end within {seconds} s of being asked to: SIGTERM"
    state.listener.report("warn", run.node.id, text)
    process.signal(signal.SIGTERM)


def _kill_reason(seconds: str) -> str:
    return f"was killed because it did not end within {seconds} s of being asked to stop"
