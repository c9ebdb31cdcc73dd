"""What the parts of a supervisor have in common: the nodes, the decisions, and whom to tell."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dorad.daemon.rules.actions import Action
    from dorad.daemon.rules.exits import Result
    from dorad.daemon.rules.lifecycle import Lifecycle
    from dorad.daemon.supervisor.noderun import NodeRun
    from dorad.daemon.supervisor.ports import Broker, Event, Notice


class Bell:
    """Wakes whoever waits for something to change. Belongs to one event loop."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for the next ring; False if none comes within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                return await self._event.wait()
        except TimeoutError:
            return False

    async def until(self, holds: Callable[[], object], seconds: float | None = None) -> bool:
        """Wait until a ring finds that a condition holds; False if none has after so long."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    await self._event.wait()
        except TimeoutError:
            return bool(holds())
        return True


class Totals(Struct, eq=False):
    """How often something had to be done, since the dataflow began or a daemon took it over."""

    restarts: int = 0
    health_check_kills: int = 0
    startup_kills: int = 0
    input_timeouts: int = 0
    circuit_breaker_recoveries: int = 0


class Shared(Struct, eq=False):
    """One dataflow as its supervisor has it before it."""

    life: Lifecycle
    broker: Broker
    notice: Notice
    happened: Event
    nodes: dict[str, NodeRun]
    on_change: Callable[[], None]
    carry_out: Callable[[Iterable[Action]], None]
    results: list[Result] = field(default_factory=list)
    """In the order in which the nodes ended."""
    killing: str = ""
    """Why every process is to be killed, also one that is just being started."""
    finished: bool = False
    """Whether the dataflow has ended."""
    totals: Totals = field(default_factory=Totals)
    bell: Bell = field(default_factory=Bell)

    def changed(self) -> None:
        """Tell everybody who waits, and whoever keeps the snapshot, that something has changed."""
        self.bell.ring()
        self.on_change()

    def tell(self, what: str, node: str | None, text: str = "", **data: Any) -> None:
        """Tell programs that something happened."""
        self.happened(what, node, text, data)
