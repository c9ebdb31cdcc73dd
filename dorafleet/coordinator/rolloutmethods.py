"""The methods `release.…`, `rollout.…` and `drift.list`."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext
from typing import cast

from dorad.control.errors import ControlError
from dorad.control.messages import FleetRow, Nothing
from dorad.control.session import Call, handles
from dorafleet.coordinator.copies import Copies
from dorafleet.coordinator.drift import Compared, Late, drift_of
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.members import Members
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.releases import Releases
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rolloutdriver import RolloutDriver
from dorafleet.coordinator.rolloutplans import MAX_ROBOTS, RolloutPlans
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.secrets import Secrets
from dorafleet.coordinator.supply import ReleaseSupply
from dorafleet.coordinator.writer import MAX_CLIENT, actor_of
from dorafleet.rollout import messages as r
from dorafleet.rollout.decide import Decision, decide
from dorafleet.rollout.model import Member, Rollout
from dorafleet.rollout.operate import Act, Pace, operate, undo_instances
from dorafleet.rollout.summary import row, summarise

UPDATE_S = 0.5
"""Minimum seconds between two events of `rollout.watch`."""

MAX_ENTRIES = 1000
MAX_REASON = 500
MAX_REFUSAL = 2000


class RolloutMethods:
    """Answers the methods about releases and rollouts."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        releases: Releases,
        rollouts: Rollouts,
        driver: RolloutDriver,
        supply: ReleaseSupply,
        planner: Planner,
        rows: Mapping[str, FleetRow],
        secrets: Secrets,
        members: Members,
        copies: Copies,
    ) -> None:
        """`rows` are those of the robots now."""
        self._fleet = fleet
        self._robots = robots
        self._releases = releases
        self._rollouts = rollouts
        self._driver = driver
        self._supply = supply
        self._rows = rows
        self._secrets = secrets
        self._members = members
        self._copies = copies
        self._plans = RolloutPlans(fleet, robots, releases, rollouts, planner, secrets)

    @handles(r.RELEASE_PUT)
    async def put_release(self, call: Call, params: r.ReleasePut) -> r.ReleaseInfo:
        """Register a release."""
        used = self._fleet.releases_in_use | {head.release for head in self._rollouts.open}
        return await self._releases.put(params, _who(call), actor_of(call), used)

    @handles(r.RELEASE_GET)
    async def get_release(self, _call: Call, params: r.ReleaseRef) -> r.ReleaseContent:
        """Return a release with its manifest and signature."""
        return await self._releases.content(self._releases.find(params.release).id)

    @handles(r.RELEASE_LIST)
    async def list_releases(self, _call: Call, _params: Nothing) -> r.ReleaseList:
        """List the registered releases."""
        return self._releases.all

    @handles(r.ROLLOUT_PLAN)
    async def plan(self, _call: Call, params: r.RolloutNew) -> r.RolloutPlan:
        """Show what a rollout would change, robot by robot."""
        plan = await self._plans.plan(params)
        for robot in plan.robots:
            if robot.batch is not None:
                robot.files = self._supply.way(robot.robot)
        plan.no_files = await self._supply.known_trouble(plan.release.id)
        plan.no_copy = self._copies.without(plan.release.id)
        return plan

    @handles(r.ROLLOUT_START)
    async def start(self, call: Call, params: r.RolloutNew) -> r.RolloutSummary:
        """Start a rollout, if nothing was decided since its plan."""
        if params.if_version is None:
            raise ControlError(
                "bad-request", "`if_version` is missing", "send the `version` of `rollout.plan`"
            )
        info = self._releases.find(params.release)
        manifest = await self._plans.manifest(info)
        async with self._fleet.writer.changing:
            self._plans.check_version(info.name, params.if_version)
            selection = self._plans.select(params, info, manifest)
            self._plans.check_machines(selection, manifest)
            ended = self._plans.superseded(params, info.name, selection)
            rollout = Rollout(
                number=0,
                dataflow=info.name,
                release=info.id,
                name=self._releases.label(info.id),
                strategy=params.strategy,
                size=len(selection.members),
                scope=selection.scope,
                by=_who(call),
                created=time.time(),
                since=time.time(),
                retry=params.retry,
                allow_lower=params.allow_lower,
            )
            new = "a newer rollout"
            over = [operate(head, (), "supersede", new, rollout.created) for head in ended]
            rollout = await self._rollouts.begin(
                rollout, selection.members, over, params, actor_of(call)
            )
        return self._detail(rollout, self._rollouts.known_members(rollout.number)).summary

    @handles(r.ROLLOUT_STATUS)
    async def status(self, _call: Call, params: r.RolloutRef) -> r.RolloutDetail:
        """Return a rollout with its robots."""
        rollout = self._rollouts.find(params.rollout, params.dataflow)
        return self._detail(rollout, await self._rollouts.members(rollout.number))

    @handles(r.ROLLOUT_LIST)
    async def list_all(self, _call: Call, params: r.RolloutRef) -> r.RolloutList:
        """List rollouts, the newest first."""
        heads = sorted(self._rollouts.heads.values(), key=lambda head: -head.number)
        summaries = []
        for head in heads:
            if params.dataflow in (None, head.dataflow) and params.rollout in (None, head.number):
                # Of one that is over, the head says enough.
                members = {} if head.over else self._rollouts.known_members(head.number)
                summaries.append(self._detail(head, members).summary)
        return r.RolloutList(rollouts=summaries)

    @handles(r.ROLLOUT_JOURNAL)
    async def journal(self, _call: Call, params: r.JournalRead) -> r.Journal:
        """Return the steps of a rollout."""
        if not 0 < params.limit <= MAX_ENTRIES or params.after < 0:
            raise ControlError("bad-request", f"`limit` must be from 1 to {MAX_ENTRIES}")
        head = self._rollouts.find(params.rollout)
        entries = await self._rollouts.journal(head.number, params.after, params.limit)
        return r.Journal(entries=entries)

    @handles(r.ROLLOUT_WATCH)
    async def watch(self, _call: Call, params: r.RolloutWatch) -> AsyncIterator[r.RolloutUpdate]:
        """Follow one rollout, or all that are not over: first all, then what changes."""
        if params.rollout is None:
            if params.sends:
                raise ControlError("bad-request", "`sends` needs the number of a rollout")
            async for update in self._updates(params):
                yield update
            return
        self._rollouts.find(params.rollout)
        if len(params.beyond) > MAX_ROBOTS:
            raise ControlError("bad-request", f"`beyond` has at most {MAX_ROBOTS} robots")
        beyond = frozenset(params.beyond)
        sending = self._supply.left_to_client(params.rollout, beyond)
        with sending if params.sends else nullcontext():
            async for update in self._updates(params):
                yield update

    async def _updates(self, params: r.RolloutWatch) -> AsyncIterator[r.RolloutUpdate]:
        shown: dict[int, r.RolloutSummary] = {}
        rows: dict[tuple[int, str], r.RolloutRobot] = {}
        first = True
        while True:
            update = r.RolloutUpdate(rollouts=[])
            for detail in await self._watched(params.rollout, shown):
                number = detail.summary.rollout
                if shown.get(number) != detail.summary:
                    shown[number] = detail.summary
                    update.rollouts.append(detail.summary)
                for each in detail.robots if params.robots else ():
                    if rows.get((number, each.robot)) != each:
                        rows[number, each.robot] = each
                        update.robots.append(each)
            for number in [n for n, each in shown.items() if each.over and n != params.rollout]:
                del shown[number]
                rows = {key: each for key, each in rows.items() if key[0] != number}
            if first or update.rollouts or update.robots:
                first = False
                yield update
            await asyncio.sleep(UPDATE_S)
            await self._fleet.bell.wait(UPDATE_S)

    async def _watched(
        self, number: int | None, shown: Mapping[int, r.RolloutSummary]
    ) -> list[r.RolloutDetail]:
        """Return the rollouts to look at: one, or those that are not over, or were not before."""
        heads = self._rollouts.open if number is None else [self._rollouts.find(number)]
        numbers = {head.number for head in heads} | {*shown}
        summaries = []
        for each in sorted(numbers & self._rollouts.heads.keys()):
            head = self._rollouts.heads[each]
            known = shown.get(each)
            if known is None or not (head.over and known.over):
                summaries.append(self._detail(head, await self._rollouts.members(each)))
        return summaries

    @handles(r.ROLLOUT_PAUSE)
    @handles(r.ROLLOUT_RESUME)
    @handles(r.ROLLOUT_PROMOTE)
    @handles(r.ROLLOUT_ABORT)
    @handles(r.ROLLOUT_UNDO)
    async def act(self, call: Call, params: r.RolloutAct) -> r.RolloutSummary:
        """Pause, resume, promote, abort or undo a rollout, as the name of the method says."""
        act = cast("Act", call.method.removeprefix("rollout."))
        if len(params.reason) > MAX_REASON:
            raise ControlError("bad-request", f"a reason has at most {MAX_REASON} characters")
        async with self._fleet.writer.changing:
            head = self._rollouts.find(params.rollout)
            members = await self._rollouts.members(head.number)
            if act != "undo" and (params.max_parallel is not None or params.all_at_once):
                raise ControlError("bad-request", "only an undo has a pace")
            if act == "undo":
                self._plans.check_newest(head)
            by, pace = _who(call), _pace(params)
            changed: dict[str, Member] = {}
            if params.instances:
                if act != "undo" or pace is not None:
                    raise ControlError(
                        "bad-request", "instances can only be undone, at the pace of their rollout"
                    )
                after, changed = undo_instances(head, members.values(), params.instances, by)
            else:
                after = operate(head, members.values(), act, by, time.time(), pace)
            await self._rollouts.put_act(after, act, by, params.reason, actor_of(call), changed)
        return self._detail(after, await self._rollouts.members(after.number)).summary

    @handles(r.ROLLOUT_REFUSE)
    async def refuse(self, call: Call, params: r.RolloutRefusal) -> r.RolloutSummary:
        """Take the refusal of a robot that the sender of its files received."""
        if not 0 < len(params.reason) <= MAX_REFUSAL:
            raise ControlError("bad-request", f"a reason has 1 to {MAX_REFUSAL} characters")
        await self._driver.refuse(
            params.rollout, params.robot, params.reason, _who(call), actor_of(call)
        )
        head = self._rollouts.find(params.rollout)
        return self._detail(head, await self._rollouts.members(head.number)).summary

    @handles(r.DRIFT_LIST)
    async def drift(self, _call: Call, _params: Nothing) -> r.DriftList:
        """List the differences between robots and their desired state."""
        rows = await self._members.drift()
        robots = self._robots.all
        rows += [
            row for robot in robots for row in drift_of(self._compared(robot), self._releases.label)
        ]
        return r.DriftList(rows=rows, robots=len(robots))

    def _detail(self, rollout: Rollout, members: Mapping[str, Member]) -> r.RolloutDetail:
        view = self._driver.view(rollout, members)
        decision = Decision() if rollout.over else decide(view)
        number = rollout.number
        rows = [
            row(view, each, decision.waiting.get(each.robot), self._supply.text(number, id_))
            for id_, each in view.members.items()
        ]
        summary = summarise(view, decision, rows)
        summary.over = rollout.over
        if rollout.over:
            summary.counts = rollout.counts
        return r.RolloutDetail(summary=summary, strategy=rollout.strategy, robots=rows)

    def _compared(self, robot: Robot) -> Compared:
        return Compared(
            robot=robot.id,
            reachable=robot.client is not None,
            trouble=robot.trouble,
            orders=self._fleet.orders(robot.id),
            releases={each.dataflow: each for each in robot.known_releases},
            late=self._late(robot.id),
            wanted=self._fleet.wanted(robot.id),
            shares={each.dataflow: each for each in robot.known_shares},
            conflicts=robot.conflicts,
            strange=robot.strange,
            stopped=self._rows[robot.id].stopped if robot.id in self._rows else (),
            findings=self._rows[robot.id].findings if robot.id in self._rows else (),
            secrets=tuple(self._secrets.differences(robot)),
            version="" if robot.attached is None else robot.attached.version,
            open_rollouts=frozenset(head.number for head in self._rollouts.open),
        )

    def _late(self, robot: str) -> dict[str, Late]:
        """Return the rollouts that have settled without this robot, by dataflow."""
        late = {}
        for head in self._rollouts.open:
            member = self._rollouts.known_members(head.number).get(robot)
            if head.phase in ("soaking", "settled") and member is not None and not member.verdict:
                text = self._supply.text(head.number, robot)
                late[head.dataflow] = Late(head.number, head.release, text)
        return late


def _pace(params: r.RolloutAct) -> Pace | None:
    """Return how fast an undo goes, None if as its rollout."""
    if params.max_parallel is not None and params.all_at_once:
        raise ControlError("bad-request", "`max_parallel` does not go with `all_at_once`")
    if params.max_parallel is None and not params.all_at_once:
        return None
    return Pace(params.max_parallel, params.all_at_once)


def _who(call: Call) -> str:
    """Return who calls, for people."""
    return (call.peer.name or call.client)[:MAX_CLIENT]
