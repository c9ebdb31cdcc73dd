"""A robot in the test's event loop: the agent's own parts, with a real dorad and real nodes."""

from __future__ import annotations

import asyncio
import textwrap
from contextlib import suppress
from pathlib import Path

import psutil

from dorad.agent.assignments.assignments import Assignments
from dorad.agent.assignments.files import Bundle
from dorad.agent.assignments.queries import Contact
from dorad.agent.daemon import Daemon
from dorad.agent.model import Memory
from dorad.agent.store import AssignmentStore
from dorad.control.errors import ControlError
from dorad.control.messages import LinkTls
from dorad.control.messages.releases import HealthRules, ReleaseOrder
from tests.harness.daemon import Daemon as Dorad
from tests.harness.flows import SINK, SOURCE
from tests.harness.waiting import DEADLINE_S, until

NEW_SINK = textwrap.dedent(SINK) + "# changed\n"
QUICK = HealthRules(min_healthy_time=0.5, healthy_deadline=120, confirm_deadline=120, min_rate=0.1)
"""For a release that is to be confirmed, also on a busy machine: a rate that is measured for half a
second, just after a pause, can be twice the usual one."""


async def eventually(holds) -> None:
    """Wait like `until`, three times as long: a switch has many steps."""
    await until(holds, deadline_s=3 * DEADLINE_S)


class Identities:
    """An identity that never changes."""

    version = "one"

    def __init__(self, robot: str, links: LinkTls | None) -> None:
        self.robot = robot
        self.links = links

    def load(self) -> Identities:
        return self


class Library:
    """Releases as plain folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundles: dict[str, Bundle] = {}
        self.scripts: dict[str, dict[str, str]] = {}
        self.here: set[str] = set()
        self.refusal = ""
        self.kept: set[str] = set()
        self.damaged: set[str] = set()

    def add(self, name: str, nodes: list[dict], *, sequence: int = 1, **scripts: str) -> str:
        """Add a release whose nodes run these scripts; return its id."""
        release = f"{len(self.bundles) + 1:064x}"
        place = self.folder / release
        place.mkdir(parents=True)
        for node, source in scripts.items():
            (place / f"{node}.py").write_text(textwrap.dedent(source))
        self.bundles[release] = Bundle(name, sequence, place, {"nodes": nodes}, {})
        self.scripts[release] = scripts
        self.here.add(release)
        return release

    def files(self, release):
        return "staged" if release in self.here else "missing"

    def stage(self, release):
        if self.refusal:
            raise ControlError("refused", self.refusal)

    def bundle(self, release):
        if release in self.damaged:
            raise ControlError("not-found", f"{release} is damaged")
        return self.bundles[release]

    def changed(self, old, new):
        before, after = self.scripts[old], self.scripts[new]
        return {node for node in after if before.get(node) != after[node]}

    def repair(self, releases):
        return dict.fromkeys(self.damaged & releases, "dataflow.yml is damaged or missing")

    def collect(self, keep):
        self.kept = set(keep)


class Robot:
    """An agent without a coordinator. It can be killed, and started again in another boot."""

    def __init__(
        self, folder: Path, dorad: Dorad, name: str = "arm1", links: LinkTls | None = None
    ) -> None:
        self.name = name
        self.links = links
        """The files for links to other robots."""
        self.folder = folder / "agent"
        self.folder.mkdir()
        self.dorad = dorad
        self.library = Library(folder / "releases")
        self.answers = True
        """Whether the coordinator can be reached."""
        self.boot = 1
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self.store = AssignmentStore(self.folder / "shares.db")
        # As after a coordinator has attached.
        self.store.remember(Memory(fleet="fleet", epoch=1))
        self.daemon = Daemon(self.dorad.paths.control, "test agent")
        boot = f"boot-{self.boot}"
        self.assignments = Assignments(
            self.folder,
            self.store,
            self.daemon,
            Identities(self.name, self.links),
            self.library,
            boot,
            Contact(self._answers),
            lambda: None,
        )
        self._tasks = [asyncio.create_task(self.assignments.run())]

    async def _answers(self) -> bool:
        return self.answers

    async def kill(self) -> None:
        """End the agent at once; dorad and the nodes run on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.daemon.close()
        self.store.close()

    async def cut_power(self) -> None:
        """End the agent, dorad and all nodes, and start them in another boot."""
        await self.kill()
        self.dorad.kill()
        while left := self.dorad.processes():
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self.dorad.start()
        self.boot += 1
        self.start()

    def order(self, release, generation, *, dataflow="flow", **more):
        more.setdefault("rules", QUICK)
        more.setdefault("switch", True)
        asked = ReleaseOrder(
            epoch=1, generation=generation, dataflow=dataflow, release=release, **more
        )
        return self.assignments.order_release(asked)

    def state(self, dataflow="flow"):
        return self.assignments.releases[dataflow]

    async def reaches(self, phase, generation=0, dataflow="flow", **fields):
        def holds():
            state = self.assignments.releases.get(dataflow)
            return (
                state is not None
                and state.phase == phase
                and state.generation >= generation
                and all(getattr(state, name) == value for name, value in fields.items())
            )

        try:
            await eventually(holds)
        except AssertionError:
            raise AssertionError(
                f"not {phase}: {self.assignments.releases.get(dataflow)}"
            ) from None
        return self.assignments.releases[dataflow]

    async def pids(self):
        client = await self.daemon.client()
        return {node.node: node.pid for node in (await client.nodes())}


def flow(folder: Path, hz: int = 25, **more) -> list[dict]:
    """Return the nodes of a dataflow that counts."""
    return [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": f"dora/timer/hz/{hz}"},
            "outputs": ["number"],
        },
        {
            "id": "sink",
            "path": "sink.py",
            "inputs": {"number": {"source": "source/number", "queue_size": 1000}},
            "env": {"SEEN": str(folder / "seen")},
            **more,
        },
    ]


__all__ = ["NEW_SINK", "QUICK", "SINK", "SOURCE", "Library", "Robot", "eventually", "flow"]
