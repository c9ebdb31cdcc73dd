"""The stop ladder of a whole dataflow: what follows when nodes do not end on their STOP."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from typing import TYPE_CHECKING

from dorad.daemon.rules.ladder import Step, ladder

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.daemon.supervisor.shared import Shared

_log = logging.getLogger(__name__)


class StopLadder:
    """Sends SIGTERM and SIGKILL to all that still runs, when they are due."""

    def __init__(self, shared: Shared, kill: Callable[[str], None]) -> None:
        """`kill` kills every process; it is told what goes on after a node's name."""
        self._shared = shared
        self._kill = kill
        self._due = {Step.TERMINATE: math.inf, Step.KILL: math.inf}
        self._begun = 0.0

    def begin(self, grace: float) -> None:
        """Take note that every node has been sent STOP; a second call can only hasten the rest."""
        now = asyncio.get_running_loop().time()
        if math.isinf(self._due[Step.TERMINATE]):
            self._begun = now
        for step in ladder(grace):
            if step.step in self._due:
                self._due[step.step] = min(self._due[step.step], now + step.after)
        self._shared.bell.ring()

    async def escalate(self) -> None:
        """Take each rung when it is due; returns after the last."""
        loop = asyncio.get_running_loop()
        for step in (Step.TERMINATE, Step.KILL):
            while (left := self._due[step] - loop.time()) > 0:
                await self._shared.bell.wait(None if math.isinf(left) else left)
            seconds = self._due[step] - self._begun
            _log.debug("stop ladder: %s after %.3g s", step, seconds)
            if step is Step.TERMINATE:
                self._terminate(seconds)
            else:
                self._kill(
                    f"was killed because it did not end within {seconds:.3g} s of being asked to"
                    " stop"
                )

    def _terminate(self, seconds: float) -> None:
        for name, run in self._shared.nodes.items():
            for process in (run.process, run.successor):
                if process is not None:
                    text = f"did not end within {seconds:.3g} s of being asked to: SIGTERM"
                    self._shared.notice("warn", name, text)
                    process.signal(signal.SIGTERM)
