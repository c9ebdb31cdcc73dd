"""Make the pictures of docs/console.md: `python -m hwtests.console.pictures [FOLDER]`.

The console runs against a server with made-up robots, so that each run gives the same screens.
"""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from dorad.control import messages as m
from dorad.logrecord import LogRecord
from dorafleet.console.options import ConsoleOptions
from dorafleet.console.widgets.confirm import Choose
from dorafleet.rollout.messages import ReleaseInfo
from hwtests.console import svg
from tests.console.driving import Driven, console
from tests.console.fakefleet import FakeFleet, edge, node

DOCS = Path(__file__).parents[2] / "docs"


def fleet() -> FakeFleet:
    """Return a fleet with some trouble."""
    made = FakeFleet(60)
    made.fail("arm017", seconds=11_530)
    for number in range(20, 27):
        finding = m.Finding(
            cause="input-broken",
            subject="pick/camera/image",
            text="camera/image is silent: input planner/image is broken",
            severity="warn",
            since=time.time() - 7_510,
            dataflow="pick",
            node="camera",
        )
        made.put(
            f"arm{number:03}",
            state="warn",
            why=finding.text,
            since=finding.since,
            findings=[finding],
            drops=4.1,
        )
    made.put(
        "arm031",
        state="unreach",
        why="no contact, was well",
        known=False,
        since=time.time() - 36_610,
        seen_at=time.time() - 36_610,
    )
    made.judge()
    made.judge(3.0)
    (folded,) = [each for each in made.book.alerts() if each.count > 1]
    made.book.ack(folded.id, "ana", time.time())
    robot = "arm017"
    names = ("camera", "slam", "tracker", "planner", "gripper", "control", "logger")
    made.nodes = 0
    made.edges = [
        edge(robot, "camera/image", "slam/image", rate=29.9, latency=0.004, bandwidth=27.6e6),
        edge(robot, "camera/image", "tracker/image", rate=29.9, latency=0.003, bandwidth=27.6e6),
        edge(robot, "tracker/boxes", "planner/boxes", rate=29.8, latency=0.0004),
        edge(robot, "slam/pose", "planner/pose", rate=10.0, latency=0.0003),
        edge(robot, "gripper/state", "planner/gripper", rate=0.0, latency=None, broken=True),
        edge(
            robot,
            "planner/path",
            "control/path",
            rate=50.0,
            drop_rate=4.1,
            dropped=9120,
            queue_size=1,
            queued=1,
            latency=0.0121,
            jitter=0.0033,
            bandwidth=1.2e6,
        ),
        edge(robot, "planner/path", "logger/path", rate=50.0, latency=0.0006, bandwidth=1.2e6),
        edge(robot, "control/state", "planner/state", rate=50.0, latency=0.0002),
    ]
    status = {"gripper": "failed", "planner": "degraded"}
    found = [
        node(
            robot,
            name,
            status=status.get(name, "running"),
            pid=None if name == "gripper" else 2000 + at,
            restarts=5 if name == "gripper" else 0,
            metrics=m.NodeMetrics(cpu=3.5 * at, memory=40_000_000 + 7_000_000 * at),
        )
        for at, name in enumerate(names)
    ]
    top = m.Top(at=time.time(), window=3.0, nodes=found, edges=made.edges)
    made.top = lambda: top
    texts = ("grasp 41 planned", "grasp 41 closed", "force sensor: 12.1 N", "grasp 42 planned")
    made.lines = [
        LogRecord(
            timestamp=time.time() - 60 + at,
            level="warn" if at % 9 == 5 else "info",
            node=names[at % len(names)],
            message=texts[at % len(texts)],
            machine=robot,
        )
        for at in range(40)
    ]
    wave = [(math.sin(at / 8), math.cos(at / 13) / 2) for at in range(200)]
    made.messages = [("camera/image", pa.array(list(pair)), {}) for pair in wave]
    made.params = {"arm017/pick": list(PARAMS)}
    swings: list[float | None] = [
        round(50 + 40 * math.sin(at / 3), 1) for at in range(m.ROBOT_POINTS)
    ]
    for at, name in enumerate(made.rows):
        own = swings[at % 19 :] + swings[: at % 19]
        if name != "arm031":
            late = [None if each is None else each / 1e3 for each in own]
            made.robot_histories[name] = m.RobotCurves(own, own, [0.0] * len(own), late)
    made.releases = [
        ReleaseInfo(
            id="a1b2c3d4" * 8, name="pick", sequence=4, created=0.0, put_at=time.time() - 7_510,
            by="ana", files=31, size=48_200_000, targets=[], nodes=list(names),
        )
    ]  # fmt: skip
    return made


PARAMS = (
    m.Param(
        key="horizon", value=2.5, declared=True, type="float", default=2.0, minimum=0.5,
        maximum=5.0, description="seconds ahead",
    ),
    m.Param(
        key="mode", value="slow", declared=True, type="string", default="slow",
        choices=["slow", "fast"], description="how the arm moves",
    ),
    m.Param(
        key="retries", value=3, declared=True, type="int", default=3, minimum=0, maximum=10,
        description="grasps until it gives up",
    ),
)  # fmt: skip


SHOTS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "fleet": ("fleet", (), " 10 min  cpu "),
    "robot": ("robot arm017", (), "8 of 8 edges"),
    "graph": ("graph pick", (), "XX broken"),
    "logs": ("logs pick", (), "40 lines"),
    "confirm": ("robot arm017", ("down", "down", "down", "a", "r"), "Restart the node?"),
    "help": ("help", (), "Keys"),
    "params": ("params arm017/pick planner", (), "3 of 3"),
    "plan": ("plan pick@4", (), "60 of 60 robots"),
}
"""The first screen, keys, and a text by which it is complete."""


async def shoot(name: str, size: tuple[int, int] = (100, 30)) -> tuple[str, str]:
    """Return one screen as SVG and as text."""
    start, keys, complete = SHOTS[name]
    with tempfile.TemporaryDirectory() as folder:
        async with console(
            Path(folder), fleet(), size=size, options=ConsoleOptions(start=start)
        ) as driven:
            await driven.until("60 robots")
            await ready(driven, keys, complete)
            return svg.drawing(driven.app), driven.text


async def ready(driven: Driven, keys: tuple[str, ...], complete: str) -> None:
    """Press keys one by one, and wait until the screen is complete."""
    if not keys:
        await driven.until(complete)
        return
    await driven.until("8 of 8 edges")
    # A screen below a dialog is laid out only once the dialog is closed.
    await driven.until("\n  NODE")
    for key in keys:
        await driven.press(key)
        if key == "a":
            await driven.until(lambda: isinstance(driven.app.screen, Choose))
    await driven.until(complete)


async def main() -> None:
    """Write all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "console"
    folder.mkdir(exist_ok=True)
    for name in SHOTS:
        svg, text = await shoot(name)
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
        print(f"wrote {folder / name}.svg")


if __name__ == "__main__":
    asyncio.run(main())
