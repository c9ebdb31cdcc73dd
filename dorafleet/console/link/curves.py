"""The last ten minutes of dataflows, as the server has kept them: read while they are shown."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from dorad.control.errors import ControlError
from dorad.control.messages import (
    ROBOT_HISTORY,
    ROBOT_POINTS,
    TOP_HISTORY,
    EdgeCurves,
    EdgeStats,
    History,
    NodeCurves,
    NodeInfo,
    RobotCurves,
    RobotHistoryQuery,
    TopHistory,
)
from dorafleet.console.link.server import Server

EVERY_S = 10.0
"""Seconds between two readings; a point of a curve covers more."""
NEW_ROWS_S = 1.0
"""Seconds between two readings of robots while the operator scrolls."""
MAX_DATAFLOWS = 8
"""Dataflows that are read; a screen shows few more rows than those have."""

_log = logging.getLogger(__name__)


class RobotCurveReader:
    """The curves of the robots that a screen shows."""

    def __init__(
        self,
        in_background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        bring: Callable[[], None],
    ) -> None:
        """`bring` is called when curves have come."""
        self._in_background = in_background
        self._bring = bring
        self._asked: tuple[float, frozenset[str]] = (0.0, frozenset())
        """When robots were asked for last, on the monotonic clock, and which."""
        self._reading = False
        self._curves: dict[str, RobotCurves] = {}

    def want(self, server: Server, robots: Iterable[str]) -> None:
        """Read these robots, unless they were read just now."""
        wanted = frozenset(robots)
        at, asked = self._asked
        every = EVERY_S if wanted <= asked else NEW_ROWS_S
        idle = self._reading or not wanted or ROBOT_HISTORY.name in server.missing
        if idle or (at and time.monotonic() < at + every):
            return
        self._asked = (time.monotonic(), wanted)
        self._reading = True
        self._in_background(self._read(server, wanted))

    async def _read(self, server: Server, robots: frozenset[str]) -> None:
        try:
            query = RobotHistoryQuery(robots=sorted(robots))
            self._curves = (await server.call(ROBOT_HISTORY, query)).robots
        except ControlError as error:
            _log.debug("no curves of robots: %s", error)
            if error.code in ("unknown-method", "unsupported"):
                server.missing.add(ROBOT_HISTORY.name)
            self._curves = {}
        finally:
            self._reading = False
        self._bring()

    def of(self, robot: str) -> RobotCurves | None:
        """Return the curves of a robot; None before they have come."""
        return self._curves.get(robot)


class CurveReader:
    """The curves of the dataflows that a screen shows."""

    def __init__(
        self,
        in_background: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        bring: Callable[[], None],
        named: Callable[[NodeInfo | EdgeStats], str],
    ) -> None:
        """`bring` is called when curves have come.

        `named` returns how the server is asked about the dataflow of a node or an edge.
        """
        self._in_background = in_background
        self._bring = bring
        self._named = named
        self._asked: dict[str, float] = {}
        """When each dataflow was asked for, on the monotonic clock."""
        self._histories: dict[str, History] = {}

    def want(self, server: Server, rows: Iterable[NodeInfo | EdgeStats]) -> None:
        """Read the dataflows of these rows, unless they were read just now."""
        names = dict.fromkeys(map(self._named, rows))
        now, wanted = time.monotonic(), list(names)[:MAX_DATAFLOWS]
        self._asked = {name: at for name, at in self._asked.items() if name in wanted}
        self._histories = {name: h for name, h in self._histories.items() if name in wanted}
        if TOP_HISTORY.name in server.missing:
            return
        for name in wanted:
            if now >= self._asked.get(name, 0.0) + EVERY_S:
                self._asked[name] = now
                self._in_background(self._read(server, name))

    async def _read(self, server: Server, name: str) -> None:
        try:
            history = await server.call(TOP_HISTORY, TopHistory(dataflow=name, points=ROBOT_POINTS))
        except ControlError as error:
            _log.debug("no curves of %s: %s", name, error)
            if error.code in ("unknown-method", "unsupported"):
                server.missing.add(TOP_HISTORY.name)
            self._histories.pop(name, None)
        else:
            if name in self._asked:
                self._histories[name] = history
        self._bring()

    def of_node(self, info: NodeInfo) -> NodeCurves | None:
        """Return the curves of a node; None before they have come."""
        history = self._histories.get(self._named(info))
        for each in [] if history is None else history.nodes:
            if each.node == info.node and each.machine in (None, info.machine):
                return each
        return None

    def of_edge(self, edge: EdgeStats) -> EdgeCurves | None:
        """Return the curves of an edge; None before they have come."""
        history = self._histories.get(self._named(edge))
        for each in [] if history is None else history.edges:
            ends = (each.source, each.target) == (edge.source, edge.target)
            if ends and each.machine in (None, edge.machine):
                return each
        return None
