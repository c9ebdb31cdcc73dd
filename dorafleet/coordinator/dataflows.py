"""The methods that start, await, stop and forget dataflows over the machines of the fleet."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.naming import check_name
from dorad.natural import natural
from dorad.phrases import first_of
from dorafleet.coordinator.asking import ask
from dorafleet.coordinator.checking import check_names, check_runnable, check_start
from dorafleet.coordinator.fleet import checked
from dorafleet.coordinator.folding import info_of, state_of
from dorafleet.coordinator.reconcile import still_running, unready
from dorafleet.coordinator.records import HOLD_S, Options, Record
from dorafleet.coordinator.writing import actor_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.control.eventbus import EventBus
    from dorad.control.server import Call, Handler
    from dorad.dataflow.model import Dataflow
    from dorafleet.coordinator.dataflowviews import DataflowViews
    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.coordinator.planning import Plan, Planner
    from dorafleet.coordinator.reconciler import Reconciler
    from dorafleet.coordinator.robots import Robots

COMING_S = 5.0
"""Seconds that a start waits for machines that are not connected."""

GRACE_S = 10.0
"""Seconds from a stop's beginning to SIGTERM when a request gives none; as in dorad."""

END_SLACK_S = 8.0
"""Seconds that a dataflow may need to end after the last step of its stop."""

NOT_ENDED = "it has not ended it"

MAX_LISTED = 5
"""Nodes and machines that a message names."""

_log = logging.getLogger(__name__)


class DataflowMethods:
    """Answers the methods `dataflow.…` that change something, and `dataflow.wait`."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        planner: Planner,
        reconciler: Reconciler,
        event_bus: EventBus,
        views: DataflowViews,
    ) -> None:
        self._fleet = fleet
        self._robots = robots
        self._planner = planner
        self._reconciler = reconciler
        self._event_bus = event_bus
        self._views = views
        self._restarting: set[str] = set()

    @property
    def table(self) -> Mapping[str, Handler]:
        """The handler of each method."""
        return {
            "dataflow.start": self.start,
            "dataflow.wait": self.wait,
            "dataflow.stop": self.stop,
            "dataflow.restart": self.restart,
            "dataflow.clean": self.clean,
        }

    async def start(self, call: Call, params: m.Start) -> m.Started:
        """Place the nodes of a dataflow and store it; its machines get it in the background."""
        check_start(params)
        dataflow = checked(params.descriptor, params.path)
        check_runnable(dataflow)
        check_names(dataflow, self._planner.candidates())
        options = Options(params.env, params.uv, params.allow_shell, params.exit_when_nodes_finish)
        record = await self._start(
            call,
            dataflow,
            name=params.name,
            path=params.path,
            original=params.descriptor,
            options=options,
            hold=HOLD_S if params.hold is None else params.hold,
            stay={},
            set_before={},
        )
        return m.Started(uuid=record.uuid, name=record.name)

    async def _start(
        self,
        call: Call,
        dataflow: Dataflow,
        *,
        name: str | None,
        path: str,
        original: dict[str, Any],
        options: Options,
        hold: float,
        stay: Mapping[str, str],
        set_before: Mapping[str, dict[str, Any]],
    ) -> Record:
        run = str(uuid.uuid4())
        key = name or run
        await self._until_connected(dataflow, key, stay)
        async with self._fleet.writer.changing:
            if name is not None:
                check_name(name, self._fleet.records)
            before = self._fleet.get(key)
            if before is not None:
                self._check_ended(before)
            self._check_free(key)
            plan = self._plan(dataflow, key, stay)
            record = Record(
                uuid=run,
                name=name,
                path=path,
                original=original,
                descriptor=dataflow.descriptor,
                options=options,
                placement=plan.placement,
                pending=plan.pending,
                ports=plan.ports,
                generation=self._fleet.next_generation,
                started_at=time.time(),
                hold=hold,
                params={id_: set_before[id_] for id_ in plan.placement if id_ in set_before},
            )
            gone = [] if before is None else [r for r in before.robots if r not in record.ports]
            await self._fleet.put(record, actor_of(call), "dataflow.start", gone=gone)
        _log.info("dataflow `%s` (%s) starts on %s", key, run, ", ".join(record.robots))
        self._event_bus.publish(run, "dataflow-starting")
        self._reconciler.mark(*record.robots, *gone)
        return record

    async def _until_connected(self, dataflow: Dataflow, key: str, stay: Mapping[str, str]) -> None:
        """Wait a moment for missing machines: after the coordinator's start all connect at once."""
        await self._fleet.bell.until(
            lambda: not self._planner.plan(dataflow, key, stay, {}).away, COMING_S
        )

    def _plan(self, dataflow: Dataflow, key: str, stay: Mapping[str, str]) -> Plan:
        """Return where the nodes go. Raises ControlError if no node has a machine."""
        plan = self._planner.plan(dataflow, key, stay, {})
        if plan.away:
            nodes = first_of((f"`{node}`" for node in plan.pending), MAX_LISTED)
            away = first_of((f"`{id_}`: {why}" for id_, why in plan.away.items()), MAX_LISTED, "; ")
            raise ControlError(
                "unavailable",
                f"there is no machine for {nodes}: {away}",
                "`dorafleet status` shows all robots",
            )
        if not plan.placement and dataflow.nodes:
            raise ControlError(
                "refused",
                "no machine takes any of the nodes",
                "`dorafleet explain` shows why",
                [f"{node}: {reason}" for node, reason in plan.pending.items()],
            )
        return plan

    def _check_ended(self, before: Record) -> None:
        """Raise ControlError if an ended dataflow may still run somewhere."""
        for robot in self._left(before):
            raise ControlError(
                "exists",
                f"`{before.key}` has not ended on `{robot}`, which cannot be reached",
                "choose another name with --name",
            )

    def _left(self, record: Record) -> list[str]:
        """Return the robots where an ended dataflow may still run.

        Without those that have left the cluster file: nothing is ever heard of them.
        """
        if record.end is None:
            return list(record.robots)
        missing = [id_ for id_ in record.end.missing if self._robots.find(id_) is not None]
        waiting = self._robots.unreachable(missing)
        return [id_ for id_ in missing if id_ in waiting]

    def _check_free(self, key: str) -> None:
        """Raise ControlError if a release has the name of a dataflow on any robot."""
        for robot in self._robots.all:
            owner = self._fleet.owner(robot.id, key)
            there = robot.releases.get(key)
            if owner is None or not owner.is_order:
                continue
            # Without a release it is being removed, and then the name is free.
            release = owner.release or ("" if there is None else there.release or there.running)
            if release:
                raise ControlError(
                    "exists",
                    f"`{key}` on `{robot.id}` belongs to the release `{release[:12]}`",
                    "choose another name with --name",
                )

    async def wait(self, _call: Call, params: m.Wait) -> m.DataflowState:
        """Wait until a dataflow has reached a state on all its machines."""
        found = self._fleet.find(params.dataflow, ended_too=True)

        def reached() -> bool:
            record = self._now(found)
            return not record.running or self._has_reached(record, params.until)

        if not await self._fleet.bell.until(reached, params.timeout):
            record = self._now(found)
            raise ControlError(
                "deadline",
                f"dataflow {record.key} is {self._state(record).status} after "
                f"{params.timeout:g} s, not {params.until}",
                problems=[f"`{id_}`: {why}" for id_, why in self._unready(record).items()],
            )
        return self._state(self._now(found))

    def _unready(self, record: Record) -> dict[str, str]:
        """Return the robots that the start of a dataflow waits for, each with the reason."""
        if record.opened or not record.enabled:
            return {}
        reasons = self._robots.undelivered(record.key, record.robots)
        reasons |= self._robots.unreachable(record.robots)
        return unready(record, self._robots.shares_of(record.key, record.robots), reasons)

    def _has_reached(self, record: Record, until: m.Until) -> bool:
        match until:
            case "spawned" | "ready":
                # A share that has failed ends the start: then only the end is worth reporting.
                return record.opened or (record.enabled and self._state(record).ready)
            case "running":
                return record.opened or not record.enabled
        return False

    def _now(self, record: Record) -> Record:
        """Return the current form of a dataflow. Raises ControlError if it was forgotten."""
        found = self._fleet.get(record.key)
        if found is None or found.uuid != record.uuid:
            raise ControlError("not-found", f"dataflow {record.uuid} was cleaned")
        return found

    def _state(self, record: Record) -> m.DataflowState:
        return state_of(record, self._robots.shares_of(record.key, record.robots))

    async def stop(self, call: Call, params: m.Stop) -> m.DataflowState:
        """Stop a dataflow on all its machines at once, and wait for its end."""
        record = await self._stop(call, self._fleet.find(params.dataflow), params)
        return self._state(record)

    async def _stop(self, call: Call, found: Record, params: m.Stop) -> Record:
        async with self._fleet.writer.changing:
            record = self._now(found)
            if record.running and (record.enabled or params.force > record.force):
                record = msgspec.structs.replace(
                    record,
                    enabled=False,
                    grace=params.grace,
                    force=params.force,
                    generation=self._fleet.next_generation,
                )
                await self._fleet.put(record, actor_of(call), "dataflow.stop", force=params.force)
        self._reconciler.mark(*record.robots)
        grace = GRACE_S if params.grace is None else params.grace
        seconds = (0.0 if params.force else grace * 1.5) + END_SLACK_S

        def reached() -> bool:
            record = self._now(found)
            if not record.running:
                return True
            # It is useless to wait for unreachable robots.
            awaited = self._awaited(record)
            return (
                bool(awaited)
                and not record.force
                and awaited <= self._robots.unreachable(awaited).keys()
            )

        await self._fleet.bell.until(reached, seconds)
        record = self._now(found)
        if record.running:
            raise self._not_ended(record, params)
        return record

    def _awaited(self, record: Record) -> set[str]:
        """Return the robots where a dataflow that is being stopped may still run."""
        shares = self._robots.shares_of(record.key, record.robots)
        return still_running(record, shares, self._robots.idle(record.key, record.robots))

    def _not_ended(self, record: Record, params: m.Stop) -> ControlError:
        awaited = self._awaited(record)
        unreachable = self._robots.unreachable(awaited)
        lines = [f"`{id_}`: {reason}" for id_, reason in unreachable.items()]
        undelivered = self._robots.undelivered(record.key, awaited - unreachable.keys())
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

    async def restart(self, call: Call, params: m.Stop) -> m.Restarted:
        """Stop a dataflow and start it again with its changed nodes and edges, and parameters."""
        old = self._fleet.find(params.dataflow)
        if old.key in self._restarting:
            raise ControlError("busy", f"dataflow {old.key} is being restarted")
        self._restarting.add(old.key)
        try:
            # Ask first: if a robot does not answer, nothing has changed.
            set_before = await self._params(old, force=params.force)
            old = await self._stop(call, old, params)
            dataflow = self._fleet.dataflow(old)
            new = await self._start(
                call,
                dataflow,
                name=old.name,
                path=old.path,
                original=old.original,
                options=old.options,
                hold=old.hold,
                stay=old.placement,
                set_before=set_before,
            )
        finally:
            self._restarting.discard(old.key)
        return m.Restarted(
            old=old.uuid, new=new.uuid, name=new.name, changes=self._fleet.changes(old)
        )

    async def _params(self, record: Record, *, force: bool) -> dict[str, dict[str, Any]]:
        """Return the parameters that were set since the start, by node and key.

        Raises:
            ControlError: a robot does not answer; with `force`, its nodes get what was set through
                this coordinator.
        """
        found, missing = await ask(
            self._robots,
            record.robots,
            "dataflow.info",
            m.Ref(dataflow=record.uuid),
            m.DataflowDetail,
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
        known |= {id_: detail.params for id_, detail in found.items()}
        return {
            node: values
            for node, robot in record.placement.items()
            if (values := known[robot].get(node))
        }

    async def clean(self, call: Call, _params: m.Nothing) -> m.DataflowList:
        """Forget the ended dataflows, and return them."""
        async with self._fleet.writer.changing:
            ended = [r for r in self._fleet.records if not r.running and not self._left(r)]
            await self._fleet.delete(ended, actor_of(call))
        self._reconciler.mark(*{id_ for record in ended for id_ in record.robots})
        return await self._views.listed(ended)
