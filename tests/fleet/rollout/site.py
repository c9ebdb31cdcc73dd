"""A leader with robots that obey orders about releases, and an operator who rolls out to them."""

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dorad.control.messages.releases import HealthRules
from dorad.release.manifest import File, Manifest, NodeContent, Target, encode, id_of
from dorafleet.coordinator.supply import Supply
from dorafleet.inventory.model import Machine
from dorafleet.rollout import messages as r
from dorafleet.rollout.strategy import Strategy
from dorafleet.store.model import Store
from tests.fleet.control.agents import FakeAgent
from tests.fleet.control.serving import DEADLINE_S, Fleet, leading
from tests.release.samples import sign


def manifest(sequence: int, name: str = "pick", arch: str = "x86_64", **nodes: str) -> Manifest:
    """Return a release; its nodes have this content."""
    nodes = nodes or {"camera": "1", "grip": str(sequence)}
    files = [_file("dataflow.yml", " ".join(nodes))]
    files += [_file(f"{node}.py", content) for node, content in nodes.items()]
    return Manifest(
        format=1,
        name=name,
        sequence=sequence,
        created=1_800_000_000,
        min_dorad="0.1.0",
        entry="dataflow.yml",
        targets=[Target(arch)],
        files=files,
        packages=[],
        environments=[],
        nodes={
            node: NodeContent(hashlib.sha256(content.encode()).hexdigest(), python=False)
            for node, content in nodes.items()
        },
    )


def _file(path: str, content: str) -> File:
    return File(path, hashlib.sha256(content.encode()).hexdigest(), len(content), executable=False)


def put(found: Manifest) -> r.ReleasePut:
    content = encode(found)
    return r.ReleasePut(content=zlib.compress(content), signature=sign(content).decode())


ONE, TWO, THREE = manifest(1), manifest(2), manifest(3)
ID1, ID2, ID3 = (id_of(encode(each)) for each in (ONE, TWO, THREE))

RULES = HealthRules(min_healthy_time=0.1, healthy_deadline=60, confirm_deadline=60)


def strategy(**keys: Any) -> Strategy:
    """Return a strategy whose deadlines a slow machine keeps, unless others are given."""
    return Strategy(**{"rules": RULES, "progress_deadline": 60.0, "soak_time": 0.0, **keys})


class Site:
    """The operator's view: methods of the protocol, and agents by their robots."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.control = fleet.control
        self.agents: dict[str, FakeAgent] = fleet.agents

    async def connect(self, *robots: str) -> None:
        for robot in robots:
            await self.fleet.agent(robot)

    async def register(self, *manifests: Manifest) -> None:
        for each in manifests or (ONE, TWO, THREE):
            await self.fleet.call("release.put", put(each))

    async def runs(self, release: str, sequence: int = 1) -> None:
        """Let all robots have confirmed a release, and wait until the leader knows."""
        for agent in self.agents.values():
            agent.releases.runs("pick", release, sequence)
        known = [self.control.robots.get(robot) for robot in self.agents]
        await self.fleet.until(lambda: all("pick" in robot.releases for robot in known))

    async def plan(self, release: str = "pick@1", **keys: Any) -> r.RolloutPlan:
        found = await self.fleet.call("rollout.plan", self.new(release, **keys))
        assert isinstance(found, r.RolloutPlan)
        return found

    def new(self, release: str, **keys: Any) -> r.RolloutNew:
        keys = {"strategy": strategy(), **keys}
        return r.RolloutNew(release=release, **keys)

    async def start(self, release: str = "pick@1", **keys: Any) -> int:
        """Plan and start; return the number."""
        plan = await self.plan(release, **keys)
        new = self.new(release, if_version=plan.version, **keys)
        summary = await self.fleet.call("rollout.start", new)
        assert isinstance(summary, r.RolloutSummary)
        return summary.rollout

    async def status(self, number: int | None = None) -> r.RolloutDetail:
        found = await self.fleet.call("rollout.status", r.RolloutRef(rollout=number))
        assert isinstance(found, r.RolloutDetail)
        return found

    async def act(self, act: str, number: int, reason: str = "") -> r.RolloutSummary:
        params = r.RolloutAct(rollout=number, reason=reason)
        found = await self.fleet.call(f"rollout.{act}", params)
        assert isinstance(found, r.RolloutSummary)
        return found

    async def until(self, number: int, *phases: str, over: bool = False) -> r.RolloutDetail:
        """Wait until a rollout is in one of these phases."""
        head = self.control.rollouts.heads

        def reached() -> bool:
            return head[number].phase in phases and (not over or head[number].over)

        if not await self.control.fleet.bell.until(reached, DEADLINE_S):
            detail = await self.status(number)
            raise AssertionError(f"{phases} not reached: {detail.summary} {detail.robots}")
        return await self.status(number)

    async def _until_rows(
        self, number: int, holds: Callable[[dict[str, r.RolloutRobot]], bool]
    ) -> r.RolloutDetail:
        """Wait until a condition holds of the rows of robots, by their ids."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                detail = await self.status(number)
                if holds({row.robot: row for row in detail.robots}):
                    return detail
                await self.control.fleet.bell.wait(0.2)

    async def until_state(self, number: int, **states: str) -> r.RolloutDetail:
        """Wait until robots are in these states."""
        return await self._until_rows(
            number, lambda rows: all(rows[each].state == s for each, s in states.items())
        )

    async def until_waiting(self, number: int, **gates: str) -> r.RolloutDetail:
        """Wait until robots wait for these gates."""
        return await self._until_rows(
            number, lambda rows: all(rows[each].waiting == gate for each, gate in gates.items())
        )

    async def until_reason(self, number: int, robot: str, words: str) -> r.RolloutRobot:
        """Wait until the row of a robot says these words."""
        detail = await self._until_rows(number, lambda rows: words in rows[robot].reason)
        return next(row for row in detail.robots if row.robot == robot)

    def running(self, dataflow: str = "pick") -> dict[str, str]:
        return {
            robot: state.running if (state := agent.releases.states.get(dataflow)) else ""
            for robot, agent in self.agents.items()
        }

    def switches(self) -> dict[str, list[str]]:
        return {robot: agent.releases.switches for robot, agent in self.agents.items()}

    async def journal(self, number: int) -> list[str]:
        found = await self.fleet.call("rollout.journal", r.JournalRead(rollout=number))
        assert isinstance(found, r.Journal)
        return [f"{e.what} {' '.join(sorted(e.robots))}".strip() for e in found.entries]


def machines(
    number: int, labels: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[Machine, ...]:
    """Return robots r1, r2, ... with labels."""
    return tuple(
        Machine(
            f"r{each}",
            f"10.0.0.{each}",
            labels=(labels or {}).get(f"r{each}", {}),
            zenoh_addr=ip_address(f"10.0.0.{each}"),
        )
        for each in range(1, number + 1)
    )


@asynccontextmanager
async def site(
    folder: Path,
    robots: int = 3,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    *,
    connect: bool = True,
    register: bool = True,
    store: Store | None = None,
    supply: Supply | None = None,
    port: int = 0,
) -> AsyncIterator[Site]:
    """Lead a fleet of robots, all connected, with three releases registered."""
    fleet_of = leading(folder, machines(robots, labels), store=store, supply=supply, port=port)
    async with fleet_of as fleet:
        found = Site(fleet)
        if register:
            await found.register()
        if connect:
            await found.connect(*(machine.id for machine in machines(robots)))
        yield found
