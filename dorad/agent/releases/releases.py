"""Carry out the orders about releases: observe each dataflow, decide, and act.

The daemon's order is one of the robot's own shares; `Shares` starts, changes and stops it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dorad.agent.decide import HOLD_S
from dorad.agent.releases import decide as rules
from dorad.agent.releases import orders
from dorad.agent.releases.damage import DamageCheck
from dorad.agent.releases.model import ReleaseRecord
from dorad.agent.releases.observing import ASK_AGAIN_S
from dorad.agent.shareactions import links_missing
from dorad.control.errors import ControlError
from dorad.control.messages.agent import ShareRef, ShareSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.agent.releases.library import Library
    from dorad.agent.releases.model import Observation
    from dorad.agent.releases.observing import Observations
    from dorad.agent.releases.queries import Contact
    from dorad.agent.shares import Shares
    from dorad.agent.store import ShareStore
    from dorad.control.messages.releases import ReleaseOrder, ReleaseState

EVERY_S = 30.0
"""Time between two checks when nothing runs."""
CONFIRMED_EVERY_S = 5.0
"""The same while confirmed releases run: their nodes may fail."""
ACTIVE_EVERY_S = 1.0
"""The same during a switch, or while something must not be interrupted."""
WAITING_EVERY_S = 3.0
"""The same while a release is received."""
MIN_INTERVAL_S = 0.1

_log = logging.getLogger(__name__)


class Releases:
    """All dataflows of this robot that come from releases. Belongs to one event loop."""

    def __init__(
        self,
        store: ShareStore,
        shares: Shares,
        library: Library,
        observations: Observations,
        boot: str,
        contact: Contact,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called when a state changes."""
        self._store = store
        self._shares = shares
        self._library = library
        self._boot = boot
        self._contact = contact
        self._on_change = on_change
        self._staging: dict[str, asyncio.Task[None]] = {}
        self._observations = observations
        self._wake = observations.changed
        self._seen: dict[str, Observation] = {}
        self._synced: dict[str, int] = {}
        self._damage = DamageCheck(library, self._in_use, self._update_states)
        self.states: dict[str, ReleaseState] = {}
        """What to report, by the name of the dataflow."""
        self._update_states()

    def wake(self) -> None:
        """Check all dataflows soon."""
        self._wake.set()

    def order(self, order: ReleaseOrder) -> ReleaseState:
        """Store an order, and begin to carry it out.

        Raises:
            ControlError: it is older than what this robot has, a share of that name runs, or it
                cannot be stored.
        """
        name = order.dataflow
        self._shares.check_epoch(order.epoch)
        known = self._store.releases.get(name)
        share = self._store.records.get(name)
        if known is None and share is not None and share.ended is None:
            raise ControlError(
                "conflict",
                f"the dataflow {name} runs here and does not come from a release",
                "stop it first",
            )
        new = ReleaseRecord(order, str(uuid.uuid4()), self._boot, since=time.time())
        record = orders.take_order(known, order, new)
        if known is None and share is not None:
            self._store.remove(name)
        if record != known:
            if order.release is None or not order.enabled:
                # A stop is obeyed whatever the disk says.
                self._store.keep_release(record)
            else:
                self._store.put_release(record)
            _log.info(
                "release %.12s of %s is ordered: epoch %d, generation %d, switch: %s, enabled: %s",
                *(order.release or "none", name, order.epoch, order.generation),
                *(order.switch, order.enabled),
            )
        # What was wrong may be repaired: a key that is trusted now, room on the disk.
        kept: set[str] = set().union(*(each.kept for each in self._store.releases.values()))
        self._observations.forget_refusals(kept - {order.release or ""})
        self._contact.heard()
        self._update_states()
        self.wake()
        return self.states[name]

    def forget_epochs(self) -> None:
        """Obey the coordinators of another fleet. Raises ControlError."""
        for record in list(self._store.releases.values()):
            self._store.keep_release(orders.forget_epoch(record))

    async def run(self) -> None:
        """Carry out all orders, until cancelled. Running dataflows keep running."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._damage.run(), name="files of releases")
            while True:
                self._wake.clear()
                if self._active:
                    await self._contact.renew()
                for name in list(self._store.releases):
                    try:
                        await self._advance(name, tasks)
                    except ControlError as error:
                        _log.warning("release of %s: %s; it is tried again", name, error)
                self._update_states()
                due = loop.time() + self._interval()
                await asyncio.sleep(MIN_INTERVAL_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()

    @property
    def _active(self) -> bool:
        return any(
            record.phase not in ("confirmed", "reverted") and not record.refused
            for record in self._store.releases.values()
        )

    def _interval(self) -> float:
        records = [each for each in self._store.releases.values() if not each.refused]
        calm = ("confirmed", "reverted")
        if any(
            each.phase not in ("pending", *calm) and each.waiting != "switch" for each in records
        ):
            return ACTIVE_EVERY_S
        if self._active:
            return WAITING_EVERY_S
        return CONFIRMED_EVERY_S if any(each.applied for each in records) else EVERY_S

    async def _advance(self, name: str, tasks: asyncio.TaskGroup) -> None:
        """Decide about a dataflow and act, until nothing changes."""
        record = self._store.releases[name]
        seen = await self._observations.observe(record, tasks)
        after = self._store.releases.get(name)
        if after is not record:
            self.wake()  # an order has arrived meanwhile
            return
        self._seen[name] = seen
        after = rules.decide(record, seen)
        if after != record:
            if not self._keep(after, record):
                return
            if after.phase != record.phase or after.step != record.step:
                self.wake()
        self._sync(after)
        if after.phase == "staging" and seen.files == "received" and name not in self._staging:
            task = tasks.create_task(self._stage(after), name=f"stage {name}")
            self._staging[name] = task
            task.add_done_callback(partial(self._staged, name))
        if after.phase == "confirmed" and record.phase == "probation":
            await asyncio.to_thread(self._collect)
        if rules.forgettable(after, seen):
            self._forget(name)

    def _keep(self, record: ReleaseRecord, before: ReleaseRecord) -> bool:
        """Store a record; return False if it must not be acted upon, because it is not stored.

        A full disk must keep no robot from going back, but it keeps it from a new switch.
        """
        if record.phase == "switching":
            try:
                self._store.put_release(record)
            except ControlError as error:
                _log.warning("release of %s: %s", record.order.dataflow, error)
                return False
        else:
            self._store.keep_release(record)
        if record.phase != before.phase:
            _log.info(
                "release %.12s of %s is %s%s",
                *(record.order.release or "none", record.order.dataflow, record.phase),
                record.reason and f": {record.reason}",
            )
        if record.phase != before.phase or record.step != before.step:
            self._observations.restart_checks(record.order.dataflow)
        return True

    def _sync(self, record: ReleaseRecord) -> None:
        """Give the robot's own share the content of the record. Level-triggered."""
        name = record.order.dataflow
        if record.step == 0 or self._synced.get(name) == record.step:
            return
        known = self._store.records.get(name)
        if known is not None and known.order.generation >= record.step:
            self._synced[name] = record.step
            return
        try:
            if record.applied is not None and not record.halting:
                # After a return, the rules are still those of the release that has failed.
                rules = record.order.rules if record.applied.revision == record.target else None
                content = self._observations.content(record.uuid, name, record.applied, rules)
            elif known is not None:
                content = known.order.content
            else:
                return
            enabled = record.applied is not None and not record.halting
            in_group = record.applied is not None and record.applied.revision.group is not None
            self._shares.put(
                ShareSet(
                    epoch=0,
                    generation=record.step,
                    dataflow=name,
                    enabled=enabled,
                    content=content,
                    alive=record.alive,
                    hold=HOLD_S if in_group else None,
                ),
                opens=in_group,
            )
            self._synced[name] = record.step
        except ControlError as error:
            _log.error("the order for %s cannot be stored: %s", name, error)

    async def _stage(self, record: ReleaseRecord) -> None:
        name, release = record.order.dataflow, record.order.release
        assert release is not None
        try:
            await asyncio.to_thread(self._library.stage, release)
            self._observations.troubles.pop(name, None)
        except ControlError as error:
            text = "; ".join(error.lines)
            _log.warning("release %.12s of %s: %s", release, name, text)
            if error.code == "refused":
                self._observations.refusals[release] = text
            else:
                self._observations.troubles[name] = text
                await asyncio.sleep(ASK_AGAIN_S)

    def _staged(self, name: str, _task: asyncio.Task[None]) -> None:
        self._staging.pop(name, None)
        self.wake()

    def _in_use(self) -> set[str]:
        return set().union(*(each.in_use for each in self._store.releases.values()))

    def _collect(self) -> None:
        keep: set[str] = set().union(*(each.kept for each in self._store.releases.values()))
        try:
            self._library.collect(keep)
        except (ControlError, OSError) as error:
            _log.warning("old releases cannot be removed: %s", error)

    def _forget(self, name: str) -> None:
        step = self._store.releases[name].step
        # The release last: after a kill in between it is forgotten again. A share without its
        # release would look like one that a coordinator has ordered.
        self._shares.remove(ShareRef(epoch=0, generation=step, dataflow=name))
        self._store.remove_release(name)
        self._observations.forget(name)
        for known in (self._seen, self._synced):
            known.pop(name, None)
        _log.info("the releases of %s are forgotten", name)

    def _runs_without(self, record: ReleaseRecord) -> str:
        """Return which machines of its group a dataflow runs without; empty if none is missing."""
        share = self._shares.states.get(record.order.dataflow)
        in_group = record.applied is not None and record.applied.revision.group is not None
        if share is None or not in_group or share.status != "running":
            return ""
        missing = links_missing(share.links)
        return missing and f"it runs without {missing}"

    def _update_states(self) -> None:
        before = self.states
        self.states = {
            name: _noted(
                rules.state_of(record, self._seen.get(name), self._damage.lost),
                *(self._runs_without(record), self._store.note(name)),
            )
            for name, record in self._store.releases.items()
        }
        if self.states != before:
            self._on_change()


def _noted(state: ReleaseState, *notes: str) -> ReleaseState:
    """Return a state with what else an operator should know of it."""
    return replace(state, reason="; ".join(filter(None, [state.reason, *notes])))
