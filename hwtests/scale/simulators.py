"""The processes that simulate the robots, as one fleet."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

import msgspec

from hwtests.bench.process import MeasurementError
from hwtests.scale.orders import Counts, Fleet, Order

POLL_S = 0.1
ANSWER_S = 60.0


class Simulators:
    """All simulated robots."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes

    async def order(
        self,
        act: Literal["count", "connect", "drop", "churn", "mute", "babble", "calm"],
        share: float = 1.0,
    ) -> Counts:
        """Give an order to the first `share` of the robots of each process; return all counts."""
        line = msgspec.json.encode(Order(act, share)) + b"\n"
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(line)
        return _sum([await _read(process) for process in self._processes])

    async def wait(self, met: Callable[[Counts], bool], what: str, deadline_s: float) -> Counts:
        """Wait for a condition; return the counts that meet it.

        Raises:
            MeasurementError: it was not met in time.
        """
        end = time.monotonic() + deadline_s
        while True:
            counts = await self.order("count")
            if met(counts):
                return counts
            if time.monotonic() > end:
                raise MeasurementError(f"after {deadline_s:g} s still not {what}: {counts}")
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def simulators(fleet: Fleet, processes: int) -> AsyncIterator[Simulators]:
    """Yield the robots of a fleet, spread over processes; they do not connect yet."""
    started: list[Process] = []
    async with AsyncExitStack() as stack:
        for number in range(processes):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "hwtests.scale.simulate", stdin=PIPE, stdout=PIPE
            )
            stack.push_async_callback(_end, process)
            started.append(process)
            assert process.stdin is not None
            part = msgspec.structs.replace(fleet, robots=fleet.robots[number::processes])
            process.stdin.write(msgspec.json.encode(part) + b"\n")
        for process in started:
            await _read(process)
        yield Simulators(started)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _read(process: Process) -> Counts:
    assert process.stdout is not None
    async with asyncio.timeout(ANSWER_S):
        line = await process.stdout.readline()
    if not line:
        raise MeasurementError("a process that simulates robots has ended")
    return msgspec.json.decode(line, type=Counts)


def _sum(parts: Sequence[Counts]) -> Counts:
    refusals: Counter[str] = Counter()
    for part in parts:
        refusals += Counter(part.refusals)
    return Counts(
        robots=sum(part.robots for part in parts),
        attached=sum(part.attached for part in parts),
        tries=sum(part.tries for part in parts),
        healthy=sum(part.healthy for part in parts),
        healthy_tries=sum(part.healthy_tries for part in parts),
        sent=sum(part.sent for part in parts),
        received=sum(part.received for part in parts),
        running=sum(part.running for part in parts),
        refusals=dict(refusals),
        last_attached=max(part.last_attached for part in parts),
    )
