"""The methods `dataflow.…`: start, list, await, stop and forget dataflows of the fleet."""

import logging
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.natural import natural
from dorafleet.coordinator.dataflowstates import info_of, state_of
from dorafleet.coordinator.fleet import Fleet, checked
from dorafleet.coordinator.instances import Instance, refusal
from dorafleet.coordinator.planner import PlacementPlan, Planner
from dorafleet.coordinator.records import HOLD_S, Again, DataflowRecord, StartOptions
from dorafleet.coordinator.robotcalls import ask
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.startchecks import check_names, check_runnable, check_start
from dorafleet.coordinator.starter import AGAIN_S, Start, Starter
from dorafleet.coordinator.verdicts import still_running, unready
from dorafleet.coordinator.writer import actor_of

GRACE_S = 10.0
"""Seconds from a stop's beginning to SIGTERM when a request gives none; as in dorad."""

END_SLACK_S = 8.0
"""Seconds that a dataflow may need to end after the last step of its stop."""

NOT_ENDED = "it has not ended it"

_log = logging.getLogger(__name__)


class DataflowMethods:
    """Answers the methods `dataflow.…`."""

    def __init__(self, fleet: Fleet, robots: Robots, planner: Planner, starter: Starter) -> None:
        self._fleet = fleet
        self._robots = robots
        self._planner = planner
        self._starter = starter

    @handles(m.DATAFLOW_LIST)
    async def list_all(self, _call: Call, _params: m.Nothing) -> m.DataflowList:
        """List all dataflows, the oldest first."""
        return await self.listed(self._fleet.records)

    async def listed(self, records: Iterable[DataflowRecord]) -> m.DataflowList:
        """Describe these dataflows, with what their robots say of them now."""
        records = list(records)
        robots = {id_ for record in records if record.running for id_ in record.robots}
        answers, missing = await ask(
            self._robots, sorted(robots, key=natural), m.DATAFLOW_LIST, m.Nothing()
        )
        parts = [info for each in answers.values() for info in each.dataflows]
        return m.DataflowList(
            dataflows=[info_of(record, parts) for record in records], missing=missing
        )

    @handles(m.DATAFLOW_INFO)
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

    @handles(m.DATAFLOW_ENABLE)
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

    @handles(m.DATAFLOW_START)
    async def start(self, call: Call, params: m.Start) -> m.Started:
        """Place the nodes of a dataflow and store it; its machines get it in the background."""
        record = await self._starter.start(self._checked(params), actor_of(call))
        return m.Started(uuid=record.uuid, name=record.name)

    def plan(self, params: m.Start) -> tuple[DataflowRecord | None, PlacementPlan]:
        """Return the ended run that a start would replace, and where its nodes would go.

        Raises:
            ControlError: the start would be refused.
            DataflowError: the dataflow has problems.
        """
        return self._starter.plan(self._checked(params))

    def _checked(self, params: m.Start) -> Start:
        """Return what to start. Raises ControlError or DataflowError."""
        check_start(params)
        dataflow = checked(params.descriptor, params.path)
        check_runnable(dataflow)
        check_names(dataflow, self._planner.candidates())
        options = StartOptions(
            params.env, params.uv, params.allow_shell, params.exit_when_nodes_finish
        )
        return Start(
            dataflow=dataflow,
            name=params.name,
            path=params.path,
            original=params.descriptor,
            options=options,
            hold=HOLD_S if params.hold is None else params.hold,
        )

    @handles(m.DATAFLOW_WAIT)
    async def wait(self, _call: Call, params: m.Wait) -> m.DataflowState:
        """Wait until a dataflow has reached a state on all its machines."""
        current = self._fleet.find(params.dataflow, ended_too=True)
        if isinstance(current, Instance):
            raise refusal(current)

        def reached() -> bool:
            record = self._now(current)
            return not record.running or self._has_reached(record, params.until)

        if not await self._fleet.bell.until(reached, params.timeout):
            record = self._now(current)
            raise ControlError(
                "deadline",
                f"dataflow {record.key} is {self._state(record).status} after "
                f"{params.timeout:g} s, not {params.until}",
                problems=[f"`{id_}`: {why}" for id_, why in self._unready(record).items()],
            )
        return self._state(self._now(current))

    def _unready(self, record: DataflowRecord) -> dict[str, str]:
        """Return the robots that the start of a dataflow waits for, each with the reason."""
        if record.opened or not record.enabled:
            return {}
        reasons = self._robots.answered("failed", record.key, record.robots)
        reasons |= self._robots.unreachable(record.robots)
        return unready(record, self._robots.shares_of(record.key, record.robots), reasons)

    def _has_reached(self, record: DataflowRecord, until: m.Until) -> bool:
        match until:
            case "spawned" | "ready":
                # A share that has failed ends the start: then only the end is worth reporting.
                return record.opened or (record.enabled and self._state(record).ready)
            case "running":
                return record.opened or not record.enabled
        return False

    def _now(self, record: DataflowRecord) -> DataflowRecord:
        """Return the current form of a dataflow. Raises ControlError if it was forgotten."""
        current = self._fleet.get(record.key)
        if current is None or current.uuid != record.uuid:
            raise ControlError("not-found", f"dataflow {record.uuid} was cleaned")
        return current

    def _state(self, record: DataflowRecord) -> m.DataflowState:
        return state_of(record, self._robots.shares_of(record.key, record.robots))

    @handles(m.DATAFLOW_STOP)
    async def stop(self, call: Call, params: m.Stop) -> m.DataflowState:
        """Stop a dataflow on all its machines at once, and wait for its end."""
        ordered = await self._order_stop(call, self._find(params.dataflow), params)
        await self._fleet.bell.until(lambda: self._has_stopped(ordered), _stop_seconds(params))
        record = self._now(ordered)
        if record.running:
            raise self._not_ended(record, params)
        return self._state(record)

    def _find(self, dataflow: str | None) -> DataflowRecord:
        """Return a dataflow that runs, or is to be started again. Raises ControlError."""
        record = self._fleet.find(dataflow, ended_too=True)
        return self._fleet.find(dataflow) if record.again is None else record

    async def _order_stop(
        self, call: Call, running: DataflowRecord, params: m.Stop, again: Again | None = None
    ) -> DataflowRecord:
        """Store that a dataflow is to end, and whether it is to start `again`; return its record.

        A restart that is in progress stays what it is.
        """
        async with self._fleet.writer.changing:
            if again is not None and self._fleet.run(again.uuid) is not None:
                return running  # it was started again meanwhile
            record = self._now(running)
            again = again and (record.again or again)
            stops = record.running and (record.enabled or params.force > record.force)
            if stops:
                record = msgspec.structs.replace(
                    record,
                    enabled=False,
                    grace=params.grace,
                    force=params.force,
                    generation=self._fleet.next_generation,
                )
            if stops or record.again != again:
                record = msgspec.structs.replace(record, again=again)
                action = "dataflow.stop" if again is None else "dataflow.restart"
                robots = record.robots if stops else ()
                await self._fleet.put(
                    record, actor_of(call), action, robots=robots, force=params.force
                )
        return record

    def _has_stopped(self, ordered: DataflowRecord) -> bool:
        """Return True once a dataflow has ended, or it is useless to wait for its end."""
        record = self._now(ordered)
        if not record.running:
            return True
        # It is useless to wait for unreachable robots.
        awaited = self._awaited(record)
        return (
            bool(awaited)
            and not record.force
            and awaited <= self._robots.unreachable(awaited).keys()
        )

    def _awaited(self, record: DataflowRecord) -> set[str]:
        """Return the robots where a dataflow that is being stopped may still run."""
        shares = self._robots.shares_of(record.key, record.robots)
        return still_running(record, shares, self._robots.idle(record.key, record.robots))

    def _not_ended(self, record: DataflowRecord, params: m.Stop) -> ControlError:
        awaited = self._awaited(record)
        unreachable = self._robots.unreachable(awaited)
        lines = [f"`{id_}`: {reason}" for id_, reason in unreachable.items()]
        undelivered = self._robots.answered("failed", record.key, awaited - unreachable.keys())
        lines += [
            f"`{id_}`: {undelivered.get(id_) or self._robots.get(id_).trouble or NOT_ENDED}"
            for id_ in sorted(awaited - unreachable.keys(), key=natural)
        ]
        hint = None if params.force else "`dora stop --force` kills its nodes"
        if unreachable:
            hint = (
                "they stop it as soon as they are back; `dora stop --force` does not wait for them"
            )
        code: m.ErrorCode = "unavailable" if unreachable else "deadline"
        text = f"dataflow {record.key} has not ended everywhere: {'; '.join(lines)}"
        return ControlError(code, text, hint)

    @handles(m.DATAFLOW_RESTART)
    async def restart(self, call: Call, params: m.Stop) -> m.Restarted:
        """Stop a dataflow and start it again with its changed nodes and edges, and parameters.

        `Runs` starts it, also if this call or this coordinator ends before.
        """
        running = self._find(params.dataflow)
        again = running.again
        if again is None:
            # Ask first: if a robot does not answer, nothing has changed.
            set_before = await self._params(running, force=params.force)
            again = Again(str(uuid.uuid4()), set_before, actor_of(call))
        old = await self._order_stop(call, running, params, again)
        again = old.again
        assert again is not None
        run = again.uuid

        def decided() -> bool:
            if self._fleet.run(run) is not None:
                return True
            record = self._now(old)
            return record.again is None or (record.running and self._has_stopped(record))

        await self._fleet.bell.until(decided, _stop_seconds(params) + AGAIN_S)
        new = self._fleet.run(run)
        if new is None:
            raise self._not_restarted(self._now(old), params)
        return m.Restarted(
            old=old.uuid, new=new.uuid, name=new.name, changes=self._fleet.changes(old)
        )

    def _not_restarted(self, record: DataflowRecord, params: m.Stop) -> ControlError:
        """Return why a dataflow has not been started again."""
        if record.running and record.again is not None:
            error = self._not_ended(record, params)
            hint = "it is started again once it has ended; `dora stop` gives that up" + (
                "" if params.force else ", `dora restart --force` does not wait"
            )
            return ControlError(error.code, error.message, hint)
        if record.running:
            return ControlError("conflict", f"dataflow {record.key} was stopped meanwhile")
        failures = [] if record.end is None else record.end.failures
        why = failures[-1].headline if failures else "it is not started again yet"
        return ControlError(
            "unavailable", f"dataflow {record.key} has ended: {why}", "`dora start` starts it again"
        )

    async def _params(self, record: DataflowRecord, *, force: bool) -> dict[str, dict[str, Any]]:
        """Return the parameters that were set since the start, by node and key.

        Raises:
            ControlError: a robot does not answer; with `force`, its nodes get what was set through
                this coordinator.
        """
        answers, missing = await ask(
            self._robots,
            record.robots,
            m.DATAFLOW_INFO,
            m.Ref(dataflow=record.uuid),
            unknown=m.DataflowDetail(info=info_of(record, ()), descriptor={}, path="", log_dir=""),
        )
        for id_, reason in missing.items():
            text = f"the parameters of nodes on `{id_}` cannot be read: {reason}"
            if not force:
                raise ControlError(
                    "unavailable",
                    text,
                    "`--force` restarts it with those that were set through this coordinator",
                )
            _log.warning("dataflow `%s`: %s", record.key, text)
        known = dict.fromkeys(record.robots, record.params)
        known |= {id_: detail.params for id_, detail in answers.items()}
        return {
            node: values
            for node, robot in record.placement.items()
            if (values := known[robot].get(node))
        }

    @handles(m.DATAFLOW_CLEAN)
    async def clean(self, call: Call, _params: m.Nothing) -> m.DataflowList:
        """Forget the ended dataflows, and return them."""
        async with self._fleet.writer.changing:
            ended = [r for r in self._fleet.records if not r.running and not self._starter.left(r)]
            await self._fleet.delete(ended, actor_of(call))
        return await self.listed(ended)


def _stop_seconds(params: m.Stop) -> float:
    """Return the seconds that a stop may take."""
    grace = GRACE_S if params.grace is None else params.grace
    return (0.0 if params.force else grace * 1.5) + END_SLACK_S
