"""What is done to the nodes: kills and stops, at random, in bursts and in calmer spells."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from hwtests.torture.keeper import HolderClient

INTERVALS_S = (0.01, 0.02, 0.02, 0.05, 0.2)
"""Mean times between two blows; one is chosen for each spell."""


async def torment(keeper: HolderClient, rng: Random, seconds: float) -> None:
    """Go on for so long, or until something is wrong."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    spell_end = 0.0
    interval = 0.0
    while loop.time() < end and not keeper.failed.is_set():
        if loop.time() > spell_end:
            spell_end = loop.time() + rng.uniform(0.2, 2.0)
            interval = rng.choice(INTERVALS_S)
        await asyncio.sleep(rng.expovariate(1 / interval))
        awake = keeper.awake
        if not awake:
            continue
        victim = rng.choice(awake)
        blow = rng.random()
        if blow < 0.15:
            keeper.pause(victim, rng.expovariate(10.0))
            if rng.random() < 0.3:
                keeper.kill(victim)
        elif blow < 0.2 and len(awake) > 2:
            for each in rng.sample(awake, 2):
                keeper.kill(each)
        else:
            keeper.kill(victim)
