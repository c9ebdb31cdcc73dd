"""The method `incident.list`: what the black boxes of robots have kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.control import messages as m
from dorad.control.session import HandlerTable
from dorad.natural import natural_item
from dorafleet.coordinator.asking import ask
from dorafleet.coordinator.onerobot import named_without_robot, owners

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from dorad.control.server import Call
    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.coordinator.robots import Robots


class IncidentMethods:
    """Answers the method `incident.list`."""

    def __init__(self, fleet: Fleet, robots: Robots) -> None:
        self._fleet = fleet
        self._robots = robots

    @property
    def table(self) -> HandlerTable:
        """The handler of each method."""
        table = HandlerTable()
        table.call(m.INCIDENT_LIST, self.list_all)
        return table

    async def list_all(self, _call: Call, params: m.Ref) -> m.IncidentList:
        """List the incidents of one dataflow or of all, by robot."""
        wanted, there = self._where(params.dataflow)
        found, missing = await ask(
            self._robots,
            there,
            m.INCIDENT_LIST,
            m.Ref(dataflow=wanted),
            unknown=m.IncidentList(boxes=[]),
        )
        placed = {record.uuid: record.robots for record in self._fleet.records}
        boxes = [
            replace(box, machine=robot, dataflow=_named(robot, box, placed))
            for robot, answer in sorted(found.items(), key=natural_item)
            for box in answer.boxes
            # A robot has no box of a dataflow that it has no share of.
            if robot in placed.get(box.dataflow, (robot,))
        ]
        return m.IncidentList(boxes=boxes, missing=missing)

    def _where(self, wanted: str | None) -> tuple[str | None, Iterable[str]]:
        """Return a dataflow as robots know it, and the robots to ask. Raises ControlError."""
        if wanted is None:
            return None, [robot.id for robot in self._robots.all]
        own = owners(wanted, self._fleet, self._robots)
        if own is not None:
            return own
        ended = [each.id for each in self._robots.all if wanted in each.releases]
        if ended:
            return wanted, ended
        name = named_without_robot(wanted, self._fleet)
        record = self._fleet.find(name.dataflow, ended_too=True)
        return record.uuid, [each for each in record.robots if name.robot in (None, each)]


def _named(robot: str, box: m.BlackBox, placed: Collection[str]) -> str:
    """Return what commands call the dataflow of a box."""
    return box.dataflow if box.dataflow in placed else f"{robot}/{box.name or box.dataflow}"
