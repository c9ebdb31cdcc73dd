"""The rollouts: in memory, and in the store with every step, which is their journal.

A rollout is in the store under `rollout/<number>` (its head), `rollout-plan/<number>` (its robots
at the start), `rollout-robot/<number>/<robot>` (each robot after its last step), and
`rollout-log/<number>/<step>`. A step changes head, robots, log and desired states in one
transaction, so that the next coordinator continues from there.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages.releases import Rejection
from dorad.int64 import Int64
from dorafleet.coordinator.records import Wanted
from dorafleet.coordinator.stored import damaged, decoded, read
from dorafleet.coordinator.writing import COORDINATOR
from dorafleet.rollout.messages import JournalEntry
from dorafleet.rollout.model import Member, Rollout, units_of
from dorafleet.rollout.operate import operate
from dorafleet.rollout.steps import Enter, Orders, Verdicts, apply
from dorafleet.rollout.strategy import problems

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from dorad.control.messages.releases import Group, ReleaseState
    from dorafleet.coordinator.fleet import Fleet
    from dorafleet.rollout.steps import Step
    from dorafleet.store.model import Store

HEADS = "rollout/"
PLANS = "rollout-plan/"
ROBOTS = "rollout-robot/"
LOGS = "rollout-log/"
NEWEST = "rollout-newest/"
"""By dataflow: the number of its newest rollout. Its version is that of plans."""
FAILED = "rollout-failed/"
"""By dataflow and robot: the releases that have failed there."""

CHUNK = 30
"""Robots in one transaction; each has up to three keys."""

MAX_ROLLOUTS = 200
MAX_REJECTS = 50
"""Releases that were undone, in one order."""

MAX_FAILED = 20
"""Releases for each robot and dataflow that are remembered to have failed."""

RESTORED_QUESTION = (
    "the store was restored from a backup: is this rollout still wanted? It may have ended, or "
    "robots may have a newer release since; see `dorafleet drift`, then resume or abort it"
)

_log = logging.getLogger(__name__)


class Rollouts:
    """All rollouts. Changes hold `fleet.writer.changing`."""

    def __init__(self, store: Store, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet
        self.heads: dict[int, Rollout] = {}
        self._members: dict[int, dict[str, Member]] = {}
        self._newest: dict[str, tuple[int, int]] = {}
        self._failed: dict[tuple[str, str], dict[str, str]] = {}

    async def load(self) -> None:
        """Read everything but the robots of rollouts that have ended. Raises StoreError."""
        self.heads = {}
        for entry, head in await read(self._store, HEADS, Rollout):
            if entry.key != f"{HEADS}{head.number:08}":
                raise damaged(self._store, entry, f"it describes rollout {head.number}")
            for wrong in problems(head.strategy):
                raise damaged(self._store, entry, wrong)
            self.heads[head.number] = head
        self._newest = {
            entry.key.removeprefix(NEWEST): (number, entry.version)
            for entry, number in await read(self._store, NEWEST, Int64)
        }
        self._failed = {}
        for entry, failed in await read(self._store, FAILED, dict[str, str]):
            dataflow, _, robot = entry.key.removeprefix(FAILED).partition("/")
            self._failed[dataflow, robot] = failed
        self._members = {}
        for number, head in self.heads.items():
            if not head.over:
                self._members[number] = await self._read_members(number)
        _log.debug("%d rollouts", len(self.heads))

    def version(self, dataflow: str) -> int:
        """Return the version that a plan for this dataflow has."""
        return self._newest.get(dataflow, (0, 0))[1]

    def newest(self, dataflow: str | None = None) -> Rollout | None:
        """Return the newest rollout of a dataflow, or of all."""
        found = [head for head in self.heads.values() if dataflow in (None, head.dataflow)]
        return max(found, key=lambda head: head.number, default=None)

    def find(self, number: int | None, dataflow: str | None = None) -> Rollout:
        """Return a rollout by its number, else the newest. Raises ControlError."""
        found = self.newest(dataflow) if number is None else self.heads.get(number)
        if found is not None:
            return found
        if number is not None:
            raise ControlError(
                "not-found",
                f"there is no rollout {number}",
                "`dorafleet rollout history` shows all",
            )
        of = "" if dataflow is None else f" of `{dataflow[:100]}`"
        raise ControlError("not-found", f"there is no rollout{of} yet")

    def failed_before(self, dataflow: str, robot: str, release: str) -> str:
        """Return why a release has failed on a robot; empty if it has not failed there."""
        return self._failed.get((dataflow, robot), {}).get(release, "")

    def rejected(self, dataflow: str) -> frozenset[str]:
        """Return the releases of a dataflow that were undone and not rolled out again since."""
        return rejected_of(head for head in self.heads.values() if head.dataflow == dataflow)

    async def members(self, number: int) -> Mapping[str, Member]:
        """Return the robots of a rollout, in the order of their batches. Raises StoreError."""
        found = self._members.get(number)
        return await self._read_members(number) if found is None else found

    async def _read_members(self, number: int) -> dict[str, Member]:
        found: dict[str, Member] = {}
        for _, members in await read(self._store, f"{PLANS}{number:08}", list[Member]):
            found.update((member.robot, member) for member in members)
        for _, changed in await read(self._store, f"{ROBOTS}{number:08}/", Member):
            found[changed.robot] = changed
        return found

    @property
    def open(self) -> list[Rollout]:
        """The rollouts that are not over, the oldest first."""
        heads = sorted(self.heads.values(), key=lambda head: head.number)
        return [head for head in heads if not head.over]

    def known_members(self, number: int) -> Mapping[str, Member]:
        """Return the robots of a rollout that is in memory."""
        return self._members.get(number, {})

    async def journal(self, number: int, after: int, limit: int) -> list[JournalEntry]:
        """Return entries of a journal. Raises StoreError."""
        prefix = f"{LOGS}{number:08}/"
        found = await self._store.get(prefix, after=f"{prefix}{after:08}", limit=limit)
        return [decoded(self._store, entry, JournalEntry) for entry in found.entries]

    async def begin(
        self,
        rollout: Rollout,
        members: list[Member],
        ended: Iterable[Rollout],
        actor: Mapping[str, Any],
    ) -> Rollout:
        """Store a new rollout, and the end of those that it supersedes, in one transaction.

        Return it with its number. Raises ControlError or StoreError.
        """
        await self._make_room()
        number = max(self.heads, default=0) + 1
        rollout = msgspec.structs.replace(
            rollout, number=number, steps=1, generation_before=self._fleet.next_generation
        )
        ended = list(ended)
        puts = {
            f"{PLANS}{number:08}": msgspec.json.encode(members),
            f"{NEWEST}{rollout.dataflow}": str(number).encode(),
            **_head_puts(rollout, JournalEntry(step=1, at=rollout.created, what="start",
                                               by=rollout.by, reason=rollout.name)),
        }  # fmt: skip
        for head in ended:
            entry = JournalEntry(
                step=head.steps, at=head.since, what="enter superseded", by=rollout.by,
                reason=f"by rollout {number}",
            )  # fmt: skip
            puts |= _head_puts(head, entry)
        revision = await self._fleet.put_orders(
            {},
            {
                **actor,
                "action": "rollout.start",
                "rollout": number,
                "dataflow": rollout.dataflow,
                "name": rollout.name,
                "release": rollout.release,
                "robots": len(members),
                "strategy": msgspec.to_builtins(rollout.strategy),
            },
            puts=puts,
            compares={f"{NEWEST}{rollout.dataflow}": self.version(rollout.dataflow)},
        )
        for head in [*ended, rollout]:
            self.heads[head.number] = head
        self._members[number] = {member.robot: member for member in members}
        self._newest[rollout.dataflow] = (number, revision)
        _log.info("rollout %d: %s to %d robots", number, rollout.name, len(members))
        return rollout

    async def put_act(
        self, rollout: Rollout, act: str, by: str, reason: str, actor: Mapping[str, Any]
    ) -> None:
        """Store what an operator has done to a rollout. Raises ControlError or StoreError."""
        entry = JournalEntry(
            step=rollout.steps, at=time.time(), what=act, by=by, reason=reason or rollout.reason
        )
        audited = {**actor, "action": f"rollout.{act}", "rollout": rollout.number, "reason": reason}
        members = self._members.get(rollout.number)
        if members is None and not rollout.over:
            members = await self._read_members(rollout.number)
        await self._fleet.put_orders({}, audited, puts=_head_puts(rollout, entry))
        self.heads[rollout.number] = rollout
        if members is not None:
            self._members[rollout.number] = members
        _log.info("rollout %d: %s by %s", rollout.number, act, by)

    async def pause_restored(self) -> None:
        """Pause the open rollouts of a store that was restored, once, and ask the operator.

        What has happened after the backup is not known: each may have ended, or been undone.
        Raises ControlError or StoreError.
        """
        restored = self._fleet.restored
        if restored is None or restored.paused:
            return
        async with self._fleet.writer.changing:
            for rollout in self.open:
                if rollout.paused or rollout.is_final:
                    continue
                paused = operate(rollout, (), "pause", "", time.time())
                paused = msgspec.structs.replace(paused, question=RESTORED_QUESTION)
                reason = "the store was restored from a backup"
                await self.put_act(paused, "pause", "coordinator", reason, COORDINATOR)
            done = msgspec.structs.replace(restored, paused=True)
            await self._fleet.put_restored(done, {**COORDINATOR, "action": "store.restored"})

    async def put_over(self, number: int, counts: dict[str, int]) -> None:
        """Store that nothing more happens to a rollout, with its robots by state.

        Raises ControlError or StoreError.
        """
        head = self.heads[number]
        rollout = msgspec.structs.replace(head, over=True, counts=counts, steps=head.steps + 1)
        entry = JournalEntry(step=rollout.steps, at=time.time(), what="end", reason=rollout.phase)
        audited = {**COORDINATOR, "action": "rollout.end", "rollout": number}
        await self._fleet.put_orders({}, audited, puts=_head_puts(rollout, entry))
        self.heads[number] = rollout
        del self._members[number]
        _log.info("rollout %d is over: %s", number, rollout.phase)

    async def put_step(
        self,
        number: int,
        step: Step,
        seen: Mapping[str, ReleaseState],
        *,
        by: str = "",
        actor: Mapping[str, Any] = COORDINATOR,
    ) -> list[str]:
        """Make one step of a rollout, of a part of its robots if they are many.

        `seen` is what robots have reported: to what they have confirmed they go back. `by` has
        reported what the step is made from. Return the robots with new orders. Raises ControlError
        or StoreError.
        """
        before = self._members[number]
        step = _first_part(step, before)
        generation, now = self._fleet.next_generation, time.time()
        rollout, changed = apply(self.heads[number], before, step, generation, now)
        orders: dict[tuple[str, str], Wanted] = {}
        puts: dict[str, bytes] = {}
        failed: dict[tuple[str, str], dict[str, str]] = {}
        for robot, member in changed.items():
            if not before[robot].order and robot in seen:
                # Known only now: the robot may have been unreachable when the rollout was planned.
                way_back, group = before_of(seen[robot], self.rejected(rollout.dataflow))
                member = msgspec.structs.replace(member, before=way_back, before_group=group)
                changed[robot] = member
            puts[f"{ROBOTS}{number:08}/{robot}"] = msgspec.json.encode(member)
            if isinstance(step, Orders):
                rejected = self.rejected(rollout.dataflow)
                orders[robot, rollout.dataflow] = wanted_of(rollout, member, rejected)
            elif member.verdict in ("reverted", "stuck", "failed") and member.order == "switch":
                key = (rollout.dataflow, robot)
                known = [*self._failed.get(key, {}).items()][-MAX_FAILED + 1 :]
                failed[key] = {**dict(known), rollout.release: member.reason or member.verdict}
                puts[f"{FAILED}{rollout.dataflow}/{robot}"] = msgspec.json.encode(failed[key])
        entry = _entry(rollout, step, now)
        entry.by = by
        audited = {
            **actor,
            "action": "rollout.step",
            "rollout": number,
            "what": entry.what,
            "robots": entry.robots,
            **({"reason": entry.reason} if entry.reason else {}),
        }
        await self._fleet.put_orders(orders, audited, puts={**puts, **_head_puts(rollout, entry)})
        self.heads[number] = rollout
        before |= changed
        self._failed |= failed
        _log.info(
            "rollout %d: %s%s%s", number, entry.what,
            f" {', '.join(entry.robots)}" if entry.robots else "",
            f" ({entry.reason})" if entry.reason else "",
        )  # fmt: skip
        return list(changed) if isinstance(step, Orders) else []

    async def _make_room(self) -> None:
        """Remove the oldest rollout that is not in use, if there are too many."""
        if len(self.heads) < MAX_ROLLOUTS:
            return
        used = {number for number, _ in self._newest.values()} | self._fleet.rollouts_in_use
        for number in sorted(self.heads):
            if self.heads[number].is_final and number not in used:
                await self._forget(number)
                return
        raise ControlError("refused", f"{MAX_ROLLOUTS} rollouts are in use", "abort some of them")

    async def _forget(self, number: int) -> None:
        """Remove a rollout: its head last, so that what an interruption leaves is found again."""
        audited = {**COORDINATOR, "action": "rollout.forget", "rollout": number}
        for prefix in (f"{ROBOTS}{number:08}/", f"{LOGS}{number:08}/"):
            while entries := (await self._store.get(prefix, limit=100)).entries:
                await self._fleet.put_orders({}, audited, deletes=[each.key for each in entries])
        last = [f"{PLANS}{number:08}", f"{HEADS}{number:08}"]
        await self._fleet.put_orders({}, audited, deletes=last)
        del self.heads[number]
        self._members.pop(number, None)


def wanted_of(rollout: Rollout, member: Member, rejected: Collection[str]) -> Wanted:
    """Return the desired state of a robot after an order.

    `rejected` are the releases that were undone: the robot may have been off then.
    """
    forward = member.order in ("stage", "switch")
    release = rollout.release if forward else member.before
    group = member.group if forward else member.before_group
    rejects = [
        Rejection(release=each, reason="it was undone", whole=True)
        for each in sorted({*rejected} - {release, rollout.release})[:MAX_REJECTS]
    ]
    if member.order == "back" and rollout.release:
        undone = Rejection(
            release=rollout.release,
            params=member.params,
            reason=rollout.reason,
            group=member.group,
        )
        rejects.append(undone)
    return Wanted(
        generation=member.generation,
        release=release,
        params=member.params if forward else member.before_params,
        enabled=bool(release),
        switch=member.order != "stage",
        rollout=rollout.number,
        allow_lower=rollout.allow_lower or not forward,
        retry=(rollout.retry or not forward) and not member.withdrawn,
        stay=member.order == "recall",
        rejects=rejects,
        soak_time=rollout.strategy.soak_time if forward else 0.0,
        withdraw=member.withdrawn and forward,
        group=group,
        scope=rollout.scope if forward else member.before_scope,
        # What they go back to was committed before.
        committed=group is not None and (member.committed or not forward),
    )


def rejected_of(heads: Iterable[Rollout]) -> frozenset[str]:
    """Return the releases that the newest rollout of each has rejected."""
    newest: dict[str, Rollout] = {}
    for head in sorted(heads, key=lambda each: each.number):
        newest[head.release] = head
    return frozenset(release for release, head in newest.items() if head.rejected)


def before_of(state: ReleaseState, rejected: Collection[str]) -> tuple[str, Group | None]:
    """Return the release to which a robot goes back: the last confirmed one that was not undone.

    And the group in which it ran that.
    """
    if state.confirmed in rejected and state.previous and state.previous not in rejected:
        return state.previous, state.previous_group
    return state.confirmed, state.group


def _first_part(step: Step, members: Mapping[str, Member]) -> Step:
    """Return a step for as many robots as fit into a transaction: no instance is split."""
    match step:
        case Verdicts(judged):
            return Verdicts(judged[:CHUNK])
        case Orders(kind, robots, reason):
            part: list[str] = []
            for unit in units_of(members[robot] for robot in robots).values():
                if part and len(part) + len(unit) > CHUNK:
                    break
                part += [member.robot for member in unit]
            return Orders(kind, tuple(part), reason)
    return step


def _entry(rollout: Rollout, step: Step, now: float) -> JournalEntry:
    entry = JournalEntry(step=rollout.steps, at=now, what="")
    match step:
        case Verdicts(judged):
            kinds = {each.verdict for each in judged}
            entry.what = f"verdict {', '.join(sorted(kinds))}"
            entry.robots = [each.robot for each in judged]
            reasons = [f"`{each.robot}`: {each.reason}" for each in judged if each.reason]
            entry.reason = "; ".join(reasons[:3])
        case Enter(phase, reason):
            entry.what, entry.reason = f"enter {phase}", reason
        case Orders(kind, robots, reason):
            entry.what, entry.reason, entry.robots = f"order {kind}", reason, list(robots)
    return entry


def _head_puts(rollout: Rollout, entry: JournalEntry) -> dict[str, bytes]:
    return {
        f"{HEADS}{rollout.number:08}": msgspec.json.encode(rollout),
        f"{LOGS}{rollout.number:08}/{entry.step:08}": msgspec.json.encode(entry),
    }
