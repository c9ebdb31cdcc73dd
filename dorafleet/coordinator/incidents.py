"""The methods `incident.…`: what the black boxes of robots have kept, and are to keep."""

import asyncio
from collections.abc import Collection

from msgspec.structs import replace

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.natural import natural_item
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.nodeaudit import write_record
from dorafleet.coordinator.onerobot import robots_with
from dorafleet.coordinator.robotcalls import ask, ask_one
from dorafleet.coordinator.robots import Robots

MAX_AT_ONCE = 100
"""Robots that make an incident at once: those that wait lose what is to be kept."""


class IncidentMethods:
    """Answers the methods `incident.…`."""

    def __init__(self, fleet: Fleet, robots: Robots) -> None:
        self._fleet = fleet
        self._robots = robots

    @handles(m.INCIDENT_LIST)
    async def list_all(self, _call: Call, params: m.Ref) -> m.IncidentList:
        """List the incidents of one dataflow or of all, by robot."""
        wanted, there = robots_with(params.dataflow, self._fleet, self._robots)
        answers, missing = await ask(
            self._robots,
            there,
            m.INCIDENT_LIST,
            m.Ref(dataflow=wanted),
            unknown=m.IncidentList(boxes=[]),
        )
        placed = {record.uuid: record.robots for record in self._fleet.records}
        boxes = [
            replace(box, machine=robot, dataflow=_named(robot, box, placed))
            for robot, answer in sorted(answers.items(), key=natural_item)
            for box in answer.boxes
            # A robot has no box of a dataflow that it has no share of.
            if robot in placed.get(box.dataflow, (robot,))
        ]
        return m.IncidentList(boxes=boxes, missing=missing)

    @handles(m.INCIDENT_MARK)
    async def mark(self, call: Call, params: m.IncidentMark) -> m.IncidentMarked:
        """Let each robot that records a dataflow keep an incident."""
        if params.dataflow is None:
            raise ControlError("bad-request", "name the dataflow that an incident is of")
        wanted, there = robots_with(params.dataflow, self._fleet, self._robots)
        names = {"dataflow": params.dataflow, "note": params.note}
        await write_record(self._fleet.writer, call, **{k: v for k, v in names.items() if v})
        who = call.peer.name or f"user {call.peer.uid}"
        order = replace(params, dataflow=wanted, source=who)
        limit = asyncio.Semaphore(MAX_AT_ONCE)
        made: dict[str, str] = {}
        failed: dict[str, str] = {}
        without: list[ControlError] = []

        async def one(robot: str) -> None:
            try:
                async with limit:
                    marked = await ask_one(self._robots, robot, m.INCIDENT_MARK, order)
            except ControlError as error:
                if error.code == "not-found":  # of a dataflow over several machines some record
                    without.append(error)
                else:
                    failed[robot] = error.message
            else:
                made[robot] = marked.made.get("", "an incident is made")

        async with asyncio.TaskGroup() as tasks:
            for robot in there:
                tasks.create_task(one(robot))
        if made:
            return m.IncidentMarked(made=made, failed=failed)
        if failed:
            raise ControlError("refused", "; ".join(f"{r}: {why}" for r, why in failed.items()))
        raise without[0] if without else ControlError("not-found", "no robot runs the dataflow")


def _named(robot: str, box: m.BlackBox, placed: Collection[str]) -> str:
    """Return what commands call the dataflow of a box."""
    return box.dataflow if box.dataflow in placed else f"{robot}/{box.name or box.dataflow}"
