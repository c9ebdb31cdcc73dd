"""What a coordinator costs under load: processor, memory, and how fast it answers."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psutil
from msgspec import Struct

from dorad.control.errors import ControlError

POLL_S = 0.2
TIMEOUT_S = 5.0
"""An operator who waits longer for an answer counts it as a failure."""


class Cost(Struct):
    """What was measured over one phase; memory is in bytes, times are in seconds."""

    seconds: float = 0.0
    cpu: float = 0.0
    """Of the coordinator."""
    memory: int = 0
    """Of the coordinator, at its highest."""
    answers: list[float] = []
    """How long each answer took."""
    failures: list[str] = []
    """Requests without an answer."""

    @property
    def p50(self) -> float:
        """The median time of an answer."""
        return statistics.median(self.answers) if self.answers else float("nan")

    @property
    def p99(self) -> float:
        """The time that one of a hundred answers exceeds."""
        if len(self.answers) < 2:
            return float("nan")
        return statistics.quantiles(self.answers, n=100, method="inclusive")[-1]

    @property
    def worst(self) -> float:
        """The longest time."""
        return max(self.answers, default=float("nan"))


@asynccontextmanager
async def measured(pid: int, ask: Callable[[], Awaitable[object]]) -> AsyncIterator[Cost]:
    """Measure a process until the block is left, and `ask` it every 0.2 s meanwhile."""
    process = psutil.Process(pid)
    cost = Cost()
    began, before = time.monotonic(), process.cpu_times()
    asking = asyncio.create_task(_ask(process, ask, cost))
    try:
        yield cost
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        after = process.cpu_times()
        cost.seconds = time.monotonic() - began
        cost.cpu = after.user + after.system - before.user - before.system


async def _ask(process: psutil.Process, ask: Callable[[], Awaitable[object]], cost: Cost) -> None:
    while True:
        began = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await ask()
            cost.answers.append(time.monotonic() - began)
        except (ControlError, TimeoutError) as error:
            cost.failures.append(str(error) or f"no answer within {TIMEOUT_S:g} s")
        cost.memory = max(cost.memory, process.memory_info().rss)
        await asyncio.sleep(POLL_S)
