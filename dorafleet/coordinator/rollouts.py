"""The rollouts: in memory, and in the store with every step, which is their journal.

A rollout is in the store under `rollout/<number>` (its head), `rollout-plan/<number>` (its robots
at the start), `rollout-robot/<number>/<robot>` (each robot after its last step), and
`rollout-log/<number>/<step>`. A step changes head, robots, log and desired states in one
transaction, so that the next coordinator continues from there.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages.releases import Group, ReleaseState
from dorafleet.coordinator.deployments import with_act, with_rollout
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.records import RobotAssignment
from dorafleet.coordinator.rolloutorders import before_of, rejected_of, wanted_of
from dorafleet.coordinator.storerecords import damaged, decoded, read
from dorafleet.coordinator.writer import COORDINATOR
from dorafleet.rollout.messages import JournalEntry, RolloutNew
from dorafleet.rollout.model import BACK, FINAL, Member, Rollout, units_of
from dorafleet.rollout.operate import operate
from dorafleet.rollout.steps import Enter, Orders, Step, Verdicts, apply
from dorafleet.rollout.strategy import broken
from dorafleet.store.model import Store

HEADS = "rollout/"
PLANS = "rollout-plan/"
ROBOTS = "rollout-robot/"
LOGS = "rollout-log/"
FAILED = "rollout-failed/"
"""By dataflow and robot: the releases that have failed there."""

CHUNK = 30
"""Robots in one transaction; each has up to three keys."""

MAX_ROLLOUTS = 200

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
        self._failed: dict[tuple[str, str], dict[str, str]] = {}

    async def load(self) -> None:
        """Read everything but the robots of rollouts that have ended. Raises StoreError."""
        self.heads = {}
        for entry, head in await read(self._store, HEADS, Rollout):
            if entry.key != f"{HEADS}{head.number:08}":
                raise damaged(self._store, entry, f"it describes rollout {head.number}")
            for wrong in broken(head.strategy):
                raise damaged(self._store, entry, str(wrong))
            self.heads[head.number] = head
        self._failed = {}
        for entry, failed in await read(self._store, FAILED, dict[str, str]):
            dataflow, _, robot = entry.key.removeprefix(FAILED).partition("/")
            self._failed[dataflow, robot] = failed
        self._members = {}
        for number, head in self.heads.items():
            if not head.over:
                self._members[number] = await self._read_members(number)
        _log.debug("%d rollouts", len(self.heads))

    def newest(self, dataflow: str | None = None) -> Rollout | None:
        """Return the newest rollout of a dataflow, or of all."""
        heads = [head for head in self.heads.values() if dataflow in (None, head.dataflow)]
        return max(heads, key=lambda head: head.number, default=None)

    def find(self, number: int | None, dataflow: str | None = None) -> Rollout:
        """Return a rollout by its number, else the newest. Raises ControlError."""
        head = self.newest(dataflow) if number is None else self.heads.get(number)
        if head is not None:
            return head
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

    def failed_keys(self, robot: str) -> list[str]:
        """Return the keys of what is stored about releases that have failed on a robot."""
        return [f"{FAILED}{dataflow}/{each}" for dataflow, each in self._failed if each == robot]

    def forget_robot(self, robot: str) -> None:
        """Forget what has failed on a robot, after its keys were deleted."""
        self._failed = {key: releases for key, releases in self._failed.items() if key[1] != robot}

    def rejected(self, dataflow: str) -> frozenset[str]:
        """Return the releases of a dataflow that were undone and not rolled out again since."""
        return rejected_of(head for head in self.heads.values() if head.dataflow == dataflow)

    async def members(self, number: int) -> Mapping[str, Member]:
        """Return the robots of a rollout, in the order of their batches. Raises StoreError."""
        known = self._members.get(number)
        return await self._read_members(number) if known is None else known

    async def _read_members(self, number: int) -> dict[str, Member]:
        by_robot: dict[str, Member] = {}
        for _, members in await read(self._store, f"{PLANS}{number:08}", list[Member]):
            by_robot.update((member.robot, member) for member in members)
        for _, changed in await read(self._store, f"{ROBOTS}{number:08}/", Member):
            by_robot[changed.robot] = changed
        return by_robot

    @property
    def open(self) -> list[Rollout]:
        """The rollouts that are not over, the oldest first."""
        heads = sorted(self.heads.values(), key=lambda head: head.number)
        return [head for head in heads if not head.over]

    def unfinished(self, dataflow: str) -> Rollout | None:
        """Return a rollout of a dataflow that may still give orders, None if there is none."""
        heads = (head for head in self.open if head.dataflow == dataflow and not head.is_final)
        return next(heads, None)

    def planned(self, robot: str) -> Iterator[tuple[str, str, Group | None]]:
        """Yield what open rollouts may bring to a robot, or back to it: the dataflow, its release,
        and the machines that run it together.
        """
        for head in self.open:
            member = self._members.get(head.number, {}).get(robot)
            if member is None:
                continue
            if head.phase not in FINAL | BACK and not head.rejected and not member.undone:
                yield head.dataflow, head.release, member.group
            if member.before and not head.is_final:
                yield head.dataflow, member.before, member.before_group

    def known_members(self, number: int) -> Mapping[str, Member]:
        """Return the robots of a rollout that is in memory."""
        return self._members.get(number, {})

    async def journal(self, number: int, after: int, limit: int) -> list[JournalEntry]:
        """Return entries of a journal. Raises StoreError."""
        prefix = f"{LOGS}{number:08}/"
        page = await self._store.get(prefix, after=f"{prefix}{after:08}", limit=limit)
        return [decoded(self._store, entry, JournalEntry) for entry in page.entries]

    async def begin(
        self,
        rollout: Rollout,
        members: list[Member],
        ended: Iterable[Rollout],
        new: RolloutNew,
        actor: Mapping[str, Any],
    ) -> Rollout:
        """Store a new rollout, and the end of those that it supersedes, in one transaction.

        Its deployment gets what was asked for by `new`. Return it with its number.

        Raises:
            ControlError: there are too many, or another coordinator leads now.
            StoreError: the deployment was changed meanwhile, or the store cannot be written.
        """
        await self._make_room()
        number = max(self.heads, default=0) + 1
        rollout = msgspec.structs.replace(
            rollout, number=number, steps=1, generation_before=self._fleet.next_generation
        )
        ended = list(ended)
        puts = {
            f"{PLANS}{number:08}": msgspec.json.encode(members),
            **_head_puts(rollout, JournalEntry(step=1, at=rollout.created, what="start",
                                               by=rollout.by, reason=rollout.name)),
        }  # fmt: skip
        for head in ended:
            entry = JournalEntry(
                step=head.steps, at=head.since, what="enter superseded", by=rollout.by,
                reason=f"by rollout {number}",
            )  # fmt: skip
            puts |= _head_puts(head, entry)
        before = self._fleet.deployments.get(rollout.dataflow)
        await self._fleet.put_orders(
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
            deployment=with_rollout(before, rollout, new.robots, new.labels, new.params),
            puts=puts,
        )
        for head in [*ended, rollout]:
            self.heads[head.number] = head
        self._members[number] = {member.robot: member for member in members}
        _log.info("rollout %d: %s to %d robots", number, rollout.name, len(members))
        return rollout

    async def put_act(
        self,
        rollout: Rollout,
        act: str,
        by: str,
        reason: str,
        actor: Mapping[str, Any],
        changed: Mapping[str, Member] = MappingProxyType({}),
    ) -> None:
        """Store what an operator has done to a rollout, and to the robots of some instances.

        Raises ControlError or StoreError.
        """
        entry = JournalEntry(
            step=rollout.steps,
            at=time.time(),
            what=act,
            by=by,
            reason=reason or ("" if changed else rollout.reason),
            robots=list(changed),
        )
        audited = {**actor, "action": f"rollout.{act}", "rollout": rollout.number, "reason": reason}
        instances = list(dict.fromkeys(member.unit for member in changed.values()))
        if instances:
            audited["instances"] = instances
        members = self._members.get(rollout.number)
        if members is None and not rollout.over:
            members = await self._read_members(rollout.number)
        deployment = self._fleet.deployments.get(rollout.dataflow) if act == "undo" else None
        if deployment is not None:
            deployment = with_act(deployment, rollout, "rollout.undo", by, entry.at, instances)
        number = rollout.number
        puts = {
            f"{ROBOTS}{number:08}/{robot}": msgspec.json.encode(each)
            for robot, each in changed.items()
        }
        await self._fleet.put_orders(
            {}, audited, deployment=deployment, puts={**puts, **_head_puts(rollout, entry)}
        )
        self.heads[rollout.number] = rollout
        if members is not None:
            self._members[rollout.number] = {**members, **changed}
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
    ) -> None:
        """Make one step of a rollout, of a part of its robots if they are many.

        `seen` is what robots have reported: to what they have confirmed they go back. `by` has
        reported what the step is made from. Raises ControlError or StoreError.
        """
        before = self._members[number]
        step = _first_part(step, before)
        generation, now = self._fleet.next_generation, time.time()
        rollout, changed = apply(self.heads[number], before, step, generation, now)
        orders: dict[tuple[str, str], RobotAssignment] = {}
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

    async def _make_room(self) -> None:
        """Remove the oldest rollout that is not in use, if there are too many."""
        if len(self.heads) < MAX_ROLLOUTS:
            return
        used = {each.rollout for each in self._fleet.deployments.values()}
        used |= self._fleet.rollouts_in_use
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
