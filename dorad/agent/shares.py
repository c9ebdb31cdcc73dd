"""Carry out the shares of this robot: compare them with dorad's dataflows, and act.

Level-triggered: after every wake-up it checks all shares and decides again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from dorad.agent import decide as rules
from dorad.agent.backoff import Backoff
from dorad.agent.model import Run
from dorad.agent.shareactions import ShareActions
from dorad.control.errors import ControlError
from dorad.control.messages import DATAFLOW_WAIT, DataflowState, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.agent.daemon import Daemon
    from dorad.agent.identity import IdentityStore
    from dorad.agent.model import ShareRecord
    from dorad.agent.store import ShareStore
    from dorad.control.asyncclient import AsyncClient
    from dorad.control.messages.agent import ShareRef, ShareSet, ShareState

EVERY_S = 30.0
"""Time between two looks when nothing happens."""
FULL_EVERY_S = 5.0
"""The same while the disk is full and orders are to be stored."""
ACTIVE_EVERY_S = 2.0
"""The same while a dataflow starts, or has links, whose state has no events."""
HELD_EVERY_S = 0.1
"""The same while other machines may wait until a share is ready."""
MIN_INTERVAL_S = 0.05

_log = logging.getLogger(__name__)


class Shares:
    """All shares of this robot. Belongs to one event loop."""

    def __init__(
        self,
        store: ShareStore,
        daemon: Daemon,
        identities: IdentityStore,
        boot: str,
        on_change: Callable[[], None],
    ) -> None:
        """`boot` is the machine's boot id; `on_change` is called when a state changes."""
        self._store = store
        self._actions = ShareActions(store, daemon, identities, boot)
        self._daemon = daemon
        self._boot = boot
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._runs: dict[str, Run] = {}
        self._acting: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, tuple[Backoff, float, str]] = {}
        """By dataflow: when it is tried again by the loop's clock, and why."""
        self._starting: dict[str, float] = {}
        """By the UUID of a run that starts: since when, by the loop's clock."""
        self.states: dict[str, ShareState] = {}
        """What to report, by the name of the dataflow."""
        self.problem = "dorad was not asked yet"
        """Why dorad cannot be used; empty if it can."""
        self.looked = asyncio.Event()
        """Set once dorad was asked, with or without success."""
        self._update_states()

    @property
    def uuids(self) -> set[str]:
        """The runs of all shares."""
        return {
            uuid
            for record in self._store.records.values()
            if record.ended is None
            for uuid in (record.order.content.uuid, record.begun and record.begun.uuid)
            if uuid
        }

    def wake(self) -> None:
        """Check all shares soon."""
        self._wake.set()

    def try_again(self) -> None:
        """Try what has failed again soon: its cause may be gone."""
        self._retries = {name: (wait, 0.0, why) for name, (wait, _, why) in self._retries.items()}
        self._wake.set()

    async def run(self) -> None:
        """Carry out all shares, until cancelled. Running dataflows keep running."""
        loop = asyncio.get_running_loop()
        retry = Backoff()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                self._store.flush()
                busy = set(self._acting)
                try:
                    self._runs = await self._look()
                    self._set_problem("")
                    retry = Backoff()
                    # A share that was busy meanwhile may have changed since the check.
                    self._decide(tasks, busy)
                except ControlError as error:
                    self._set_problem(error.message)
                self._update_states()
                self.looked.set()
                due = loop.time() + (retry.next() if self.problem else self._interval())
                await asyncio.sleep(MIN_INTERVAL_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()

    def order(self, order: ShareSet) -> ShareState:
        """Store an order, and begin to carry it out.

        Raises:
            ControlError: it is older than what this robot has, or cannot be stored.
        """
        name = order.dataflow
        self.check_epoch(order.epoch)
        present = self._store.records.get(name)
        if name in self._store.releases:
            raise ControlError(
                "conflict",
                f"the dataflow {name} comes from releases here",
                "`dorafleet rollout start` changes it",
            )
        record = rules.take_order(present, order, self._boot)
        if order.enabled:
            self._store.put(record)
        else:
            # A stop is obeyed whatever the disk says.
            self._store.keep(record)
        return self._taken(present, order)

    def put(self, order: ShareSet, *, opens: bool) -> None:
        """Store the order for a dataflow that comes from a release.

        `opens` says whether this robot opens its start barrier itself. A full disk must not keep
        the robot from going back. After a restart the order follows again from the record of the
        release.

        Raises:
            ControlError: there are too many shares.
        """
        present = self._store.records.get(order.dataflow)
        self._store.keep(rules.take_order(present, order, self._boot, opens=opens))
        self._taken(present, order)

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

    @property
    def reported(self) -> dict[str, ShareState]:
        """The states of the shares that a coordinator has ordered."""
        own = self._store.releases
        return {name: state for name, state in self.states.items() if name not in own}

    def _taken(self, present: ShareRecord | None, order: ShareSet) -> ShareState:
        name = order.dataflow
        _log.debug(
            "share of %s: epoch %d, generation %d, enabled: %s, hold: %s",
            *(name, order.epoch, order.generation, order.enabled, order.hold),
        )
        if present is None or present.order != order:
            self._retries.pop(name, None)
            if order.force and not order.enabled and name in self._acting:
                # It may be waiting for nodes to stop by themselves.
                self._acting[name].cancel()
        return self._changed(name)

    def open(self, ref: ShareRef) -> ShareState:
        """Open the start barrier of a share. Raises ControlError."""
        self.check_epoch(ref.epoch)
        self._store.put(rules.open_barrier(self._find(ref), ref))
        _log.debug("the barrier of %s opens", ref.dataflow)
        return self._changed(ref.dataflow)

    def remove(self, ref: ShareRef) -> None:
        """Forget a share that does not run. Raises ControlError."""
        if ref.dataflow not in self._store.records:
            return
        record = self._find(ref)
        rules.check_version(record, ref.epoch, ref.generation)
        if record.ended is None:
            raise ControlError(
                "busy", f"the share of {ref.dataflow} has not ended", "stop the dataflow first"
            )
        self._store.remove(ref.dataflow)
        _log.debug("the share of %s is forgotten", ref.dataflow)
        self._retries.pop(ref.dataflow, None)
        self._update_states()

    def forget_epochs(self) -> None:
        """Forget the terms of all orders: those to come may be lower. Raises ControlError."""
        for record in list(self._store.records.values()):
            self._store.keep(rules.forget_epoch(record))

    def _find(self, ref: ShareRef) -> ShareRecord:
        record = self._store.records.get(ref.dataflow)
        if record is None:
            raise ControlError("not-found", f"this robot has no share of {ref.dataflow}")
        return record

    def _changed(self, name: str) -> ShareState:
        self._wake.set()
        self._update_states()
        return self.states[name]

    async def _look(self) -> dict[str, Run]:
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
            uuid: msgspec.structs.replace(run, waited=now - self._starting.get(uuid, now))
            for uuid, run in runs.items()
        }

    def _decide(self, tasks: asyncio.TaskGroup, busy: set[str]) -> None:
        """Begin the next action of each share that has none."""
        now = asyncio.get_running_loop().time()
        for name, known in self._store.records.items():
            if name in busy or name in self._acting:
                continue
            record = self._actions.keep_seen(known, self._runs)
            if name in self._retries and now < self._retries[name][1]:
                continue
            action = rules.decide(record, self._runs, self._actions.present)
            if action is not None:
                _log.debug("share of %s: %s", name, action)
                task = tasks.create_task(self._act(record, action), name=f"share {name}")
                self._acting[name] = task
                task.add_done_callback(partial(self._acted, name))

    def _acted(self, name: str, _task: asyncio.Task[None]) -> None:
        del self._acting[name]
        self._wake.set()

    async def _act(self, record: ShareRecord, action: rules.Action) -> None:
        """Carry out an action for a share; a failure is recorded or repeated."""
        name = record.order.dataflow
        if self._store.records.get(name) is not record:
            _log.debug("share of %s: an order has arrived meanwhile", name)
            return
        try:
            await self._actions.act(record, action, self._runs)
        except ControlError as error:
            backoff, _, _ = self._retries.get(name, (Backoff(first=0.5, longest=EVERY_S), 0, ""))
            due = asyncio.get_running_loop().time() + backoff.next()
            self._retries[name] = (backoff, due, error.message)
            _log.warning("share of %s: %s; it is tried again", name, error)
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

    def _update_states(self) -> None:
        before, now = self.states, time.time()
        self.states = {
            name: rules.state_of(
                *(record, self._runs, self._trouble(name), before.get(name), now),
                self._store.note(name),
            )
            for name, record in self._store.records.items()
        }
        if self.states != before:
            self._on_change()

    def _trouble(self, name: str) -> str:
        return self._retries[name][2] if name in self._retries else self.problem

    def _interval(self) -> float:
        now = asyncio.get_running_loop().time()
        found = [(state, self._store.records[name]) for name, state in self.states.items()]
        shortest = FULL_EVERY_S if self._store.trouble else EVERY_S
        if any(state.links or state.status in ("starting", "ready") for state, _ in found):
            shortest = ACTIVE_EVERY_S
        if any(
            state.status == "starting"
            and record.order.hold is not None
            # Once its barrier is open, it may wait for its nodes for minutes.
            and not (record.opens and self._starting.get(state.uuid) == math.inf)
            for state, record in found
        ):
            shortest = HELD_EVERY_S
        retries = [due - now for _, due, _ in self._retries.values()]
        return max(MIN_INTERVAL_S, min([shortest, *retries]))


async def _state(client: AsyncClient, uuid: str) -> DataflowState | None:
    """Return the state of a run; None if not every node has a process yet, or it is forgotten."""
    try:
        now = Wait(dataflow=uuid, until="spawned", timeout=0)
        return await client.call(DATAFLOW_WAIT, now)
    except ControlError as error:
        if error.code in ("deadline", "not-found"):
            return None
        raise
