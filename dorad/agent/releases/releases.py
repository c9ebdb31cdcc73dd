"""Carry out the orders about releases: observe each dataflow, decide, and act.

The daemon's order is one of the robot's own shares; `Shares` starts, changes and stops it.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import time
import uuid
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from dorad.agent.releases import compose, health, observing
from dorad.agent.releases import decide as rules
from dorad.agent.releases.model import Plan, Record, Seen
from dorad.agent.releases.probes import run_command, run_probes
from dorad.control.errors import ControlError
from dorad.control.messages.agent import ShareRef, ShareSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from dorad.agent.daemon import Daemon
    from dorad.agent.releases.library import Library
    from dorad.agent.releases.model import Applied, Files, Health, Revision
    from dorad.agent.shares import Shares
    from dorad.agent.store import ShareStore
    from dorad.control.messages.agent import ShareContent
    from dorad.control.messages.releases import Evidence, Lease, ReleaseOrder, ReleaseState

EVERY_S = 30.0
"""Time between two looks when nothing is to be done."""
ACTIVE_EVERY_S = 1.0
"""The same during a switch, or while something must not be interrupted."""
WAITING_EVERY_S = 3.0
"""The same while a release is received."""
MIN_INTERVAL_S = 0.1
ASK_AGAIN_S = 2.0
"""Minimum time between two runs of a command that has failed."""

_log = logging.getLogger(__name__)


class Contact:
    """When the coordinator was last heard, by `observing.clock`."""

    def __init__(self, ask: Callable[[], Awaitable[bool]]) -> None:
        """`ask` asks the coordinator for a sign of life, and returns whether it came."""
        self._ask = ask
        self.at: float | None = None

    def heard(self) -> None:
        """Take note of a sign of life."""
        self.at = observing.clock()

    async def renew(self) -> None:
        """Ask for a sign of life."""
        if await self._ask():
            self.heard()


class _Probed(NamedTuple):
    """The outcome of the commands of a dataflow, and when they had ended."""

    at: float
    evidence: list[Evidence]


class Releases:
    """All dataflows of this robot that come from releases. Belongs to one event loop."""

    def __init__(
        self,
        store: ShareStore,
        shares: Shares,
        daemon: Daemon,
        library: Library,
        robot: str,
        boot: str,
        folder: Path,
        contact: Contact,
        on_change: Callable[[], None],
    ) -> None:
        """`folder` is that of the agent; `on_change` is called when a state changes."""
        self._store = store
        self._shares = shares
        self._daemon = daemon
        self._library = library
        self._robot = robot
        self._boot = boot
        self._folder = folder
        self._contact = contact
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._staging: dict[str, asyncio.Task[None]] = {}
        self._refusals: dict[str, str] = {}
        """Why a release cannot be used on this robot, by its id."""
        self._troubles: dict[str, str] = {}
        self._plans: dict[str, tuple[Applied | None, Revision, Plan]] = {}
        self._watches: dict[str, health.Watch] = {}
        self._probed: dict[str, _Probed] = {}
        self._asked: dict[str, tuple[float, str]] = {}
        """When `safe_to_update` was last run, and why it is not safe."""
        self._seen: dict[str, Seen] = {}
        self._synced: dict[str, int] = {}
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
        new = Record(order, str(uuid.uuid4()), self._boot, since=time.time())
        record = rules.take_order(known, order, new)
        if known is None and share is not None:
            self._store.remove(name)
        if record != known:
            _log.info(
                "release %.12s of %s is ordered: epoch %d, generation %d, switch: %s, enabled: %s",
                *(order.release or "none", name, order.epoch, order.generation),
                *(order.switch, order.enabled),
            )
            self._store.put_release(record)
        # What was wrong may be repaired: a key that is trusted now, room on the disk.
        self._refusals.pop(order.release or "", None)
        self._contact.heard()
        self._update_states()
        self.wake()
        return self.states[name]

    def forget_epochs(self) -> None:
        """Obey the coordinators of another fleet. Raises ControlError."""
        for record in list(self._store.releases.values()):
            self._store.put_release(rules.forget_epoch(record))

    async def run(self) -> None:
        """Carry out all orders, until cancelled. Running dataflows keep running."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                if self._active:
                    await self._contact.renew()
                for name in list(self._store.releases):
                    try:
                        await self._look_after(name, tasks)
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
        return WAITING_EVERY_S if self._active else EVERY_S

    async def _look_after(self, name: str, tasks: asyncio.TaskGroup) -> None:
        """Decide about a dataflow and act, until nothing changes."""
        record = self._store.releases[name]
        seen = await self._see(record)
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

    def _keep(self, record: Record, before: Record) -> bool:
        """Store a record; return False if it must not be acted upon, because it is not stored.

        A full disk must keep no robot from going back, but it keeps it from a new switch.
        """
        try:
            self._store.put_release(record)
        except ControlError as error:
            _log.warning("release of %s: %s", record.order.dataflow, error)
            if record.phase == "switching":
                return False
            self._store.releases[record.order.dataflow] = record
        if record.phase != before.phase:
            _log.info(
                "release %.12s of %s is %s%s",
                *(record.order.release or "none", record.order.dataflow, record.phase),
                record.reason and f": {record.reason}",
            )
        if record.phase != before.phase or record.step != before.step:
            for known in (self._watches, self._probed):
                known.pop(record.order.dataflow, None)
        return True

    async def _see(self, record: Record) -> Seen:
        name, release = record.order.dataflow, record.order.release
        files: Files = "missing"
        plan = None
        refusal = ""
        if release is not None and record.phase in ("pending", "staging", "staged"):
            files = await asyncio.to_thread(self._library.files, release)
            refusal = self._refusals.get(release, "")
            if files == "staged" and not refusal:
                try:
                    plan = await asyncio.to_thread(self._plan, record)
                except ControlError as error:
                    refusal = self._refusals[release] = "; ".join(error.lines)
        share = self._shares.states.get(name)
        before = Seen(
            now=observing.clock(),
            wall=time.time(),
            boot=self._boot,
            files=files,
            refusal=refusal,
            trouble=self._troubles.get(name, ""),
            plan=plan,
            share=share,
            contact=self._contact.at,
        )
        try:
            if record.phase == "staged" and record.order.switch and record.order.enabled:
                return await self._see_before_switch(record, before)
            runs = share is not None and share.status == "running"
            if runs and record.phase == "probation":
                return replace(before, health=await self._judge(record))
            if runs and record.phase in ("confirmed", "reverted"):
                return replace(before, learned=await self._learn(record))
        except ControlError as error:
            _log.debug("release of %s: %s", name, error)
        return before

    async def _see_before_switch(self, record: Record, seen: Seen) -> Seen:
        client = await self._daemon.client()
        notices = await observing.notices(client)
        leases = await observing.leases(client)
        busy = _in_words(leases) or await self._unsafe(record)
        seen = replace(seen, notices=notices, leases=leases, busy=busy)
        if busy and record.order.busy == "wait":
            return seen
        return replace(seen, refusal=await self._verify_again(record))

    async def _verify_again(self, record: Record) -> str:
        """Return why a staged release is no longer usable: its key may be revoked now."""
        release = record.order.release
        assert release is not None
        try:
            await asyncio.to_thread(self._library.stage, release)
        except ControlError as error:
            if error.code != "refused":
                raise
            self._refusals[release] = "; ".join(error.lines)
        return self._refusals.get(release, "")

    async def _unsafe(self, record: Record) -> str:
        """Return why the dataflow says that it must not be changed now; empty if it may be."""
        if record.applied is None or record.order.busy == "ignore":
            return ""
        name = record.order.dataflow
        bundle = self._library.bundle(record.applied.revision.release)
        words = shlex.split(bundle.descriptor.get("safe_to_update") or "")
        share = self._shares.states.get(name)
        if not words or share is None or share.status != "running":
            return ""
        at, text = self._asked.get(name, (0.0, ""))
        if text and observing.clock() - at < ASK_AGAIN_S:
            return text
        client = await self._daemon.client()
        found, ok = await run_command(client, record.uuid, "safe_to_update", words, bundle)
        text = "" if ok else f"safe_to_update {found}"
        self._asked[name] = (observing.clock(), text)
        return text

    async def _judge(self, record: Record) -> Health:
        name, order = record.order.dataflow, record.order
        client = await self._daemon.client()
        seen = await observing.observe(client, record.uuid)
        found = health.watch(self._watches.get(name), seen, record.baseline)
        self._watches[name] = found
        probed = self._probed.get(name)
        again = probed is None or (
            not all(each.ok for each in probed.evidence)
            and observing.clock() - probed.at >= ASK_AGAIN_S
        )
        due = health.is_due(found, order.rules, record.baseline)
        if order.rules.probes and again and due:
            assert record.applied is not None
            bundle = self._library.bundle(record.applied.revision.release)
            ran = await run_probes(client, record.uuid, order.rules.probes, bundle)
            probed = self._probed[name] = _Probed(observing.clock(), ran)
        # The last outcome stays in the evidence, also while something else is not well.
        probes = None if probed is None else probed.evidence
        verdict = health.judge(found, order.rules, record.baseline, probes)
        for each in verdict.evidence:
            if not each.ok:
                _log.debug("health of %s: %s %s", name, each.check, each.text)
        return verdict

    async def _learn(self, record: Record) -> dict[str, float]:
        """Return rates of the confirmed revision; none before it was steady for long enough."""
        name = record.order.dataflow
        seen = await observing.observe(await self._daemon.client(), record.uuid)
        found, self._watches[name] = health.learn(self._watches.get(name), seen, record.order.rules)
        if found.seconds < record.order.rules.min_healthy_time:
            return {}
        learned = {each: found.rates[each] for each in found.settled}
        _log.debug("rates of %s over %.1f s: %s", name, found.seconds, learned)
        return learned

    def _plan(self, record: Record) -> Plan:
        """Return how to switch to the ordered release. Raises ControlError."""
        name, target, applied = record.order.dataflow, record.target, record.applied
        assert target is not None
        known = self._plans.get(name)
        if known is not None and known[:2] == (applied, target):
            return known[2]
        library = self._library
        bundle = library.bundle(target.release)
        if bundle.name != name:
            raise ControlError(
                "refused", f"it is a release of the dataflow {bundle.name}, not of {name}"
            )
        olds = set() if applied is None else set(applied.nodes.values())
        changed = {old: library.changed(old, target.release) for old in olds}
        after = compose.applied_after(applied, target, bundle, changed)
        content = self._content(record.uuid, name, after)
        compose.check(content)
        before = None if applied is None else self._content(record.uuid, name, applied)
        plan = Plan(after.nodes, compose.replaced(before, content), bundle.sequence)
        self._plans[name] = (applied, target, plan)
        return plan

    def _content(self, uuid: str, name: str, applied: Applied) -> ShareContent:
        path = self._folder / "dataflows" / name / "dataflow.yml"
        return compose.content_of(applied, uuid, self._robot, path, self._library.bundle)

    def _sync(self, record: Record) -> None:
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
                content = self._content(record.uuid, name, record.applied)
            elif known is not None:
                content = known.order.content
            else:
                return
            enabled = record.applied is not None and not record.halting
            self._shares.put(
                ShareSet(
                    epoch=0,
                    generation=record.step,
                    dataflow=name,
                    enabled=enabled,
                    content=content,
                )
            )
            self._synced[name] = record.step
        except ControlError as error:
            _log.error("the order for %s cannot be stored: %s", name, error)

    async def _stage(self, record: Record) -> None:
        name, release = record.order.dataflow, record.order.release
        assert release is not None
        try:
            await asyncio.to_thread(self._library.stage, release)
            self._troubles.pop(name, None)
        except ControlError as error:
            text = "; ".join(error.lines)
            _log.warning("release %.12s of %s: %s", release, name, text)
            if error.code == "refused":
                self._refusals[release] = text
            else:
                self._troubles[name] = text
                await asyncio.sleep(ASK_AGAIN_S)

    def _staged(self, name: str, _task: asyncio.Task[None]) -> None:
        self._staging.pop(name, None)
        self.wake()

    def _collect(self) -> None:
        keep: set[str] = set().union(*(each.kept for each in self._store.releases.values()))
        try:
            self._library.collect(keep)
        except (ControlError, OSError) as error:
            _log.warning("old releases cannot be removed: %s", error)

    def _forget(self, name: str) -> None:
        step = self._store.releases[name].step
        self._store.remove_release(name)
        if name in self._store.records:
            self._shares.remove(ShareRef(epoch=0, generation=step, dataflow=name))
        for known in (self._plans, self._watches, self._probed, self._seen, self._synced):
            known.pop(name, None)
        _log.info("the releases of %s are forgotten", name)

    def _update_states(self) -> None:
        before = self.states
        self.states = {
            name: rules.state_of(record, self._seen.get(name))
            for name, record in self._store.releases.items()
        }
        if self.states != before:
            self._on_change()


def _in_words(leases: list[Lease]) -> str:
    if not leases:
        return ""
    first = leases[0]
    others = f", and {len(leases) - 1} more" if len(leases) > 1 else ""
    return f"{first.owner}: {first.reason}{others}"
