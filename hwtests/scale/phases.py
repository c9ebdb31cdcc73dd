"""The phases of the benchmark: what happens to the fleet, and what is measured meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from msgspec import Struct

from dorafleet.coordinator.loadmessages import FleetLoads
from hwtests.scale.meter import Cost, measured
from hwtests.scale.orders import Counts
from hwtests.scale.simulators import Simulators

DEADLINE_S = 300.0
CHURNING = 0.3
NONSENSE = 0.02
MUTE = 0.02
METRICS_S = 5.0
"""Seconds from one measurement of all robots to the next."""


class Phase(Struct):
    """One phase with its cost."""

    name: str
    cost: Cost
    took: float | None = None
    """Seconds until all robots that should be there were."""
    rate: float | None = None
    """Bytes on the wire for each robot and second."""
    attached: int = 0
    """Robots at its end."""
    note: str = ""


class Scenario:
    """Runs the phases against one coordinator."""

    def __init__(
        self,
        robots: Simulators,
        pid: int,
        ask: Callable[[], Awaitable[object]],
        seconds: float,
        load: Callable[[], Awaitable[FleetLoads]],
    ) -> None:
        """`ask` is what an operator asks all the time; phases without an end last `seconds`.

        `load` measures all robots, as `dorafleet top` does.
        """
        self._robots = robots
        self._pid = pid
        self._ask = ask
        self._seconds = seconds
        self._load = load

    async def run(self, report: Callable[[Phase], None]) -> None:
        """Run all phases; report each at its end."""
        for phase in (
            self.idle,
            self.storm,
            self.steady,
            self.metrics,
            self.dropped,
            self.churning,
            self.hostile,
        ):
            report(await phase())

    async def idle(self) -> Phase:
        """Measure the coordinator before any robot has connected."""
        async with measured(self._pid, self._ask) as cost:
            await asyncio.sleep(self._seconds / 4)
        return Phase("no robot connected", cost)

    async def storm(self) -> Phase:
        """Let all robots connect at the same moment."""
        return await self._until_all("all connect at once", "connect")

    async def dropped(self) -> Phase:
        """Cut all connections at the same moment; robots come back as agents do."""
        return await self._until_all("all dropped at once", "drop")

    async def steady(self) -> Phase:
        """Leave all alone."""
        before = await self._robots.order("count")
        began = time.monotonic()
        async with measured(self._pid, self._ask) as cost:
            await asyncio.sleep(self._seconds)
        after = await self._robots.order("count")
        moved = after.sent + after.received - before.sent - before.received
        rate = moved / (time.monotonic() - began) / max(1, after.attached)
        return Phase("steady state", cost, rate=rate, attached=after.attached)

    async def metrics(self) -> Phase:
        """Measure all nodes and edges of all robots every few seconds, as a scraper does."""
        before = await self._robots.order("count")
        began = time.monotonic()
        took: list[float] = []
        missing = edges = 0
        async with measured(self._pid, self._ask) as cost:
            while time.monotonic() - began < self._seconds:
                asked = time.monotonic()
                rows = (await self._load()).rows
                took.append(time.monotonic() - asked)
                missing += sum(len(row.missing) for row in rows)
                edges += sum(row.nodes for row in rows)
                await asyncio.sleep(max(0.0, METRICS_S - took[-1]))
        after = await self._robots.order("count")
        moved = after.sent + after.received - before.sent - before.received
        rate = moved / (time.monotonic() - began) / max(1, after.attached)
        note = (
            f"measured {len(took)} times, every {METRICS_S:g} s: {edges // len(took):,} nodes in "
            f"{sum(took) / len(took):.2f} s, at most {max(took):.2f} s; {missing} not measured"
        )
        return Phase("metrics of all", cost, rate=rate, attached=after.attached, note=note)

    async def churning(self) -> Phase:
        """Let some come and go at random, and then all stay."""
        async with measured(self._pid, self._ask) as cost:
            before = await self._robots.order("churn", CHURNING)
            await asyncio.sleep(self._seconds)
            after = await self._robots.order("count")
            took = await self._calm()
        return Phase(
            f"{CHURNING:.0%} come and go",
            cost,
            took,
            note=_note(before, after),
            attached=after.robots,
        )

    async def hostile(self) -> Phase:
        """Let some send nonsense and others stop reading; no other may notice."""
        async with measured(self._pid, self._ask) as cost:
            await self._robots.order("mute", NONSENSE + MUTE)
            before = await self._robots.order("babble", NONSENSE)
            await asyncio.sleep(self._seconds)
            after = await self._robots.order("count")
            took = await self._calm()
        name = f"{NONSENSE:.0%} send nonsense, {MUTE:.0%} stop reading"
        return Phase(name, cost, took, note=_note(before, after), attached=after.robots)

    async def _until_all(self, name: str, act: Literal["connect", "drop"]) -> Phase:
        before = await self._robots.order("count")
        async with measured(self._pid, self._ask) as cost:
            began = time.monotonic()
            await self._robots.order(act)
            counts = await self._all_attached(before.tries + before.robots)
        took = counts.last_attached - began
        each = cost.cpu / max(1, counts.robots)
        note = (
            f"{counts.tries - before.tries} connections, {each * 1e3:.1f} ms of a core each robot"
        )
        return Phase(name, cost, took, attached=counts.attached, note=note)

    async def _calm(self) -> float:
        began = time.monotonic()
        await self._robots.order("calm")
        counts = await self._all_attached()
        return max(0.0, counts.last_attached - began)

    async def _all_attached(self, tries: int = 0) -> Counts:
        return await self._robots.wait(
            lambda counts: counts.attached == counts.robots and counts.tries >= tries,
            "all attached",
            DEADLINE_S,
        )


def _note(before: Counts, after: Counts) -> str:
    """Return what happened to the robots with and without a fault."""
    begun = after.tries - before.tries
    disturbed = after.healthy_tries - before.healthy_tries
    return f"{begun} connections, {disturbed} of them by the {after.healthy} healthy robots"
