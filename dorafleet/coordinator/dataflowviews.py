"""The methods `dataflow.…` that only read: lists, details, and why a node runs where it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import HandlerTable
from dorad.natural import natural
from dorafleet.coordinator.asking import ask
from dorafleet.coordinator.fleet import checked
from dorafleet.coordinator.folding import info_of
from dorafleet.coordinator.messages import DATAFLOW_EXPLAIN, Explained
from dorafleet.coordinator.requirements import problems_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.control.server import Call
    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.coordinator.messages import Explain
    from dorafleet.coordinator.planning import Planner
    from dorafleet.coordinator.records import Record
    from dorafleet.coordinator.robots import Robots


class DataflowViews:
    """Answers the methods `dataflow.…` that change nothing."""

    def __init__(self, fleet: Fleet, robots: Robots, planner: Planner) -> None:
        self._fleet = fleet
        self._robots = robots
        self._planner = planner

    @property
    def table(self) -> HandlerTable:
        """The handler of each method."""
        table = HandlerTable()
        table.call(m.DATAFLOW_LIST, self.list_all)
        table.call(m.DATAFLOW_INFO, self.info)
        table.call(m.DATAFLOW_ENABLE, self.enable)
        table.call(DATAFLOW_EXPLAIN, self.explain)
        return table

    async def list_all(self, _call: Call, _params: m.Nothing) -> m.DataflowList:
        """List all dataflows, the oldest first."""
        return await self.listed(self._fleet.records)

    async def listed(self, records: Iterable[Record]) -> m.DataflowList:
        """Describe these dataflows, with what their robots say of them now."""
        records = list(records)
        robots = {id_ for record in records if record.running for id_ in record.robots}
        found, missing = await ask(
            self._robots, sorted(robots, key=natural), m.DATAFLOW_LIST, m.Nothing()
        )
        parts = [info for each in found.values() for info in each.dataflows]
        return m.DataflowList(
            dataflows=[info_of(record, parts) for record in records], missing=missing
        )

    async def info(self, _call: Call, params: m.Ref) -> m.DataflowDetail:
        """Describe one dataflow."""
        record = self._fleet.find(params.dataflow, ended_too=True)
        listed = await self.listed([record])
        return m.DataflowDetail(
            info=listed.dataflows[0],
            descriptor=record.descriptor,
            path=record.path,
            log_dir="",
            changes=self._fleet.changes(record),
            placement=record.placement,
            pending=record.pending,
        )

    async def enable(self, _call: Call, params: m.Enable) -> m.DataflowInfo:
        """Return a dataflow: in a fleet, each one that was not stopped starts at boot."""
        record = self._fleet.find(params.dataflow, ended_too=True)
        if params.enabled != (record.running and record.enabled):
            raise ControlError(
                "unsupported",
                "a dataflow of a fleet is started at boot until it is stopped",
                f"`dora stop {record.key}`" if record.running else "start it again",
            )
        return (await self.listed([record])).dataflows[0]

    async def explain(self, _call: Call, params: Explain) -> Explained:
        """Return where the nodes of a dataflow run, or would run now, and why."""
        if (params.dataflow is None) == (params.descriptor is None):
            raise ControlError("bad-request", "give either a dataflow or a descriptor")
        if params.descriptor is not None:
            dataflow = checked(params.descriptor, params.path)
            decisions = self._planner.decide(dataflow, "", {})
        else:
            record = self._fleet.find(params.dataflow)
            dataflow = self._fleet.dataflow(record)
            decisions = self._planner.decide(dataflow, record.key, record.placement)
        problems = problems_of(dataflow, self._planner.candidates())
        return Explained(nodes=[*decisions.values()], problems=[*map(str, problems)])
