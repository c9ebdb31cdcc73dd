"""How long a start may take: a warning about what delays it, and the end of a hold."""

import asyncio
import logging
from collections.abc import Callable

from dorad.daemon.rules.barrier import Phase
from dorad.daemon.rules.links import Links
from dorad.daemon.supervisor.state import SupervisorState
from dorad.phrases import first_of

MAX_NAMED = 20
"""Maximum nodes that one line names."""

START_WARNING_S = 10.0
"""Seconds until the nodes and links that delay the start are reported."""

_log = logging.getLogger(__name__)


class StartDeadlines:
    """The timers of one start."""

    def __init__(
        self,
        state: SupervisorState,
        links: Links,
        hold: float | None,
        fail: Callable[[str], None],
    ) -> None:
        """`fail` fails the start if it is still held after `hold` seconds; it gets the reason."""
        self._state = state
        self._links = links
        self._hold = hold
        self._fail = fail
        self._timers: list[asyncio.TimerHandle] = []
        self.hold_until: float | None = None
        """When a held start fails, on the loop's clock; None if it is not held."""

    def begin(self, *, first: bool) -> None:
        """Start the timers. An adopted start (not `first`) keeps the deadline of its hold."""
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_later(START_WARNING_S, self._report_pending)]
        if self._hold is not None and first:
            self.hold_until = loop.time() + self._hold
        if self.hold_until is not None:
            self._timers.append(loop.call_at(self.hold_until, self._expire_hold))

    def cancel(self) -> None:
        """Cancel the timers."""
        for timer in self._timers:
            timer.cancel()

    def report_stop(self) -> None:
        """Report a stop that comes before the start was complete, with the nodes that delay it."""
        if awaited := self._state.lifecycle.awaited:
            names = first_of(sorted(awaited), MAX_NAMED)
            text = f"the dataflow is stopped before it has started: no Node() yet in: {names}"
            self._state.listener.report("warn", None, text)

    def _report_pending(self) -> None:
        """Report which nodes and links delay the start."""
        if self._state.lifecycle.barrier.phase is not Phase.WAITING:
            return
        if names := self._pending():
            hint = "every node must call it; `startup_timeout` ends one that hangs before"
            self._state.listener.report(
                "warn", None, f"the start still waits for Node() in: {names} ({hint})"
            )
        if links := self._links.missing():
            self._state.listener.report("warn", None, f"the start still waits: {'; '.join(links)}")

    def _pending(self) -> str:
        """Return the nodes that have not called `Node()` yet, as text."""
        return first_of(sorted(self._state.lifecycle.barrier.pending), MAX_NAMED)

    def _expire_hold(self) -> None:
        """Fail the start: the barrier was not released in time."""
        lifecycle = self._state.lifecycle
        if lifecycle.barrier.phase is not Phase.WAITING or lifecycle.stopping:
            return
        if self.hold_until is None:
            return  # it was opened, and only waits for nodes
        missing = [f"it waits for Node() in: {names}" if (names := self._pending()) else ""]
        missing += self._links.missing()
        why = "; ".join(filter(None, missing)) or "the other machines were not ready"
        _log.debug("the hold is over: %s", why)
        self.hold_until = None
        self._fail(f"the dataflow did not start in time: {why}")
