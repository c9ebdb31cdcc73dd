"""The rates of a dataflow's outputs as its connected robots measure them, and who is missing."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NoReturn

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.coordinator.robotcalls import named
from dorafleet.coordinator.robots import Robots

OpenStream = Callable[
    [str, m.StreamMethod[m.TopicWatch, m.TopicRates], m.TopicWatch],
    AbstractAsyncContextManager[AsyncIterator[m.TopicRates]],
]
"""Opens a stream on a robot, with a method and its parameters."""

EVERY_S = 1.0
"""Seconds between two events."""

STALE_S = 5.0
"""Seconds after which figures of a robot that sends no new ones are not shown any more."""

AGAIN_S = 1.0
"""Pause before a stream is opened again on a robot."""

PASSING = ("unavailable", "deadline", "no-daemon", "not-found", "busy", "too-slow")
"""Errors of a robot that may send rates again, as long as the dataflow runs."""

_log = logging.getLogger(__name__)


class RatesBoard:
    """The last figures of each robot. Does no input or output."""

    def __init__(self, asked: Mapping[str, list[str]], now: float) -> None:
        """`asked` are the outputs of each robot, `node/output`."""
        self._asked = {robot: frozenset(names) for robot, names in asked.items()}
        self._rates: dict[str, tuple[float, list[m.TopicRate]]] = {}
        self._began = now
        self._reasons: dict[str, str] = {}
        self._ended: set[str] = set()
        self._merged: m.TopicRate | None = None

    def take(self, robot: str, rates: m.TopicRates, now: float) -> None:
        """Take the figures of a robot: of its own outputs only, each once."""
        own = {each.topic: each for each in rates.rates if each.topic in self._asked[robot]}
        self._rates[robot] = (now, list(own.values()))
        self._merged = rates.merged
        self._reasons.pop(robot, None)

    def lose(self, robot: str, reason: str) -> None:
        """Forget the figures of a robot that was lost."""
        self._rates.pop(robot, None)
        self._reasons[robot] = reason

    def end(self, robot: str) -> None:
        """Forget a robot on which the dataflow has ended."""
        self._rates.pop(robot, None)
        self._reasons.pop(robot, None)
        self._ended.add(robot)

    def shown(self, now: float, at: float) -> m.TopicRates | None:
        """Return all figures that are of now, and the robots without any; None before the first."""
        rates: list[m.TopicRate] = []
        missing = dict(self._reasons)
        for robot in self._asked:
            since, own = self._rates.get(robot, (self._began, []))
            if now - since < STALE_S:
                rates += own
            elif robot not in self._ended:
                missing.setdefault(robot, f"it has measured nothing for {now - since:.0f} s")
        if not rates and not missing:
            return None
        # No two machines measure the intervals between messages of both.
        merged = self._merged if rates and len(self._asked) == 1 else None
        return m.TopicRates(at=at, rates=rates, missing=missing, merged=merged)


async def watch_rates(
    robots: Robots,
    open_stream: OpenStream,
    params: m.TopicWatch,
    chosen: Mapping[str, list[str]],
    runs: Callable[[], bool],
) -> AsyncGenerator[m.TopicRates, None]:
    """Yield the rates of these outputs, by robot, once a second until the dataflow has ended.

    Robots that are lost are named, and measured again when they are back.

    Raises:
        ControlError: that of the last robot if all of them refuse.
    """
    board = RatesBoard(chosen, time.monotonic())
    refused: dict[str, ControlError] = {}

    async def follow(robot: str) -> None:
        own = msgspec.structs.replace(params, topics=chosen[robot])
        while True:
            try:
                async with open_stream(robot, m.TOPIC_WATCH, own) as events:
                    async for event in events:
                        board.take(robot, event, time.monotonic())
                    board.end(robot)
                    return
            except ControlError as error:
                _log.debug("no rates of robot `%s`: %s", robot, error)
                board.lose(robot, error.message)
                if error.code not in PASSING:
                    refused[robot] = named(robot, error)
                    return
            await asyncio.sleep(AGAIN_S)

    async def forget_lost() -> NoReturn:
        """Notice a loss at once: the stream of a robot that hangs ends only later."""
        while True:
            for robot, reason in robots.unreachable(chosen).items():
                board.lose(robot, reason)
            await asyncio.sleep(EVERY_S / 10)

    tasks = [asyncio.create_task(follow(robot)) for robot in chosen]
    tasks.append(asyncio.create_task(forget_lost()))
    try:
        while runs():
            event = board.shown(time.monotonic(), time.time())
            if event is not None:
                yield event
            pause = EVERY_S if event is not None else EVERY_S / 10
            done, _ = await asyncio.wait(tasks[:-1], timeout=pause)
            if len(done) == len(chosen):
                if refused.keys() >= chosen.keys():
                    raise next(reversed(refused.values()))
                return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
