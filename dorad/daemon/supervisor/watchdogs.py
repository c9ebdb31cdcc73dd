"""The watchdogs: startup timeouts, health checks, silent nodes and circuit breakers, on one clock.

They sleep while nothing is due and nothing has to be sampled.
"""

import asyncio
import logging
import math
import signal
from collections.abc import Callable, Iterator

from dorad.daemon.rules.barrier import Phase
from dorad.daemon.rules.breaker import Breaker
from dorad.daemon.rules.health import Health, Presence, at_rest, health_after, presence_after
from dorad.daemon.supervisor.noderun import NodeRun
from dorad.daemon.supervisor.state import SupervisorState
from dorad.dataflow.model import LINK, Input, NodeOutput
from dorad.logrecord import Level
from dorad.procinfo import is_sigstopped

SAMPLE_S = 0.05
"""Seconds between two samples of values in state memory, which change without notice."""

ADOPTION_S = 1.0
"""Seconds from the start of an adopting daemon until a startup timeout may expire: the daemon must
first read the packets that nodes sent while no daemon ran. They may contain a `Node()` call."""

STALL_S = 0.5
"""If a check comes late by more than this, this process was not running, and the nodes may not have
run either. The time does not count as their silence."""

SILENCE_S = 10.0
"""Seconds without a call after which a node without a health check is reported. It is asked after
half of that, so that a busy node gets a ping every ten seconds at most."""

SILENCE_CHECK_S = 5.0
"""Seconds between two samples of such nodes, for all dataflows at the same time: a process that
sleeps is woken once for all."""

ANSWER_CHECK_S = 1.0
"""Seconds between two samples of a node that was asked: a later packet may wait in its socket, too,
as at the end of another node, and is not one that it leaves unread."""

_log = logging.getLogger(__name__)


class Watchdogs:
    """Kills nodes that are overdue, reports silent ones, and breaks inputs that are silent.

    Belongs to one event loop.
    """

    def __init__(
        self, state: SupervisorState, *, is_sigstopped: Callable[[int], bool] = is_sigstopped
    ) -> None:
        self._state = state
        self._is_sigstopped = is_sigstopped
        self._spawned: dict[str, tuple[int, float]] = {}
        """Node to the number of its starts and when the last one was."""
        self._health: dict[str, Health] = {}
        self._pinged: dict[str, float] = {}
        self._present: dict[str, tuple[int, Presence]] = {}
        """Node to the number of its starts, and when it last used the API."""
        self._breakers: dict[tuple[str, str], Breaker] = {}
        self._started_at = -math.inf
        """When `run` was called."""
        self._stalled = 0.0
        """Seconds that this process was not running for."""

    async def run(self) -> None:
        """Check until cancelled."""
        loop = asyncio.get_running_loop()
        self._started_at = loop.time()
        while True:
            checked_at = loop.time()
            wait = self.check(checked_at - self._stalled)
            await self._state.bell.wait(wait)
            late = 0.0 if wait is None else loop.time() - checked_at - wait
            if late > STALL_S:
                _log.debug("this process did not run for %.3g s", late)
                self._stalled += late

    def check(self, now: float) -> float | None:
        """Check all nodes once; return the seconds until the next check, or None if none is due.

        `now` is on the event loop's clock, less the seconds that this process was not running for.
        """
        if self._state.lifecycle.stopping:
            return None
        self._forget_ended()
        due = [
            at
            for run in self._state.nodes.values()
            if run.result is None
            for at in (
                *self._check_startup(run, now),
                *self._check_health(run, now),
                *self._check_silence(run, now),
                *self._check_inputs(run, now),
            )
        ]
        return max(min(due) - now, 0.0) if due else None

    def _forget_ended(self) -> None:
        """Forget the inputs of nodes that have ended: those started again have new queues."""
        running = {name for name, run in self._state.nodes.items() if run.result is None}
        for key in [key for key in self._breakers if key[0] not in running]:
            del self._breakers[key]

    def _check_startup(self, run: NodeRun, now: float) -> Iterator[float]:
        """Kill a node that has not called `Node()` in time; yield when its timeout expires."""
        timeout, name = run.node.startup_timeout, run.node.id
        if timeout is None or run.spawned_at is None or run.connected or _is_ending(run):
            return
        if self._spawned.get(name, (0, 0.0))[0] != run.starts:
            self._spawned[name] = (run.starts, run.spawned_at - self._stalled)
        spawned_at = self._spawned[name][1]
        due = spawned_at + timeout
        if spawned_at < self._started_at:  # by an earlier daemon
            due = max(due, self._started_at + ADOPTION_S)
        if now < due:
            yield due
        else:
            self._kill(run, f"was killed because it had not called Node() within {timeout:g} s")

    def _check_health(self, run: NodeRun, now: float) -> Iterator[float]:
        """Kill a node that has not used the API for too long; yield when to check again."""
        timeout, name = run.node.health_check_timeout, run.node.id
        if timeout is None or _is_ending(run):
            return
        opened = self._state.lifecycle.barrier.phase is Phase.OPEN
        if run.process is None or not run.connected or not opened:
            self._health.pop(name, None)
            return
        vitals = self._state.broker.stats.vitals(name)
        resting = vitals.connected and at_rest(vitals)
        stopped = resting and run.api_pid is not None and self._is_sigstopped(run.api_pid)
        health = health_after(self._health.get(name), vitals, now, sigstopped=stopped)
        self._health[name] = health
        if health.silent_for(now) >= timeout:
            reason = (
                f"it had not called dora for {timeout:g} s"
                if vitals.connected
                else f"it had not ended {timeout:g} s after it dropped its Node"
            )
            self._kill(run, f"was killed because {reason}")
            return
        if resting and now - self._pinged.get(name, -math.inf) >= timeout / 2:
            self._pinged[name] = now
            self._state.broker.notifications.ping(name)
        yield min(health.healthy_at + timeout, now + SAMPLE_S)

    def _check_silence(self, run: NodeRun, now: float) -> Iterator[float]:
        """Report a node without a health check that makes no call; yield when to check again.

        It may compute for as long as it likes, so it is only reported, once. While nodes are
        stepped, all wait for one: the stepper reports that one if it does not sleep again.
        """
        state, name = self._state, run.node.id
        if state.broker.stepper is not None:
            return
        opened = state.lifecycle.barrier.phase is Phase.OPEN
        if run.process is None or not run.connected or not opened or _is_ending(run):
            self._present.pop(name, None)
            return
        if run.node.health_check_timeout is not None or name == LINK or run.silence_reported:
            return
        yield (now // SILENCE_CHECK_S + 1) * SILENCE_CHECK_S
        vitals = state.broker.stats.vitals(name)
        if not vitals.connected:  # it has dropped its `Node`
            self._present.pop(name, None)
            return
        starts, before = self._present.get(name, (0, None))
        if before is not None and starts == run.starts:
            after = presence_after(before, vitals, now, ask_after=SILENCE_S / 2)
        else:
            after = presence_after(None, vitals, now, ask_after=SILENCE_S / 2)
        self._present[name] = run.starts, after
        if after.asked_at is None:
            return
        yield (now // ANSWER_CHECK_S + 1) * ANSWER_CHECK_S
        if after.asked_at == now:
            _log.debug("node %s made no call for %.3g s: asking", name, after.silent_for(now))
            state.broker.notifications.ping(name)
        elif now - after.asked_at >= SILENCE_S / 2:
            _log.debug("node %s has not answered since %.3f", name, after.called_at)
            run.silence_reported = True
            text = (
                f"has not called dora for {SILENCE_S:g} s: it computes, or hangs; "
                "`health_check_timeout` in the dataflow ends a node that hangs"
            )
            state.listener.report("warn", name, text)
            state.changes.changed()

    def _kill(self, run: NodeRun, reason: str) -> None:
        if run.process is None:
            return
        _log.debug("node %s, process %d %s", run.node.id, run.process.pid, reason)
        run.watchdog_reason = reason
        self._health.pop(run.node.id, None)
        run.process.signal(signal.SIGKILL)
        self._state.changes.changed()

    def _check_inputs(self, run: NodeRun, now: float) -> Iterator[float]:
        """Break silent inputs and repair the others; yield when to check again."""
        name = run.node.id
        still_open = self._state.lifecycle.flow.open_of(name)
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
                sent = self._state.broker.stats.input_counters(name, entry.id).sent
            except KeyError:  # it is being disconnected
                continue
            after = self._breakers[key] = before.check(sent, now)
            if after.broken != before.broken:
                self._report_input(run, entry, after)
            yield now + SAMPLE_S if after.due is None else min(after.due, now + SAMPLE_S)

    def _report_input(self, run: NodeRun, entry: Input, breaker: Breaker) -> None:
        """Notify the node, the user and watchers of an input that broke or recovered."""
        state, name = self._state, run.node.id
        level: Level
        _log.debug("node %s, input %s: %s", name, entry.id, breaker)
        if breaker.broken:
            run.broken[entry.id] = breaker.sent
            state.broker.notifications.input_broken(name, entry.id)
            what, level = "input-broken", "warn"
            text = f"input {entry.id}: no message from {entry.source} for {breaker.timeout:g} s"
        else:
            run.broken.pop(entry.id, None)
            state.broker.notifications.input_recovered(name, entry.id)
            what, level = "input-recovered", "info"
            text = f"input {entry.id}: messages from {entry.source} arrive again"
        state.listener.report(level, name, text)
        state.publish(what, name, text, input=entry.id, source=str(entry.source))
        state.changes.changed()


def _is_ending(run: NodeRun) -> bool:
    return bool(run.watchdog_reason) or run.stop_requested


def _new_breaker(timeout: float, broken_at: int | None, now: float) -> Breaker:
    """Return the breaker of an input at its first check.

    `broken_at` is the number of messages sent when an earlier daemon found it broken, else None.
    """
    if broken_at is None:
        return Breaker(timeout)
    return Breaker(timeout, sent=broken_at, last_at=now, broken=True)
