"""A release over two robots with a real dorad each, linked over TLS: they change as one."""

import uuid
from textwrap import dedent

import psutil
import pytest

from dorad.agent.assignments import releases, runs
from dorad.control.messages import LinkTls, Share
from dorad.control.messages.releases import Group
from dorad.control.tls import Identity
from dorafleet.ca.authority import open_authority
from tests.agent.assignments.robot import SINK, SOURCE, Robot, eventually, flow
from tests.harness.daemon import daemon
from tests.harness.flows import seen
from tests.harness.ports import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

PLACEMENT = {"source": "arm1", "sink": "arm2", "extra": "arm2"}
COUNTS = dedent("""
    from dora import Node

    for event in Node():
        pass
""")


class Cell:
    """Robots `arm1` and `arm2`, which run one dataflow; the test is their coordinator."""

    def __init__(self, folder, daemons) -> None:
        self.folder = folder
        self.uuid = str(uuid.uuid4())
        self.port = free_port()
        authority = open_authority(folder / "ca")
        self.robots = {}
        for name, dorad in zip(("arm1", "arm2"), daemons, strict=True):
            home = folder / name
            home.mkdir()
            pair = authority.issue_pair(Identity("robot", name))
            files = {"ca": authority.certificate, "chain": pair.issued.chain, "key": pair.key}
            for file, text in files.items():
                (home / file).write_text(text)
            links = LinkTls(*(str(home / file) for file in ("ca", "chain", "key")))
            self.robots[name] = Robot(home, dorad, name, links)

    def group(self, name, placement=PLACEMENT):
        """Return the part of a robot: arm1 listens, arm2 connects."""
        address = [f"tls/127.0.0.1:{self.port}"]
        ends = (
            {"listen": address} if name == "arm1" else {"connect": address, "connect_to": ["arm1"]}
        )
        return Group("cell1", self.uuid, Share(name, placement, **ends))

    def add(self, sequence, **changed):
        """Make a release on both robots; return its id."""
        nodes = [
            *flow(self.folder),
            {"id": "extra", "path": "extra.py", "inputs": {"number": "source/number"}},
        ]
        scripts = {"source": SOURCE, "sink": SINK, "extra": COUNTS} | changed
        (release,) = {
            robot.library.add("flow", nodes, sequence=sequence, **scripts)
            for robot in self.robots.values()
        }
        return release

    def order(self, release, generation, **more):
        """Order it on both robots."""
        for name, robot in self.robots.items():
            robot.order(release, generation, group=self.group(name), **more)

    async def reach(self, phase, generation, **fields):
        for robot in self.robots.values():
            await robot.reaches(phase, generation, **fields)

    async def commit(self, release, generation):
        """Let both robots try a release, and confirm it."""
        self.order(release, generation)
        await self.reach("probation", generation, healthy=True)
        self.order(release, generation, committed=True)
        await self.reach("confirmed", generation, running=release)

    async def grows(self):
        """Wait until more messages have crossed the link."""
        before = len(seen(self.folder))
        await eventually(lambda: len(seen(self.folder)) > before + 10)

    async def pids(self):
        found = {}
        for robot in self.robots.values():
            found |= await robot.pids()
        return found

    def kept_all(self):
        """Return True if the sink has got each number once, in their order."""
        numbers = seen(self.folder)
        return numbers == list(range(len(numbers)))


@pytest.fixture
async def cell(folder, monkeypatch):
    for name in ("CALM_EVERY_S", "SWITCH_EVERY_S", "WAITING_EVERY_S"):
        monkeypatch.setattr(releases, name, 0.1)
    with daemon() as one, daemon() as two:
        made = Cell(folder, (one, two))
        for robot in made.robots.values():
            robot.start()
        yield made
        for robot in made.robots.values():
            robot.order(None, 1000)
        for robot in made.robots.values():
            await eventually(lambda robot=robot: not robot.assignments.releases)
            await robot.kill()


async def test_both_switch_vote_and_confirm_and_a_kept_edge_loses_nothing(cell):
    first = cell.add(1)
    cell.order(first, 1)
    await cell.reach(
        "probation", 1, healthy=True, reason="it waits for the other machines of cell1"
    )
    await cell.grows()
    assert {robot.state().confirmed for robot in cell.robots.values()} == {""}
    cell.order(first, 1, committed=True)
    await cell.reach("confirmed", 1, running=first)
    arm1, arm2 = (robot.store.releases["flow"] for robot in cell.robots.values())
    assert (arm1.baseline.nodes, sorted(arm2.baseline.nodes)) == (["source"], ["extra", "sink"])
    assert cell.kept_all()
    before = await cell.pids()
    second = cell.add(2, extra=COUNTS + "# changed\n")
    await cell.commit(second, 2)
    after = await cell.pids()
    assert [name for name in before if before[name] != after[name]] == ["extra"]
    restarted = [robot.state().restarted for robot in cell.robots.values()]
    assert restarted == [[], ["extra"]]
    await cell.grows()
    assert cell.kept_all()


async def test_a_machine_that_fails_goes_back_alone_and_the_other_one_by_an_abort(cell):
    first = cell.add(1)
    await cell.commit(first, 1)
    before = await cell.pids()
    second = cell.add(2, extra=COUNTS + "# changed\n")
    cell.order(second, 2)
    await cell.reach("probation", 2, healthy=True)
    pids = await cell.pids()
    psutil.Process(pids["extra"]).kill()
    arm1, arm2 = cell.robots.values()
    state = await arm2.reaches("reverted", 2, running=first)
    assert "node extra has failed" in state.reason
    assert (arm1.state().phase, arm1.state().healthy) == ("probation", True)
    cell.order(first, 3)
    await cell.reach("confirmed", 3, running=first, reason="")
    assert (arm1.store.releases["flow"].failed, len(arm2.store.releases["flow"].failed)) == ([], 1)
    after = await cell.pids()
    assert [name for name in before if before[name] != after[name]] == ["extra"]
    await cell.grows()
    assert cell.kept_all()


async def test_a_node_moves_to_the_other_machine_and_back_with_its_share(cell):
    first = cell.add(1)
    await cell.commit(first, 1)
    moved = PLACEMENT | {"extra": "arm1"}
    for name, robot in cell.robots.items():
        robot.order(first, 2, group=cell.group(name, moved))
    await cell.reach("probation", 2, healthy=True)
    arm1, arm2 = cell.robots.values()
    assert (sorted(await arm1.pids()), sorted(await arm2.pids())) == (
        ["dora.link", "extra", "source"], ["dora.link", "sink"],
    )  # fmt: skip
    assert (arm1.state().restarted, arm2.state().restarted) == (["extra"], [])
    cell.order(first, 3)
    await cell.reach("confirmed", 3, reason="")
    assert sorted(await arm2.pids()) == ["dora.link", "extra", "sink"]
    await cell.grows()
    assert cell.kept_all()


async def test_a_release_that_ran_alone_continues_over_two_machines_and_comes_back(cell):
    arm1, arm2 = cell.robots.values()
    first = cell.add(1)
    arm1.order(first, 1)
    await arm1.reaches("confirmed", 1)
    own = arm1.store.releases["flow"].uuid
    assert [each.uuid for each in await (await arm1.daemon.client()).list()] == [own]
    cell.order(first, 2)
    await cell.reach("probation", 2, healthy=True)
    assert {each.uuid for each in await (await arm1.daemon.client()).list() if each.active} == {
        cell.uuid
    }
    arm1.order(first, 3)
    arm2.order(None, 3)
    await arm1.reaches("confirmed", 3, running=first)
    await eventually(lambda: not arm2.assignments.releases)
    assert {each.uuid for each in await (await arm1.daemon.client()).list() if each.active} == {own}
    assert sorted(await arm1.pids()) == ["extra", "sink", "source"]


async def test_after_a_power_cut_a_machine_starts_without_the_other_one_and_says_so(
    cell, monkeypatch, caplog
):
    first = cell.add(1)
    await cell.commit(first, 1)
    arm1, arm2 = cell.robots.values()
    monkeypatch.setattr(runs, "BARRIER_S", 3.0)
    await arm1.kill()
    arm1.dorad.kill()
    for process in arm1.dorad.processes():
        process.kill()
    await arm2.cut_power()
    await arm2.reaches("confirmed", 1)
    await eventually(lambda: "without a link to `arm1`: " in arm2.state().reason)
    assert "started flow without a link to `arm1`: " in caplog.text
    before = len(seen(cell.folder))
    arm1.dorad.start()
    arm1.boot += 1
    arm1.start()
    await eventually(lambda: len(seen(cell.folder)) > before + 10)
    await cell.reach("confirmed", 1, reason="")
    assert arm2.state().failed == {}
