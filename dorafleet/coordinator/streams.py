"""Merge the streams of several robots into one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from dorad.control.errors import ControlError
from dorafleet.coordinator.robotcalls import named

WAITING = 64
"""Events that wait to be taken; then the robots' streams wait, and drop what is too much."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@asynccontextmanager
async def merged(
    streams: Mapping[str, AbstractAsyncContextManager[AsyncIterator[T]]],
    instead: Callable[[str, str], T] | None = None,
) -> AsyncIterator[AsyncIterator[tuple[str, T]]]:
    """Open streams and yield their events as they come, each with its robot.

    A stream that fails ends alone, with what `instead` returns for the robot and the reason; if all
    have failed, the last error is raised. Any other exception than ControlError is raised at once.
    """
    queue: asyncio.Queue[tuple[str, T] | BaseException | None] = asyncio.Queue(WAITING)
    closed = False

    async def read(robot: str, stream: AbstractAsyncContextManager[AsyncIterator[T]]) -> None:
        end: BaseException | None = None
        try:
            async with stream as events:
                async for event in events:
                    await queue.put((robot, event))
        except ControlError as error:
            _log.debug("a stream of robot `%s` ends: %s", robot, error)
            end = named(robot, error)
            if instead is not None and len(streams) > 1:
                await queue.put((robot, instead(robot, error.message)))
        except BaseException as error:
            if closed:
                raise
            _log.debug("the stream of robot `%s` fails", robot, exc_info=error)
            end = error
        await queue.put(end)

    async def arrivals() -> AsyncIterator[tuple[str, T]]:
        left = len(streams)
        fine = False
        while left:
            event = await queue.get()
            if isinstance(event, tuple):
                yield event
                continue
            if event is not None and not isinstance(event, ControlError):
                raise event
            left -= 1
            fine = fine or event is None
            if not left and not fine and event is not None:
                raise event

    tasks = [asyncio.create_task(read(*each)) for each in streams.items()]
    try:
        yield arrivals()
    finally:
        closed = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
