"""Replacing the process of a node: the new process starts first, then the old one is stopped."""

import asyncio
import logging
import signal
from collections.abc import Callable

from dorad.control.errors import ControlError
from dorad.daemon.rules.barrier import Phase
from dorad.daemon.rules.exits import describe
from dorad.daemon.rules.restart import RestartHistory
from dorad.daemon.supervisor.noderun import NodeRun
from dorad.daemon.supervisor.processes import NodeProcess, StartNode
from dorad.daemon.supervisor.state import SupervisorState
from dorad.daemon.supervisor.stopladder import stop_process
from dorad.dataflow.model import Dataflow, NodeSpec
from dorad.launch.model import LaunchError

STARTUP_S = 30.0
"""Seconds until a replacement must have called `Node()`, unless it has a `startup_timeout`."""

_log = logging.getLogger(__name__)


async def replace_process(
    state: SupervisorState,
    start_process: StartNode,
    run: NodeRun,
    node: NodeSpec,
    after: Dataflow,
    grace: float,
    *,
    on_replaced: Callable[[], None],
) -> None:
    """Replace the process of `run` by one of `node`. If it raises ControlError, the old one stays.

    Messages sent meanwhile wait in the node's mailbox, which passes from process to process.
    `on_replaced` is called once the old process has exited.
    """
    name = node.id
    if state.lifecycle.barrier.phase is not Phase.OPEN:
        raise ControlError("busy", "the dataflow is still starting")
    old = run.process
    if old is None or not run.connected or not state.lifecycle.may_restart(name):
        raise ControlError(
            "refused", f"node {name} is {run.status}: only a running node can be replaced"
        )
    try:
        state.broker.handovers.begin(name, node, after)
    except OSError as error:
        raise ControlError("refused", f"node {name} is not replaced: {error}") from error
    except ValueError as error:
        # An earlier daemon began a handover of this node; its two processes complete it.
        raise ControlError("busy", str(error), "try again when that has ended") from error
    successor = await _start_successor(state, start_process, run, node, old)
    if run.successor is successor:
        await stop_process(state, run, old, grace)
    run.node = node
    run.history = RestartHistory(window_start=run.spawned_at)
    on_replaced()
    await state.bell.until(lambda: run.connected or run.process is not successor, STARTUP_S)


async def _start_successor(
    state: SupervisorState,
    start_process: StartNode,
    run: NodeRun,
    node: NodeSpec,
    old: NodeProcess,
) -> NodeProcess:
    """Start the new process and return it once it has said hello."""
    name, timeout = node.id, node.startup_timeout or STARTUP_S
    run.successor_waiting = run.successor_connected = False
    try:
        process = await start_process(node, state.broker.node_config(name), run.restarts + 1)
    except LaunchError as error:
        state.broker.handovers.end(name)
        raise ControlError("refused", f"the new {name} could not be started: {error}") from None
    except BaseException:
        state.broker.handovers.end(name)
        raise
    if run.process is not old:
        # Its exit was judged before there was a successor, so it ends or is restarted by itself.
        process.signal(signal.SIGKILL)
        await process.wait()
        run.successor_waiting = False
        state.broker.handovers.end(name)
        raise ControlError("refused", f"node {name} has exited meanwhile", "try again")
    _log.debug("node %s: process %d is to take over", name, process.pid)
    run.successor = process
    exited = asyncio.ensure_future(process.exited())
    exited.add_done_callback(lambda _: state.bell.ring())
    failure = ""
    try:
        in_time = await state.bell.until(
            lambda: run.successor_waiting or run.successor is not process or exited.done(),
            timeout,
        )
        if run.successor is not process:
            return process  # the old process has exited, and this one took over
        if exited.done():
            failure = f"the new {name} {describe(exited.result())} before it called Node()"
        elif not in_time:
            failure = f"the new {name} did not call Node() within {timeout:g} s"
        else:
            return process
    finally:
        cancelled = not exited.done() and run.successor is process and not run.successor_waiting
        if failure or cancelled:
            _log.debug("node %s: process %d does not take over: %s", name, process.pid, failure)
            run.successor, run.successor_waiting = None, False
            process.signal(signal.SIGKILL)
            await process.wait()
            state.broker.handovers.end(name)
        exited.cancel()
    raise ControlError("refused", f"{failure}; node {name} keeps its old process")
