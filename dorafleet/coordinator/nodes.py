"""The methods `node.…` and `param.…`: nodes where they run, and changes of the topology."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.eventbus import EventBus
from dorad.control.messages import METHODS
from dorad.control.messages.nodes import MAX_START_WAIT_S
from dorad.control.naming import ended
from dorad.control.session import Call, handles
from dorad.control.wiring import inputs_of, subscribers
from dorad.dataflow import topology
from dorad.dataflow.model import Dataflow, NodeSpec
from dorad.dataflow.nearest import did_you_mean
from dorafleet.coordinator.dataflowstates import pending_nodes, status_of
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.instances import Instance, refusal
from dorafleet.coordinator.nodeaudit import values_of, write_record
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.coordinator.robotcalls import ask, ask_one, until_begun
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.startchecks import check_going, check_names, check_runnable
from dorafleet.coordinator.verdicts import current
from dorafleet.coordinator.writer import actor_of, uninterrupted

R = TypeVar("R", bound=m.Struct)
C = TypeVar("C", m.ParamRef, m.ParamSet)
P = TypeVar("P", m.NodeRef, m.NodeStop, m.ParamRef, m.ParamSet)

CHANGE_S = 30.0
"""Seconds that machines have to carry out a change, in addition to its own time limit."""

_log = logging.getLogger(__name__)


class NodeMethods:
    """Answers the methods `node.…` and `param.…`."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        planner: Planner,
        event_bus: EventBus,
    ) -> None:
        self._fleet = fleet
        self._robots = robots
        self._planner = planner
        self._event_bus = event_bus

    @handles(m.NODE_LIST)
    async def list_all(self, _call: Call, params: m.Ref) -> m.NodeList:
        """List the nodes of one dataflow, or of all running ones, with those that are pending."""
        if params.dataflow is None:
            records = self._fleet.running
        else:
            records = [self._fleet.find(params.dataflow)]
        robots = dict.fromkeys(id_ for record in records for id_ in record.robots)
        answers, missing = await ask(self._robots, robots, m.NODE_LIST, m.Ref())
        names = {record.uuid: record.name for record in records}
        nodes = [
            msgspec.structs.replace(node, machine=robot, dataflow_name=names[node.dataflow])
            for robot, answer in answers.items()
            for node in answer.nodes
            if node.dataflow in names
        ]
        for record in records:
            nodes += pending_nodes(record)
        return m.NodeList(nodes=nodes, missing=missing)

    @handles(m.NODE_INFO)
    async def info(self, _call: Call, params: m.NodeRef) -> m.NodeDetail:
        """Describe one node."""
        record, node, robot = self._find(params.dataflow, params.node)
        detail = await self._forward(record, robot, m.NODE_INFO, params)
        dataflow = self._fleet.dataflow(record)
        # On its machine, what comes from other machines comes from the link.
        return msgspec.structs.replace(
            detail,
            info=msgspec.structs.replace(detail.info, machine=robot, dataflow_name=record.name),
            inputs=inputs_of(node),
            outputs={name: subscribers(dataflow, node.id, name) for name in node.all_outputs},
        )

    @handles(m.NODE_RESTART)
    async def restart(self, _call: Call, params: m.NodeStop) -> m.Nothing:
        """Restart a node."""
        return await self._pass_on(m.NODE_RESTART, params)

    @handles(m.NODE_STOP)
    async def stop(self, _call: Call, params: m.NodeStop) -> m.Nothing:
        """Stop a node."""
        return await self._pass_on(m.NODE_STOP, params)

    @handles(m.PARAM_LIST)
    async def list_params(self, _call: Call, params: m.NodeRef) -> m.ParamList:
        """List the parameters of a node."""
        return await self._pass_on(m.PARAM_LIST, params)

    @handles(m.PARAM_GET)
    async def get_param(self, _call: Call, params: m.ParamRef) -> m.Param:
        """Return a parameter of a node."""
        return await self._pass_on(m.PARAM_GET, params)

    async def _pass_on(self, method: m.CallMethod[P, R], params: P) -> R:
        """Forward a call to the machine of the node."""
        record, _, robot = self._find(params.dataflow, params.node)
        check_going(record, robot, self._robots.shares_of(record.key, (robot,))[robot])
        return await self._forward(record, robot, method, params)

    @handles(m.PARAM_SET)
    async def set_param(self, call: Call, params: m.ParamSet) -> m.Param:
        """Set a parameter of a node, and keep it for another machine that runs the node later."""
        # The robot may have done it when the client goes away: that is in the audit, too.
        return await uninterrupted(
            self._change_param(
                call, m.PARAM_SET, params, lambda known, param: known | {params.key: param.value}
            )
        )

    @handles(m.PARAM_DELETE)
    async def delete_param(self, call: Call, params: m.ParamRef) -> m.Nothing:
        """Delete a parameter of a node, so that another machine does not set it again later."""
        return await uninterrupted(
            self._change_param(
                call,
                m.PARAM_DELETE,
                params,
                lambda known, _: {key: value for key, value in known.items() if key != params.key},
            )
        )

    async def _change_param(
        self,
        call: Call,
        method: m.CallMethod[C, R],
        params: C,
        change: Callable[[dict[str, Any], R], dict[str, Any]],
    ) -> R:
        """Change a parameter on the node's machine, then store it with the node's other ones."""
        started, node, robot = self._find(params.dataflow, params.node)
        values = await values_of(
            params, lambda ref: self._forward(started, robot, m.PARAM_GET, ref)
        )
        if isinstance(started, Instance):
            names = {"dataflow": str(started.name), "node": node.id, "key": params.key}
            await write_record(self._fleet.writer, call, **names, **values)
        answer = await self._forward(started, robot, method, params)
        async with self._fleet.writer.changing:
            record = self._fleet.get(started.key)
            if record is None or record.uuid != started.uuid or not record.running:
                return answer
            before = record.params.get(node.id, {})
            after = change(before, answer)
            if before != after:
                changed = msgspec.structs.replace(record, params={**record.params, node.id: after})
                actor, key = actor_of(call), params.key
                await self._fleet.put(
                    changed, actor, call.method, robots=(), node=node.id, key=key, **values
                )
        return answer

    @handles(m.NODE_ADD)
    async def add(self, call: Call, params: m.NodeAdd) -> m.Changed:
        """Add a node to a running dataflow, on the machine that placement chooses."""
        id_ = params.definition.get("id")
        return await self._change(
            call,
            params,
            lambda flow: topology.add_node(flow, params.definition),
            f"added node {id_}",
            node=str(id_),
        )

    @handles(m.NODE_REMOVE)
    async def remove(self, call: Call, params: m.NodeStop) -> m.Changed:
        """Stop a node and remove it from its dataflow."""
        return await self._change(
            call,
            params,
            lambda flow: topology.remove_node(flow, params.node),
            f"removed node {params.node}",
            node=params.node,
        )

    @handles(m.NODE_REPLACE)
    async def replace(self, call: Call, params: m.NodeReplace) -> m.Changed:
        """Replace a node by another with the same id, on the same machine."""
        record = self._find_started(params.dataflow)
        before = self._fleet.dataflow(record)
        definition = params.definition or _definition_of(before, params.node)
        after = topology.replace_node(before, params.node, definition)
        if params.node in record.placement and not topology.changes(before, after):
            return await self._replace_program(call, record, params)
        return await self._change(
            call,
            params,
            lambda flow: topology.replace_node(flow, params.node, definition),
            f"replaced node {params.node}",
            node=params.node,
        )

    async def _replace_program(
        self, call: Call, started: DataflowRecord, params: m.NodeReplace
    ) -> m.Changed:
        """Restart a node whose definition is the same: only its program may have changed.

        Its machine needs an order, because it finds no difference in the share.
        """
        await self._until_running(started)
        record = self._running(started)
        await write_record(self._fleet.writer, call, dataflow=record.key, node=params.node)
        robot = record.placement[params.node]
        same = msgspec.structs.replace(params, dataflow=record.uuid, definition={})
        await ask_one(self._robots, robot, m.NODE_REPLACE, same)
        text = f"replaced node {params.node}"
        _log.info("dataflow `%s`: %s, with the same definition", record.key, text)
        self._event_bus.publish(record.uuid, "topology-changed", params.node, text)
        return m.Changed(uuid=record.uuid, changes=self._fleet.changes(record))

    @handles(m.NODE_CONNECT)
    async def connect(self, call: Call, params: m.EdgeNew) -> m.Changed:
        """Add an edge."""
        return await self._change(
            call,
            params,
            lambda flow: topology.connect(flow, params.source, params.target, params.options),
            f"connected {params.source} -> {params.target}",
            node=params.target.partition("/")[0],
        )

    @handles(m.NODE_DISCONNECT)
    async def disconnect(self, call: Call, params: m.EdgeRef) -> m.Changed:
        """Remove an edge."""
        return await self._change(
            call,
            params,
            lambda flow: topology.disconnect(flow, params.source, params.target),
            f"disconnected {params.source} -> {params.target}",
            node=params.target.partition("/")[0],
        )

    def _find_started(self, dataflow: str | None) -> DataflowRecord:
        """Return a dataflow whose nodes and edges may change one by one. Raises ControlError."""
        record = self._fleet.find(dataflow)
        if isinstance(record, Instance):
            raise refusal(record)
        return record

    def _find(self, dataflow: str | None, id_: str) -> tuple[DataflowRecord, NodeSpec, str]:
        """Return a node with its dataflow and its robot. Raises ControlError."""
        record = self._fleet.find(dataflow)
        flow = self._fleet.dataflow(record)
        try:
            node = flow.node(id_)
        except KeyError:
            known = [node.id for node in flow.nodes]
            raise ControlError(
                "not-found",
                f"the dataflow has no node {id_!r}; it has: {', '.join(known)}",
                did_you_mean(id_, known),
            ) from None
        robot = record.placement.get(id_)
        if robot is None:
            raise ControlError(
                "unavailable", f"node `{id_}` runs nowhere yet: {record.pending.get(id_, '')}"
            )
        return record, node, robot

    async def _forward(
        self, record: DataflowRecord, robot: str, method: m.CallMethod[P, R], params: P
    ) -> R:
        await until_begun(self._fleet, self._robots, record, (robot,))
        own = msgspec.structs.replace(params, dataflow=record.uuid)
        return await ask_one(self._robots, robot, method, own)

    async def _change(
        self,
        call: Call,
        params: m.NodeAdd | m.NodeStop | m.NodeReplace | m.EdgeNew | m.EdgeRef,
        change: Callable[[Dataflow], Dataflow],
        text: str,
        *,
        node: str,
    ) -> m.Changed:
        """Change a running dataflow, and wait until its machines have carried that out.

        Raises:
            ControlError: the change is not allowed; or a machine refuses it, and it is undone; or a
                machine has not carried it out in time, which it does later.
        """
        started = self._find_started(params.dataflow)
        await self._until_running(started)
        async with self._fleet.writer.changing:
            before = self._running(started)
            after = change(self._fleet.dataflow(before))
            check_runnable(after)
            if isinstance(params, m.NodeAdd | m.NodeReplace):
                check_names(after, self._planner.candidates())
            stay = {
                each.id: before.placement[each.id]
                for each in after.nodes
                if each.id in before.placement
            }
            plan = self._planner.plan(after, before.key, stay, before.ports)
            record = msgspec.structs.replace(
                before,
                descriptor=after.descriptor,
                placement=plan.placement,
                pending=plan.pending,
                ports=plan.ports,
                params={id_: before.params[id_] for id_ in stay if id_ in before.params},
                generation=self._fleet.next_generation,
                grace=getattr(params, "grace", None),
            )
            await self._fleet.put(record, actor_of(call), call.method, change=text)
        _log.info("dataflow `%s`: %s", record.key, text)
        seconds = METHODS[call.method].time_allowed(params, CHANGE_S) or CHANGE_S
        await self._until_carried_out(
            call, before, record, max(CHANGE_S, seconds - MAX_START_WAIT_S)
        )
        self._event_bus.publish(record.uuid, "topology-changed", node, text)
        return m.Changed(uuid=record.uuid, changes=self._fleet.changes(record))

    async def _until_running(self, started: DataflowRecord) -> None:
        """Wait until a dataflow that is being started runs. Raises ControlError."""

        def decided() -> bool:
            record = self._fleet.get(started.key)
            return record is None or record.uuid != started.uuid or status_of(record) != "starting"

        if not await self._fleet.bell.until(decided, MAX_START_WAIT_S):
            raise ControlError(
                "deadline",
                f"dataflow {started.key} is still starting after {MAX_START_WAIT_S:g} s",
                "try again when it runs; `dora logs` shows what its nodes print",
            )

    def _running(self, started: DataflowRecord) -> DataflowRecord:
        """Return the current form of a running dataflow. Raises ControlError."""
        record = self._fleet.get(started.key)
        if record is None or record.uuid != started.uuid or not record.running:
            raise ended(started)
        if (status := status_of(record)) != "running":
            hint = "try again when it runs" if status == "starting" else None
            raise ControlError("busy", f"the dataflow is {status}", hint)
        return record

    async def _until_carried_out(
        self, call: Call, before: DataflowRecord, record: DataflowRecord, seconds: float
    ) -> None:
        """Wait until all machines run a change, and undo it if one refuses."""

        def waiting() -> dict[str, str]:
            shares = self._robots.shares_of(record.key, record.robots)
            unreachable = self._robots.unreachable(record.robots)
            return {
                id_: unreachable.get(id_, "it has not carried it out")
                for id_ in record.robots
                if (share := current(record, shares[id_])) is None
                or share.status in {"pending", "starting", "ready"}
            }

        def refusals() -> dict[str, str]:
            refused_by = self._robots.answered(
                "refused", record.key, record.robots, record.generation
            )
            shares = self._robots.shares_of(record.key, record.robots)
            for id_ in record.robots:
                share = current(record, shares[id_])
                if share is not None and share.status == "running" and share.reason:
                    refused_by[id_] = share.reason
            return refused_by

        def settled() -> bool:
            now = self._fleet.get(record.key)
            superseded = now is None or now.generation != record.generation
            return superseded or bool(refusals()) or not waiting()

        await self._fleet.bell.until(settled, seconds)
        if refused := refusals():
            await self._undo(call, before, record)
            texts = [f"`{id_}` refuses the change: {why}" for id_, why in refused.items()]
            raise ControlError("refused", "; ".join(texts), "nothing was changed")
        now = self._fleet.get(record.key)
        if now is not None and now.generation == record.generation and (left := waiting()):
            texts = [f"`{id_}`: {why}" for id_, why in left.items()]
            raise ControlError(
                "deadline",
                f"the change is not carried out everywhere: {'; '.join(texts)}",
                "these machines follow as soon as they can",
            )

    async def _undo(self, call: Call, before: DataflowRecord, record: DataflowRecord) -> None:
        """Restore the dataflow before a change, if nothing else has changed it since."""
        async with self._fleet.writer.changing:
            now = self._fleet.get(record.key)
            if now is None or now.generation != record.generation or not now.enabled:
                return
            undone = msgspec.structs.replace(
                before, ports=record.ports, generation=self._fleet.next_generation
            )
            await self._fleet.put(undone, actor_of(call), f"{call.method}.undo")
        _log.warning("dataflow `%s`: `%s` is undone", record.key, call.method)


def _definition_of(dataflow: Dataflow, node: str) -> dict[str, Any]:
    """Return the present definition of a node, empty if there is none."""
    nodes = dataflow.descriptor["nodes"]
    definition: dict[str, Any] = next((each for each in nodes if each.get("id") == node), {})
    return definition
