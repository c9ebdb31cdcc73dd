"""A process with many simulated robots: `python -m hwtests.scale.simulate`; see `orders`."""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Sequence

import msgspec

from hwtests.scale.certificates import context_of
from hwtests.scale.orders import Counts, Fleet, Order
from hwtests.scale.robot import Robot


async def serve() -> None:
    """Obey orders until standard input ends."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    fleet = msgspec.json.decode(await reader.readline(), type=Fleet)
    robots = [
        Robot(name, fleet.address, fleet.port, context_of(fleet.folder, name))
        for name in fleet.robots
    ]
    async with asyncio.TaskGroup() as tasks:
        running: list[asyncio.Task[None]] = []
        _answer(robots)
        while line := await reader.readline():
            order = msgspec.json.decode(line, type=Order)
            chosen = robots[: round(order.share * len(robots))]
            match order.act:
                case "connect":
                    running += [tasks.create_task(robot.run()) for robot in robots]
                case "drop":
                    for robot in chosen:
                        robot.drop()
                case "calm":
                    for robot in robots:
                        robot.inflict("")
                case "churn" | "mute" | "babble":
                    for robot in chosen:
                        robot.inflict(order.act)
                case "count":
                    pass
            _answer(robots)
        for task in running:
            task.cancel()


def _answer(robots: Sequence[Robot]) -> None:
    traffic = [robot.traffic() for robot in robots]
    refusals: Counter[str] = Counter()
    for robot in robots:
        refusals += robot.refusals
    counts = Counts(
        robots=len(robots),
        attached=sum(robot.attached for robot in robots),
        tries=sum(robot.tries for robot in robots),
        healthy=sum(robot.attached for robot in robots if not robot.fault),
        healthy_tries=sum(robot.tries for robot in robots if not robot.fault),
        sent=sum(sent for sent, _ in traffic),
        received=sum(received for _, received in traffic),
        running=sum(robot.running for robot in robots),
        refusals=dict(refusals),
        last_attached=max((robot.last_attached for robot in robots), default=0.0),
    )
    sys.stdout.write(msgspec.json.encode(counts).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
