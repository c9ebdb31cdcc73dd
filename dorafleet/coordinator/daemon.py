"""The methods `daemon.…`: the state and the end of the coordinator, for `dora`."""

import os
import time
from collections.abc import Callable

from dorad import __version__
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorafleet.coordinator.dataflows import DataflowMethods
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.overview import FleetOverview
from dorafleet.coordinator.robots import Robots

MAX_NOTICES = 200


class DaemonMethods:
    """Answers the methods `daemon.…`."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        dataflows: DataflowMethods,
        overview: FleetOverview,
        end: Callable[[], None],
    ) -> None:
        """`end` lets the coordinator end."""
        self._fleet = fleet
        self._robots = robots
        self._dataflows = dataflows
        self._overview = overview
        self._end = end
        self._started_at = time.time()

    @handles(m.DAEMON_STATUS)
    async def status(self, _call: Call, _params: m.Nothing) -> m.DaemonStatus:
        """Return the state of the coordinator; `nodes` are those that have a machine."""
        running = self._fleet.running
        seen = [robot for robot in self._robots.all if robot.ever_seen]
        notices = [
            f"robot `{robot.id}`: {each.text}"
            for robot in seen
            for each in self._overview.findings(robot)
        ]
        if len(notices) > MAX_NOTICES:
            left = len(notices) - MAX_NOTICES
            notices[MAX_NOTICES:] = [f"and {left} more problems: see `dorafleet status`"]
        return m.DaemonStatus(
            version=__version__,
            protocol=m.PROTOCOL,
            pid=os.getpid(),
            started_at=self._started_at,
            dataflows=len(running),
            nodes=sum(len(record.placement) for record in running),
            state=self._fleet.store_name,
            notices=notices,
        )

    @handles(m.DAEMON_SHUTDOWN)
    async def shutdown(self, call: Call, params: m.Shutdown) -> m.Nothing:
        """End the coordinator, unless dataflows run; with `force` stop them first."""
        running = self._fleet.running
        if running and not params.force:
            names = ", ".join(record.key for record in running)
            some = "1 dataflow runs" if len(running) == 1 else f"{len(running)} dataflows run"
            raise ControlError(
                "busy",
                f"{some}: {names}",
                "stop them first, or use --force; to end the coordinator alone, stop its service",
            )
        for record in running:
            await self._dataflows.stop(call, m.Stop(dataflow=record.uuid, force=True))
        self._end()
        return m.Nothing()
