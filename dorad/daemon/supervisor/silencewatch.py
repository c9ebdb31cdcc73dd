"""Reports each node that has not called the node API for long: it hangs, or computes.

A node without `health_check_timeout` may do that for as long as it likes, so it is only reported.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dorad.daemon.rules.barrier import Phase
from dorad.daemon.rules.health import Presence, presence_after
from dorad.dataflow.model import LINK

if TYPE_CHECKING:
    from dorad.daemon.supervisor.noderun import NodeRun
    from dorad.daemon.supervisor.state import SupervisorState

SILENCE_S = 10.0
"""Seconds without a call after which a node is reported."""

CHECK_S = 2.0

_log = logging.getLogger(__name__)


class SilenceWatch:
    """Reports silent nodes of one dataflow, each once."""

    def __init__(self, state: SupervisorState) -> None:
        self._state = state
        self._seen: dict[str, tuple[int, Presence]] = {}
        """By node: the number of its starts, and when it last used the API."""

    async def run(self) -> None:
        """Check until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CHECK_S)
            self.check(loop.time())

    def check(self, now: float) -> None:
        """Check all nodes once; `now` is on the event loop's clock."""
        lifecycle = self._state.lifecycle
        if lifecycle.stopping or lifecycle.barrier.phase is not Phase.OPEN:
            return
        for run in self._state.nodes.values():
            if run.node.health_check_timeout is None and run.node.id != LINK:
                self._check(run, now)

    def _check(self, run: NodeRun, now: float) -> None:
        state, name = self._state, run.node.id
        if run.silence_reported or run.process is None or not run.connected or run.stop_requested:
            self._seen.pop(name, None)
            return
        vitals = state.broker.stats.vitals(name)
        if not vitals.connected:  # it has dropped its `Node`
            self._seen.pop(name, None)
            return
        starts, before = self._seen.get(name, (0, None))
        before = before if starts == run.starts else None
        after = presence_after(before, vitals, now)
        self._seen[name] = run.starts, after
        if after.asked and not (before is not None and before.asked):
            state.broker.notifications.ping(name)
        if after.asked and now - after.called_at >= SILENCE_S:
            _log.debug("node %s has not answered since %.3f", name, after.called_at)
            run.silence_reported = True
            text = (
                f"has not called dora for {SILENCE_S:g} s: it computes, or hangs; "
                "`health_check_timeout` in the dataflow ends a node that hangs"
            )
            state.report("warn", name, text)
            state.changed()
