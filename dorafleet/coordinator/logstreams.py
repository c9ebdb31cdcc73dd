"""The log lines of one robot, over the losses of its connection."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

import msgspec

from dorad.bell import Bell
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.logposition import LogPosition, corrected_time
from dorafleet.coordinator.robot import Robot, unknown_robot
from dorafleet.coordinator.robots import Robots

OpenStream = Callable[
    [str, m.StreamMethod[m.LogRead, m.LogLines], m.LogRead],
    AbstractAsyncContextManager[AsyncIterator[m.LogLines]],
]
"""Opens a stream on a robot, with a method and its parameters."""

AGAIN_S = 1.0
"""Pause before a stream is opened again on a robot that is connected."""

_LOST = ("unavailable", "deadline", "no-daemon")
"""Errors of a stream whose robot, or whose dorad, is away."""

_log = logging.getLogger(__name__)


class RobotLines:
    """Reads the lines of one robot. With `follow`, it continues when the robot is back."""

    def __init__(
        self,
        robots: Robots,
        open_stream: OpenStream,
        bell: Bell,
        robot: str,
        params: m.LogRead,
        runs_on: Callable[[str], bool],
    ) -> None:
        """`params` are for the robot, with times of the coordinator.

        `open_stream` opens a stream for the client; `bell` rings when a robot connects. `runs_on`
        returns True while the dataflow shall run on a robot, so that one which does not know it
        yet is asked again.
        """
        self._robots = robots
        self._open_stream = open_stream
        self._bell = bell
        self._robot = robot
        self._params = params
        self._runs_on = runs_on
        self._position = LogPosition(lambda line: corrected_time(line, self._skew))
        self._last: Robot | None = None
        """The robot as it was last known here."""
        self._lost_at: float | None = None
        """When the stream was lost, in seconds since 1970; None while it is open."""

    async def read(self) -> AsyncGenerator[m.LogLines, None]:
        """Yield lines, and one line for each loss and each return. Raises ControlError."""
        while True:
            robot = self._robots.find(self._robot)
            if robot is None:
                if self._last is None:
                    raise unknown_robot(self._robot, self._robots.machines)
                yield self._line(self._last, f"robot `{self._robot}` was removed from the fleet")
                return
            self._last = robot
            if robot.client is None and self._params.follow:
                if event := self._lost(robot, robot.trouble):
                    yield event
                await self._bell.until(self._may_go_on)
                continue
            try:
                async with aclosing(self._stream(robot)) as events:
                    async for event in events:
                        yield event
                return
            except ControlError as error:
                if not self._goes_on(error):
                    raise
                if event := self._lost(robot, error.message):
                    yield event
            await asyncio.sleep(AGAIN_S)

    async def _stream(self, robot: Robot) -> AsyncGenerator[m.LogLines, None]:
        again = self._lost_at is not None
        params = _at(self._params, robot.skew.seconds)
        since = self._position.resume()
        if since is not None:
            since += robot.skew.seconds
            params = msgspec.structs.replace(params, since=max(0.0, since), tail=None)
        stream = self._open_stream(robot.id, m.LOGS_READ, params)
        async with stream as events:
            async for event in events:
                if again:
                    again = False
                    yield self._back(robot, since)
                lines = self._position.take(event.lines)
                if lines or event.left_out:
                    yield msgspec.structs.replace(event, lines=lines)

    @property
    def _skew(self) -> float:
        return 0.0 if self._last is None else self._last.skew.seconds

    def _may_go_on(self) -> bool:
        robot = self._robots.find(self._robot)
        return robot is None or robot.client is not None

    def _goes_on(self, error: ControlError) -> bool:
        if not self._params.follow:
            return False
        if error.code == "not-found" and self._lost_at is not None:
            return self._runs_on(self._robot)
        return error.code in _LOST

    def _lost(self, robot: Robot, reason: str) -> m.LogLines | None:
        """Return the line for a loss, the first time it is seen."""
        if self._lost_at is not None:
            return None
        self._lost_at = time.time()
        _log.debug("no lines of robot `%s`: %s", robot.id, reason)
        text = f"no lines of robot `{robot.id}`: {reason}; they follow when it is back"
        return self._line(robot, text)

    def _back(self, robot: Robot, since: float | None) -> m.LogLines:
        assert self._lost_at is not None
        away = time.time() - self._lost_at
        self._lost_at = None
        _log.debug("robot `%s` is back after %.1f s, lines since %s", robot.id, away, since)
        text = f"robot `{robot.id}` is back after {away:.0f} s"
        if since is not None:
            text += "; the lines that it has stored meanwhile follow"
        return self._line(robot, text)

    def _line(self, robot: Robot, text: str) -> m.LogLines:
        record = m.LogRecord(
            timestamp=time.time() + robot.skew.seconds,
            level="warn",
            node=None,
            message=text,
            machine=robot.id,
        )
        return m.LogLines(dataflow=self._params.dataflow or "", lines=[record])


def _at(params: m.LogRead, skew: float) -> m.LogRead:
    """Return a request with the times of a robot's clock, which is ahead by `skew` seconds."""
    if not skew:
        return params
    return msgspec.structs.replace(
        params,
        since=None if params.since is None else params.since + skew,
        until=None if params.until is None else params.until + skew,
    )
