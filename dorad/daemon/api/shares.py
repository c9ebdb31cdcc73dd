"""The methods `dataflow.open` and `dataflow.update`: this machine's share of a dataflow."""

import logging
from collections.abc import Collection

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.session import Call, handles
from dorad.daemon.api.nodes import until_started
from dorad.daemon.record import Record, checked_dataflow
from dorad.daemon.registry import Registry, checked_params
from dorad.daemon.run import DataflowRun
from dorad.dataflow.difference import (
    Add,
    Connect,
    Disconnect,
    Remove,
    Replace,
    Step,
    shared_channels,
    sources_first,
    steps,
)
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.model import Dataflow, Link
from dorad.dataflow.types.strict import change_problems

_DOWN = ("starting", "restarting")
"""The status of a node without a process that could hand over its inputs."""

_log = logging.getLogger(__name__)


class ShareMethods:
    """Answers the methods that a robot's agent uses for dataflows over several machines."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @handles(m.DATAFLOW_OPEN)
    async def open(self, _call: Call, params: m.Ref) -> m.Nothing:
        """Open the start barrier of a dataflow that was started with `hold`."""
        _, run, _ = self._registry.find_run(params.dataflow)
        run.supervisor.open_barrier()
        return m.Nothing()

    @handles(m.DATAFLOW_UPDATE)
    async def update(self, _call: Call, params: m.Update) -> m.Changed:
        """Make a share what a new descriptor and placement say.

        If a step fails, earlier steps stay; the next update continues from there.
        """
        record, run, _ = self._registry.find_run(params.dataflow)
        part = record.row.options.share
        if part is None or part.machine != params.share.machine:
            raise ControlError("refused", f"dataflow {record.title} is not a share of this machine")
        checked_params(params.params)
        after = checked_dataflow(params.descriptor, record.row.path, params.share)
        if problems := change_problems(after):
            raise DataflowError(problems)
        await until_started(record)
        async with record.changing:
            if record.status != "running":
                raise ControlError("busy", f"the dataflow is {record.status}")
            change = self._change(record, run, after, params)
            await run.commands.detached.run(change)
            self._registry.store.put_dataflow(record, after)
            await self._registry.store.sync()
        self._registry.event_bus.publish(record.uuid, "topology-changed", text="share updated")
        return m.Changed(uuid=record.uuid, changes=self._registry.changes(record))

    async def _change(
        self, record: Record, run: DataflowRun, after: Dataflow, wanted: m.Update
    ) -> None:
        """Change a run step by step. Raises ProblemError if a step cannot be done."""
        before = run.dataflow
        plan = list(steps(before, after))
        for step in plan:
            if isinstance(step, Add | Replace):
                run.check_program(after.node(_node_of(step)), after)
        run.link.renew(wanted.share)
        old, new = run.link.of(before), run.link.of(after)
        run.link.use(shared_channels(old or Link(), new or Link()))
        for step in plan:
            _log.debug("dataflow %s: %s %s", record.uuid, type(step).__name__, _node_of(step))
            if isinstance(step, Add) and (values := wanted.params.get(step.node.id)) is not None:
                self._registry.store.replace_params(record, step.node.id, values)
            await _carry_out(record, run, step)
        # Stored together with the description, which only this placement fits.
        record.row.options = msgspec.structs.replace(record.row.options, share=wanted.share)
        run.commands.describe(after)
        run.link.use(new)
        await _revive(run, after, wanted.alive)


def _node_of(step: Step) -> str:
    return step.node.id if isinstance(step, Add) else step.node


async def _revive(run: DataflowRun, after: Dataflow, names: Collection[str]) -> None:
    """Start nodes again that have ended, or end, their sources first. Raises ProblemError."""
    wanted = [node for node in after.nodes if node.id in names and not node.is_dynamic]
    others = {node.id for node in after.nodes} - {node.id for node in wanted}
    for node in sources_first(wanted, others):
        if not _has_left(run, node.id):
            continue
        if not run.supervisor.may_start_again(node.id):
            _log.debug("node %s stays ended: it would receive nothing", node.id)
            continue
        _log.info("node %s had ended: it is started again", node.id)
        if not _has_ended(run, node.id):
            # All its inputs have closed, so it is about to end: then nothing else would start it.
            await run.commands.stop(node.id)
        await run.commands.restart(node.id)


def _has_left(run: DataflowRun, node: str) -> bool:
    """Return True for a node that has ended or is about to, but not if it finished by itself."""
    view = run.supervisor.status(node)
    if view is None:
        return False
    return view.status == "failed" or view.stopped or run.supervisor.has_drained(node)


def _has_ended(run: DataflowRun, node: str) -> bool:
    view = run.supervisor.status(node)
    return view is not None and view.status in ("stopped", "failed")


async def _replace(run: DataflowRun, node: str, after: Dataflow) -> None:
    """Replace a node; one that crashes again and again is started as the new one."""
    try:
        await run.commands.replace(node, after)
    except ControlError as error:
        view = run.supervisor.status(node)
        if error.code != "refused" or view is None or view.status not in _DOWN:
            raise
        _log.debug("node %s is %s: it is restarted as the new one", node, view.status)
        await run.commands.restart_as(node, after)


async def _carry_out(record: Record, run: DataflowRun, step: Step) -> None:
    commands = run.commands
    match step:
        case Remove(node, after):
            await commands.remove(node, after)
        case Add(node, after):
            run.broker.params.replace(node.id, record.initial_params(node))
            await commands.add(node, after)
        case Replace(node, after):
            run.broker.params.replace(node, record.initial_params(after.node(node)))
            if not _has_ended(run, node):
                await _replace(run, node, after)
                return
            # There is no process that another one could replace. What it feeds opens again.
            commands.describe(after)
            if run.supervisor.may_start_again(node):
                await commands.restart(node)
        case Connect(node, entry, after):
            if run.supervisor.takes_inputs(node):
                commands.connect(node, entry, after)
            else:
                commands.describe(after)
        case Disconnect(node, input_id, after):
            commands.disconnect(node, input_id, after)
