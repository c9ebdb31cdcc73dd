"""Carry out the assignments of this robot: one loop that observes, decides, and acts.

Level-triggered: after every wake-up it asks dorad once for all runs, and decides again for each. A
dataflow that comes from releases is observed at times of its own; what its release decides is
stored in one step with the run that it asks for.
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from dorad.agent.assignments import orders
from dorad.agent.assignments import runs as rules
from dorad.agent.assignments.act import RunActions
from dorad.agent.assignments.files import Library
from dorad.agent.assignments.model import ReleaseRecord
from dorad.agent.assignments.observations import Observations
from dorad.agent.assignments.queries import Contact
from dorad.agent.assignments.releases import Releases
from dorad.agent.assignments.runs import Run, RunRecord
from dorad.agent.backoff import Backoff
from dorad.agent.daemon import Daemon
from dorad.agent.identitystore import IdentityStore
from dorad.agent.store import AssignmentStore
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import DATAFLOW_WAIT, DataflowState, Wait
from dorad.control.messages.agent import ShareRef, ShareSet, ShareState
from dorad.control.messages.releases import ReleaseOrder, ReleaseState

EVERY_S = 30.0
"""Time between two looks at dorad when nothing happens."""
FULL_EVERY_S = 5.0
"""The same while the disk is full and orders are to be stored."""
ACTIVE_EVERY_S = 2.0
"""The same while a dataflow starts, or has links, whose state has no events."""
HELD_EVERY_S = 0.1
"""The same while other machines may wait until a share is ready."""
MIN_INTERVAL_S = 0.05

_log = logging.getLogger(__name__)


class Assignments:
    """All dataflows that this robot is ordered to run. Belongs to one event loop."""

    def __init__(
        self,
        folder: Path,
        store: AssignmentStore,
        daemon: Daemon,
        identities: IdentityStore,
        library: Library,
        boot: str,
        contact: Contact,
        on_change: Callable[[], None],
    ) -> None:
        """`folder` is that of the agent, `boot` the machine's boot id, `library` has the releases.

        `on_change` is called when a state changes.
        """
        self._store = store
        self._actions = RunActions(store, daemon, identities, boot)
        self._daemon = daemon
        self._boot = boot
        self._contact = contact
        self._on_change = on_change
        robot = identities.load().robot
        observations = Observations(daemon, library, robot, boot, folder, contact, self.observe)
        self._releases = Releases(store, observations, library, boot, contact, self)
        self._wake = asyncio.Event()
        self._runs: dict[str, Run] = {}
        self._acting: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, tuple[Backoff, float, str]] = {}
        """By dataflow: when it is tried again by the loop's clock, and why."""
        self._starting: dict[str, float] = {}
        """By the UUID of a run that starts: since when, by the loop's clock."""
        self._look_at = 0.0
        """When dorad is asked next, by the loop's clock."""
        self.states: dict[str, ShareState] = {}
        """The state of each run, by the name of the dataflow."""
        self.releases: dict[str, ReleaseState] = {}
        """What to report of dataflows that come from releases, by name."""
        self.problem = "dorad was not asked yet"
        """Why dorad cannot be used; empty if it can."""
        self.looked = asyncio.Event()
        """Set once dorad was asked, with or without success."""
        self.update_states()

    @property
    def reported(self) -> dict[str, ShareState]:
        """The states of the shares that a coordinator has ordered."""
        own = self._store.releases
        return {name: state for name, state in self.states.items() if name not in own}

    @property
    def uuids(self) -> set[str]:
        """All runs that have not ended."""
        return {
            uuid
            for record in self._store.runs.values()
            if record.ended is None
            for uuid in (record.order.content.uuid, record.begun and record.begun.uuid)
            if uuid
        }

    def wake(self) -> None:
        """Look at all runs soon."""
        self._look_at = 0.0
        self._wake.set()

    def observe(self, name: str = "") -> None:
        """Observe a dataflow that comes from releases soon; all of them without a name."""
        self._releases.observe(name)
        self.turn()

    def turn(self) -> None:
        """Take another turn of the loop, without a look at dorad."""
        self._wake.set()

    def try_again(self) -> None:
        """Try what has failed again soon: its cause may be gone."""
        self._retries = {name: (wait, 0.0, why) for name, (wait, _, why) in self._retries.items()}
        self.wake()

    def check_epoch(self, epoch: int) -> None:
        """Raise ControlError with code `conflict` if an order is not of the term that is obeyed."""
        present = self._store.memory.epoch
        if epoch != present:
            order = "older" if epoch < present else "of no coordinator that has attached"
            raise ControlError(
                "conflict",
                f"this robot obeys a coordinator of epoch {present}; epoch {epoch} is {order}",
                "another coordinator has taken over, or this one was restored or copied",
            )

    def order(self, order: ShareSet) -> ShareState:
        """Store an order for an inline dataflow, and begin to carry it out.

        Raises:
            ControlError: it is older than what this robot has, or cannot be stored.
        """
        self.check_epoch(order.epoch)
        present = self._store.assignments.get(order.dataflow)
        after = orders.take_share(present, order, self._boot)
        # A stop is obeyed whatever the disk says.
        store = self._store.put if order.enabled else self._store.keep
        store(after)
        self.taken(None if present is None else present.run, order)
        return self._changed(order.dataflow)

    def order_release(self, order: ReleaseOrder) -> ReleaseState:
        """Store an order about a release, and begin to carry it out.

        Raises:
            ControlError: it is older than what this robot has, an inline dataflow of that name
                runs, or it cannot be stored.
        """
        name = order.dataflow
        self.check_epoch(order.epoch)
        known = self._store.assignments.get(name)
        new = ReleaseRecord(order, str(uuid.uuid4()), self._boot, since=time.time())
        after = orders.take_release(known, order, new)
        if after != known:
            stops = order.release is None or not order.enabled
            store = self._store.keep if stops else self._store.put
            store(after)
            _log.info(
                "release %.12s of %s is ordered: epoch %d, generation %d, switch: %s, enabled: %s",
                *(order.release or "none", name, order.epoch, order.generation),
                *(order.switch, order.enabled),
            )
        self._contact.heard()
        self._releases.try_again(but=order.release)
        self.update_states()
        self.observe()
        return self.releases[name]

    def open(self, ref: ShareRef) -> ShareState:
        """Open the start barrier of a share. Raises ControlError."""
        self.check_epoch(ref.epoch)
        run = orders.open_barrier(self._ordered_run(ref), ref)
        self._store.put(replace(self._store.assignments[ref.dataflow], run=run))
        _log.debug("the barrier of %s opens", ref.dataflow)
        return self._changed(ref.dataflow)

    def remove(self, ref: ShareRef) -> None:
        """Forget a share that does not run. Raises ControlError."""
        self.check_epoch(ref.epoch)
        if ref.dataflow not in self._store.assignments:
            return
        run = self._ordered_run(ref)
        orders.check_version(run.version, ref)
        if run.ended is None:
            raise ControlError(
                "busy", f"the share of {ref.dataflow} has not ended", "stop the dataflow first"
            )
        self.forget(ref.dataflow)

    def forget_epochs(self) -> None:
        """Forget the terms of all orders: those to come may be lower. Raises ControlError."""
        for assignment in list(self._store.assignments.values()):
            self._store.keep(orders.forget_epoch(assignment))

    def _ordered_run(self, ref: ShareRef) -> RunRecord:
        """Return the run of a share that a coordinator has ordered."""
        assignment = self._store.assignments.get(ref.dataflow)
        if assignment is None or assignment.run is None or assignment.release is not None:
            raise ControlError("not-found", f"this robot has no share of {ref.dataflow}")
        return assignment.run

    def _changed(self, name: str) -> ShareState:
        self.wake()
        self.update_states()
        return self.states[name]

    def taken(self, before: RunRecord | None, order: ShareSet) -> None:
        """Make way for an order that was stored."""
        name = order.dataflow
        _log.debug(
            "run of %s: epoch %d, generation %d, enabled: %s, hold: %s",
            *(name, order.epoch, order.generation, order.enabled, order.hold),
        )
        if before is None or before.order != order:
            self._retries.pop(name, None)
            if order.force and not order.enabled and name in self._acting:
                # It may be waiting for nodes to stop by themselves.
                self._acting[name].cancel()
        self.wake()

    def forget(self, name: str) -> None:
        """Forget a dataflow that does not run. Raises ControlError."""
        self._store.remove(name)
        self._retries.pop(name, None)
        _log.info("the order for %s is forgotten", name)
        self.update_states()

    async def run(self) -> None:
        """Carry out all assignments, until cancelled. Running dataflows keep running."""
        loop = asyncio.get_running_loop()
        retry = Backoff()
        async with asyncio.TaskGroup() as tasks:
            self._releases.start(tasks)
            while True:
                self._wake.clear()
                if loop.time() >= self._look_at:
                    self._look_at = math.inf
                    await self._look(tasks)
                    retry = retry if self.problem else Backoff()
                    pause = retry.next() if self.problem else self._interval()
                    # It may have been woken meanwhile.
                    self._look_at = min(self._look_at, loop.time() + pause)
                due = min(self._look_at, self._releases.begin(tasks))
                await asyncio.sleep(MIN_INTERVAL_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        """Ask dorad for all runs, and begin what is to be done for them."""
        self._store.flush()
        busy = set(self._acting)
        try:
            self._runs = await self._ask()
            self._set_problem("")
            # A run that was busy meanwhile may have changed since it was asked for.
            self._decide(tasks, busy)
        except ControlError as error:
            self._set_problem(error.message)
        self.update_states()
        self.looked.set()

    async def _ask(self) -> dict[str, Run]:
        """Return what dorad knows. Raises ControlError."""
        client = await self._daemon.client()
        wanted = self.uuids
        runs = {
            info.uuid: Run(info, await _state(client, info.uuid) if info.uuid in wanted else None)
            for info in await client.list()
        }
        now = asyncio.get_running_loop().time()
        self._starting = {
            uuid: self._starting.get(uuid, now)
            for uuid, run in runs.items()
            if uuid in wanted and run.info.status == "starting"
        }
        return {
            uuid: replace(run, waited=now - self._starting.get(uuid, now))
            for uuid, run in runs.items()
        }

    def _decide(self, tasks: asyncio.TaskGroup, busy: set[str]) -> None:
        """Begin the next action of each run that has none."""
        now = asyncio.get_running_loop().time()
        for name, known in self._store.runs.items():
            if name in busy or name in self._acting:
                continue
            record = self._actions.keep_seen(known, self._runs)
            if name in self._retries and now < self._retries[name][1]:
                continue
            action = rules.decide(record, self._runs, self._actions.present)
            if action is not None:
                _log.debug("run of %s: %s", name, action)
                task = tasks.create_task(self._act(record, action), name=f"run {name}")
                self._acting[name] = task
                task.add_done_callback(partial(self._acted, name))

    def _acted(self, name: str, _task: asyncio.Task[None]) -> None:
        del self._acting[name]
        self.wake()

    async def _act(self, record: RunRecord, action: rules.Action) -> None:
        """Carry out an action for a run; a failure is recorded or repeated."""
        name = record.order.dataflow
        if self._store.run(name) is not record:
            _log.debug("run of %s: an order has arrived meanwhile", name)
            return
        try:
            await self._actions.act(record, action, self._runs)
        except ControlError as error:
            backoff, _, _ = self._retries.get(name, (Backoff(first=0.5, longest=EVERY_S), 0, ""))
            due = asyncio.get_running_loop().time() + backoff.next()
            self._retries[name] = (backoff, due, error.message)
            _log.warning("run of %s: %s; it is tried again", name, error)
        else:
            self._retries.pop(name, None)
            if isinstance(action, rules.Open):
                # It may still wait for nodes, but not to be opened again.
                self._starting[record.order.content.uuid] = math.inf

    def _set_problem(self, problem: str) -> None:
        if problem != self.problem:
            _log.info("dorad %s", f"cannot be used: {problem}" if problem else "can be used")
            self.problem = problem
            self._on_change()

    def update_states(self) -> None:
        """Make what is reported from what is known now."""
        before, now = (self.states, self.releases), time.time()
        self.states = {
            name: rules.state_of(
                *(record, self._runs, self._trouble(name), before[0].get(name), now),
                # A release says it of itself. It is no failure of its run, by which it is decided.
                "" if name in self._store.releases else self._store.note(name),
            )
            for name, record in self._store.runs.items()
        }
        self.releases = self._releases.states(self.states)
        for name in self.releases:
            if _progress(self.states.get(name)) != _progress(before[0].get(name)):
                self.observe(name)
        if (self.states, self.releases) != before:
            self._on_change()

    def _trouble(self, name: str) -> str:
        return self._retries[name][2] if name in self._retries else self.problem

    def _interval(self) -> float:
        now, runs = asyncio.get_running_loop().time(), self._store.runs
        shortest = FULL_EVERY_S if self._store.trouble else EVERY_S
        if any(
            state.links or state.status in ("starting", "ready") for state in self.states.values()
        ):
            shortest = ACTIVE_EVERY_S
        if any(
            state.status == "starting"
            and runs[name].order.hold is not None
            # Once its barrier is open, it may wait for its nodes for minutes.
            and not (runs[name].opens and self._starting.get(state.uuid) == math.inf)
            for name, state in self.states.items()
        ):
            shortest = HELD_EVERY_S
        retries = [due - now for _, due, _ in self._retries.values()]
        return max(MIN_INTERVAL_S, min([shortest, *retries]))


def _progress(state: ShareState | None) -> tuple[int, str, str] | None:
    """Return what of the state of a run its release is decided by."""
    return None if state is None else (state.generation, state.status, state.reason)


async def _state(client: AsyncClient, uuid: str) -> DataflowState | None:
    """Return the state of a run; None if not every node has a process yet, or it is forgotten."""
    try:
        now = Wait(dataflow=uuid, until="spawned", timeout=0)
        return await client.call(DATAFLOW_WAIT, now)
    except ControlError as error:
        if error.code in ("deadline", "not-found"):
            return None
        raise
