"""Kill and stop nodes at random, in bursts and in quieter phases."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from hwtests.torture.supervisor import NodeSupervisor

INTERVALS_S = (0.01, 0.02, 0.02, 0.05, 0.2)
"""Mean times between two kills or stops; one is chosen for each phase."""


async def inject(supervisor: NodeSupervisor, rng: Random, seconds: float) -> None:
    """Kill and stop nodes for `seconds`, or until a fault is found."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    phase_end = 0.0
    interval = 0.0
    while loop.time() < end and not supervisor.failed.is_set():
        if loop.time() > phase_end:
            phase_end = loop.time() + rng.uniform(0.2, 2.0)
            interval = rng.choice(INTERVALS_S)
        await asyncio.sleep(rng.expovariate(1 / interval))
        running = supervisor.running
        if not running:
            continue
        node = rng.choice(running)
        draw = rng.random()
        if draw < 0.15:
            supervisor.pause(node, rng.expovariate(10.0))
            if rng.random() < 0.3:
                supervisor.kill(node)
        elif draw < 0.2 and len(running) > 2:
            for each in rng.sample(running, 2):
                supervisor.kill(each)
        else:
            supervisor.kill(node)
