"""The watchdogs: startup timeouts, health checks and circuit breakers, by one clock.

There is no tick while nothing is due and nothing has to be sampled.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from typing import TYPE_CHECKING

from dorad import procinfo
from dorad.daemon.rules.barrier import Phase
from dorad.daemon.rules.breaker import Breaker
from dorad.daemon.rules.health import at_rest, health_after
from dorad.dataflow.model import NodeOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dorad.daemon.rules.health import Health
    from dorad.daemon.supervisor.noderun import NodeRun
    from dorad.daemon.supervisor.shared import Shared
    from dorad.dataflow.model import Input

SAMPLE_S = 0.05
"""Seconds between looks at words that announce nothing when they change."""

HEAR_S = 1.0
"""Seconds that a daemon which takes over has for hearing what was said while none was there: a node
may have called `Node()` long ago."""

STALL_S = 0.5
"""A look that comes so much too late means that this process did not run; nor need the others
have. Such a time counts for nobody's silence."""

_log = logging.getLogger(__name__)


class Watchdogs:
    """Ends what is overdue and breaks what is silent. Belongs to one event loop."""

    def __init__(
        self, shared: Shared, *, is_sigstopped: Callable[[int], bool] = procinfo.is_sigstopped
    ) -> None:
        self._shared = shared
        self._is_halted = is_sigstopped
        self._spawned: dict[str, tuple[int, float]] = {}
        """Node to which life it is in and when that began."""
        self._health: dict[str, Health] = {}
        self._pinged: dict[str, float] = {}
        self._breakers: dict[tuple[str, str], Breaker] = {}
        self._begun = -math.inf
        """When the watch began."""
        self._stalled = 0.0
        """Seconds that this process did not run for; `now` below is without them."""

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        self._begun = loop.time()
        while True:
            begun = loop.time()
            wait = self.look(begun - self._stalled)
            await self._shared.bell.wait(wait)
            if wait is not None and loop.time() - begun - wait > STALL_S:
                _log.debug("this process stood still for %.3g s", loop.time() - begun - wait)
                self._stalled += loop.time() - begun - wait

    def look(self, now: float) -> float | None:
        """Look at everything once; return the seconds until it has to be done again, if ever.

        `now` is in seconds of the event loop's clock, less the time it was stalled.
        """
        if self._shared.life.stopping:
            return None
        dues = [
            due
            for run in self._shared.nodes.values()
            if run.result is None
            for due in (*self._startup(run, now), *self._pulse(run, now), *self._inputs(run, now))
        ]
        return max(min(dues) - now, 0.0) if dues else None

    def _startup(self, run: NodeRun, now: float) -> Iterator[float]:
        """Kill a node that has not called `Node()` in time; yield when that is due."""
        timeout, name = run.node.startup_timeout, run.node.id
        if timeout is None or run.spawned is None or run.connected or run.killed or run.stopped:
            return
        if self._spawned.get(name, (0, 0.0))[0] != run.runs:
            self._spawned[name] = (run.runs, run.spawned - self._stalled)
        spawned = self._spawned[name][1]
        due = spawned + timeout
        if spawned < self._begun:
            due = max(due, self._begun + HEAR_S)
        if now < due:
            yield due
        else:
            self._shared.totals.startup_kills += 1
            self._kill(run, f"was killed because it had not called Node() within {timeout:g} s")

    def _pulse(self, run: NodeRun, now: float) -> Iterator[float]:
        """Kill a node that has not been in the API for too long; yield when to look again."""
        timeout, name = run.node.health_check_timeout, run.node.id
        if timeout is None or run.killed or run.stopped:
            return
        opened = self._shared.life.barrier.phase is Phase.OPEN
        if run.process is None or not run.connected or not opened:
            self._health.pop(name, None)
            return
        vitals = self._shared.broker.vitals(name)
        resting = vitals.connected and at_rest(vitals)
        is_sigstopped = resting and run.api_pid is not None and self._is_halted(run.api_pid)
        seen = health_after(self._health.get(name), vitals, now, sigstopped=is_sigstopped)
        self._health[name] = seen
        if seen.silent_for(now) >= timeout:
            self._shared.totals.health_check_kills += 1
            why = (
                f"it had not come back to dora for {timeout:g} s"
                if vitals.connected
                else f"it had not ended {timeout:g} s after it dropped its Node"
            )
            self._kill(run, f"was killed because {why}")
            return
        if resting and now - self._pinged.get(name, -math.inf) >= timeout / 2:
            self._pinged[name] = now
            self._shared.broker.ping(name)
        yield min(seen.well_at + timeout, now + SAMPLE_S)

    def _kill(self, run: NodeRun, why: str) -> None:
        if run.process is None:
            return
        _log.debug("node %s, process %d %s", run.node.id, run.process.pid, why)
        run.killed = why
        self._health.pop(run.node.id, None)
        run.process.signal(signal.SIGKILL)
        self._shared.on_change()

    def _inputs(self, run: NodeRun, now: float) -> Iterator[float]:
        """Break inputs that are silent, mend those that are not; yield when to look again."""
        name = run.node.id
        still_open = self._shared.life.flow.open_of(name)
        for entry in run.node.all_inputs:
            if entry.input_timeout is None or not isinstance(entry.source, NodeOutput):
                continue
            key = (name, entry.id)
            if entry.id not in still_open:
                self._breakers.pop(key, None)
                run.broken.pop(entry.id, None)
                continue
            before = self._breakers.get(key) or _new_breaker(
                entry.input_timeout, run.broken.get(entry.id), now
            )
            try:
                sent = self._shared.broker.edge_counters_of(name, entry.id).sent
            except KeyError:  # just being taken away
                continue
            after = self._breakers[key] = before.look(sent, now)
            if after.broken != before.broken:
                self._turned(run, entry, after)
            yield now + SAMPLE_S if after.due is None else min(after.due, now + SAMPLE_S)

    def _turned(self, run: NodeRun, entry: Input, breaker: Breaker) -> None:
        """Tell of an input that broke or was mended."""
        shared, name = self._shared, run.node.id
        _log.debug("node %s, input %s: %s", name, entry.id, breaker)
        if breaker.broken:
            run.broken[entry.id] = breaker.sent
            shared.totals.input_timeouts += 1
            shared.broker.input_broken(name, entry.id)
            what, level = "input-broken", "warn"
            text = f"input {entry.id}: no message from {entry.source} for {breaker.timeout:g} s"
        else:
            run.broken.pop(entry.id, None)
            shared.totals.circuit_breaker_recoveries += 1
            shared.broker.input_recovered(name, entry.id)
            what, level = "input-recovered", "info"
            text = f"input {entry.id}: messages from {entry.source} come again"
        shared.notice(level, name, text)
        shared.tell(what, name, text, input=entry.id, source=str(entry.source))
        shared.on_change()


def _new_breaker(timeout: float, broken_at: int | None, now: float) -> Breaker:
    """Return the breaker of an input that is looked at for the first time.

    `broken_at` is how many messages had been sent when an earlier daemon found it broken.
    """
    if broken_at is None:
        return Breaker(timeout)
    return Breaker(timeout, sent=broken_at, heard_at=now, broken=True)
