"""The methods `node.…`: nodes, and changes of the topology of a running dataflow."""

import logging
from collections.abc import Callable

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.nodes import MAX_START_WAIT_S
from dorad.control.naming import ended
from dorad.control.session import Call, handles
from dorad.control.wiring import inputs_of, subscribers
from dorad.daemon.measuring.measure import Measure
from dorad.daemon.record import Record
from dorad.daemon.registry import Registry
from dorad.daemon.rules.ladder import GRACE_S, RESTART_GRACE_S
from dorad.dataflow import topology
from dorad.dataflow.model import LINK, Dataflow, Input, NodeSpec
from dorad.dataflow.support import unsupported
from dorad.dataflow.types.strict import change_problems
from dorad.realtime.schedule import in_words

_NOT_READY = ("starting", "restarting")

_log = logging.getLogger(__name__)


class NodeMethods:
    """Answers the methods `node.…`."""

    def __init__(self, registry: Registry, measure: Measure) -> None:
        self._registry = registry
        self._measure = measure

    @handles(m.NODE_LIST)
    async def list_all(self, _call: Call, params: m.Ref) -> m.NodeList:
        """List the nodes of one dataflow, or of all running ones."""
        if params.dataflow is None:
            records = self._registry.running
        else:
            records = [self._registry.find(params.dataflow)]
        return m.NodeList(nodes=[node for each in records for node in self._measure.nodes(each)])

    @handles(m.NODE_INFO)
    async def info(self, _call: Call, params: m.NodeRef) -> m.NodeDetail:
        """Describe one node."""
        record, run, dataflow = self._registry.find_run(params.dataflow)
        node = node_of(dataflow, params.node)
        restart = node.restart
        return m.NodeDetail(
            info=self._measure.node(record, node),
            path=node.path or ", ".join(each.source for each in node.operators) or None,
            args=node.args,
            restart_policy=str(restart.policy),
            max_restarts=restart.max_restarts,
            restart_delay=restart.delay,
            max_restart_delay=restart.max_delay,
            restart_window=restart.window,
            health_check_timeout=node.health_check_timeout,
            startup_timeout=node.startup_timeout,
            inputs=inputs_of(node),
            outputs={name: subscribers(dataflow, node.id, name) for name in node.all_outputs},
            realtime=None if node.realtime is None else in_words(node.realtime),
            notes=list(run.notes.get(node.id, [])),
        )

    @handles(m.NODE_ADD)
    async def add(self, _call: Call, params: m.NodeAdd) -> m.Changed:
        """Add a node to a running dataflow."""
        record, run, dataflow = self._registry.find_run(params.dataflow)
        await until_started(record)
        async with record.changing:
            known = {node.id for node in (record.dataflow or dataflow).nodes}
            after = _changed(record, lambda flow: topology.add_node(flow, params.definition))
            # Not always the last one: that is the recorder of a block `record`.
            (added,) = (node for node in after.nodes if node.id not in known)
            await run.commands.add(added, after)
            return self._node_changed(record, after, "added", added.id)

    @handles(m.NODE_REMOVE)
    async def remove(self, _call: Call, params: m.NodeStop) -> m.Changed:
        """Stop a node and remove it from its dataflow."""
        record, run, dataflow = self._registry.find_run(params.dataflow)
        node_of(dataflow, params.node)
        await until_started(record)
        async with record.changing:
            after = _changed(record, lambda flow: topology.remove_node(flow, params.node))
            await run.commands.remove(params.node, after, _grace(params.grace, GRACE_S))
            return self._node_changed(record, after, "removed", params.node)

    @handles(m.NODE_REPLACE)
    async def replace(self, _call: Call, params: m.NodeReplace) -> m.Changed:
        """Replace a node by another with the same id."""
        record, run, dataflow = self._registry.find_run(params.dataflow)
        node_of(dataflow, params.node)
        await until_started(record)
        if not params.definition:
            return await self._replace_program(record, params)
        async with record.changing:
            after = _changed(
                record, lambda flow: topology.replace_node(flow, params.node, params.definition)
            )
            before = record.initial_params(dataflow.node(params.node))
            given = record.initial_params(after.node(params.node))
            run.broker.params.replace(params.node, given)
            try:
                grace = _grace(params.grace, GRACE_S)
                await run.commands.replace(params.node, after, grace)
            except BaseException:
                run.broker.params.replace(params.node, before)
                raise
            return self._node_changed(record, after, "replaced", params.node)

    async def _replace_program(self, record: Record, params: m.NodeReplace) -> m.Changed:
        """Replace a node by one with the same definition, also in a share of a fleet's dataflow."""
        async with record.changing:
            _, run, dataflow = self._registry.find_run(record.uuid)
            _check_running(record)
            node_of(dataflow, params.node)
            await run.commands.replace(params.node, dataflow, _grace(params.grace, GRACE_S))
        text = f"replaced node {params.node}"
        run.publish("topology-changed", params.node, text, {"change": "replaced"})
        return m.Changed(uuid=record.uuid, changes=self._registry.changes(record))

    @handles(m.NODE_CONNECT)
    async def connect(self, _call: Call, params: m.EdgeNew) -> m.Changed:
        """Add an edge."""
        record, run, _ = self._registry.find_run(params.dataflow)
        await until_started(record)
        async with record.changing:
            after = _changed(
                record,
                lambda flow: topology.connect(flow, params.source, params.target, params.options),
            )
            run.commands.connect(*_input_of(after, params.target), after)
            return self._edge_changed(record, after, "connected", params)

    @handles(m.NODE_DISCONNECT)
    async def disconnect(self, _call: Call, params: m.EdgeRef) -> m.Changed:
        """Remove an edge."""
        record, run, _ = self._registry.find_run(params.dataflow)
        await until_started(record)
        async with record.changing:
            after = _changed(
                record, lambda flow: topology.disconnect(flow, params.source, params.target)
            )
            consumer, _, name = params.target.partition("/")
            name = topology.input_name(after.node(consumer), name)
            run.commands.disconnect(consumer, name, after)
            return self._edge_changed(record, after, "disconnected", params)

    @handles(m.NODE_RESTART)
    async def restart(self, _call: Call, params: m.NodeStop) -> m.Nothing:
        """Restart a node, regardless of its policy."""
        _, run, dataflow = self._registry.find_run(params.dataflow)
        node_of(dataflow, params.node)
        await run.commands.restart(params.node, _grace(params.grace, RESTART_GRACE_S))
        return m.Nothing()

    @handles(m.NODE_STOP)
    async def stop(self, _call: Call, params: m.NodeStop) -> m.Nothing:
        """Stop a node; it is not restarted."""
        _, run, dataflow = self._registry.find_run(params.dataflow)
        if node_of(dataflow, params.node).id == LINK:
            raise ControlError("refused", "the link to other machines ends with the dataflow")
        await run.commands.stop(params.node, _grace(params.grace, GRACE_S))
        return m.Nothing()

    def _node_changed(self, record: Record, after: Dataflow, change: str, node: str) -> m.Changed:
        return self._store(record, after, node, f"{change} node {node}", change=change)

    def _edge_changed(
        self, record: Record, after: Dataflow, change: str, edge: m.EdgeRef | m.EdgeNew
    ) -> m.Changed:
        text = f"{change} {edge.source} -> {edge.target}"
        node, _, _ = edge.target.partition("/")
        ends = {"source": edge.source, "target": edge.target}
        return self._store(record, after, node, text, change=change, **ends)

    def _store(
        self, record: Record, after: Dataflow, node: str, text: str, **data: str
    ) -> m.Changed:
        self._registry.store.put_dataflow(record, after)
        if record.run is not None:  # it may have ended meanwhile
            record.run.publish("topology-changed", node, text, data)
        return m.Changed(uuid=record.uuid, changes=self._registry.changes(record))


def _input_of(dataflow: Dataflow, target: str) -> tuple[str, Input]:
    """Return the node and the input that `target`, a `node/input`, names."""
    consumer, _, name = target.partition("/")
    node = dataflow.node(consumer)
    name = topology.input_name(node, name)
    return consumer, next(entry for entry in node.all_inputs if entry.id == name)


def refuse_share(record: Record) -> None:
    """Raise ControlError if a dataflow runs on several machines, so that one cannot change it."""
    if record.row.options.share is not None:
        raise ControlError(
            "refused",
            f"dataflow {record.title} runs on several machines and is changed by its coordinator",
            "give its address with --coordinator-addr",
        )


def node_of(dataflow: Dataflow, node_id: str) -> NodeSpec:
    """Return a node. Raises ControlError."""
    try:
        return dataflow.node(node_id)
    except KeyError:
        known = ", ".join(node.id for node in dataflow.nodes)
        raise ControlError(
            "not-found", f"the dataflow has no node {node_id!r}; it has: {known}"
        ) from None


def _grace(given: float | None, default: float) -> float:
    return default if given is None else given


async def until_started(record: Record) -> None:
    """Wait until a dataflow that is being started runs.

    Raises:
        ControlError: with code `deadline`, if it does not run within MAX_START_WAIT_S.
    """
    _log.debug("dataflow %s is to change; it is %s", record.uuid, record.status)
    if await record.bell.until(lambda: record.status != "starting", MAX_START_WAIT_S):
        return
    raise ControlError(
        "deadline",
        f"dataflow {record.name or record.uuid} is still starting after {MAX_START_WAIT_S:g} s: "
        f"{_awaited(record)}",
        "try again when it runs; `dora logs` shows what its nodes print",
    )


def _awaited(record: Record) -> str:
    """Return what the start of a dataflow waits for, in words."""
    if record.run is None or record.dataflow is None:
        return "its nodes are not ready"
    views = record.run.supervisor.statuses()
    spawned = [node.id for node in record.dataflow.nodes if not node.is_dynamic]
    awaited = [name for name in spawned if name in views and views[name].status in _NOT_READY]
    return f"it waits for Node() in: {', '.join(awaited)}" if awaited else "its nodes are not ready"


def _check_running(record: Record) -> None:
    """Raise ControlError if a dataflow does not run yet, or is being stopped."""
    if record.status != "running":
        hint = "try again when it runs" if record.status == "starting" else None
        raise ControlError("busy", f"the dataflow is {record.status}", hint)


def _changed(record: Record, change: Callable[[Dataflow], Dataflow]) -> Dataflow:
    """Return the dataflow after a change. Raises ControlError if the change is not allowed."""
    if record.dataflow is None or not record.running:
        raise ended(record)
    refuse_share(record)
    _check_running(record)
    after = change(record.dataflow)
    if problems := unsupported(after):
        raise ControlError(
            "refused",
            "the dataflow would use keys that are not supported",
            None,
            list(map(str, problems)),
        )
    if problems := change_problems(after):
        raise ControlError(
            "refused",
            "the types of outputs and inputs would not match",
            None,
            list(map(str, problems)),
        )
    return after
