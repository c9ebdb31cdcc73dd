"""A server with made-up robots: `python -m hwtests.console.serve SOCKET WHAT`.

WHAT is `still`, `changes` (500 robots change a second, of 500 with 40 nodes), `logs` (10,000 lines
a second), `picture` (an image of 640x480 as a robot's preview sends it), `everything` with nodes
that fail and recover, or `moving`, which is all of it for 200 robots that come and go, for a soak.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dorad.control import messages as m
from dorad.daemon.subscription.reducing import Reducer
from dorad.logrecord import LogRecord
from dorafleet.rollout.messages import ReleaseInfo, RolloutRobot, RolloutSummary, RolloutUpdate
from hwtests.console.child import CHANGES, LINES
from hwtests.console.pictures import PARAMS
from tests.console.fakefleet import FakeFleet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dorad.control.server import Call

STEP_S = 0.05
ROBOTS, STAY = 200, 100
"""Robots of a moving fleet, and those of them that never leave."""
MOVE_S = 0.2
"""Seconds between two robots that leave, for each of which a new one comes."""
CROWD_S, CROWD = 120.0, 50
"""For so many seconds so many leave at once: caches of names, of up to 10,000, are full then."""
MAX_MESSAGES = 50
"""Messages that are kept for subscribers."""


class Busy(FakeFleet):
    """Robots of which many change, and a node that writes very much."""

    lines_a_second = LINES

    async def log_lines(self, _call: Call, _params: m.LogRead) -> AsyncIterator[m.LogLines]:
        number = 0
        while True:
            due = time.monotonic() + STEP_S
            lines = [
                LogRecord(
                    timestamp=time.time(),
                    level="info",
                    node="camera",
                    message=f"line {number + at} of many that come",
                )
                for at in range(int(self.lines_a_second * STEP_S))
            ]
            number += len(lines)
            yield m.LogLines(dataflow="pick", lines=lines)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def alarm(self) -> None:
        names = list(self.rows)[:STAY]
        while True:
            failed = random.choice(names)
            self.fail(failed)
            await asyncio.sleep(2.0)
            self.put(failed)
            self.judge(2.0)

    async def change(self) -> None:
        while True:
            for name in random.sample(list(self.rows), int(CHANGES * STEP_S)):
                self.put(name, cpu=float(random.randrange(100)), drops=random.random())
            await asyncio.sleep(STEP_S)

    async def move(self) -> None:
        """Let robots leave for ever, others lose contact, and new ones come."""
        number, began = len(self.rows), time.monotonic()
        while True:
            for _ in range(CROWD if time.monotonic() < began + CROWD_S else 1):
                number += 1
                del self.rows[list(self.rows)[STAY]]
                self.put(f"arm{number:03}")
            lost = random.choice(list(self.rows)[STAY:])
            self.put(lost, state="unreach", why="no contact, was well", known=False)
            await asyncio.sleep(MOVE_S)

    async def film(self) -> None:
        number = 0
        across, down = np.linspace(0, 255, 640), np.linspace(0, 255, 480)
        scene = np.zeros((480, 640, 3), np.uint8)
        scene[:, :, 0], scene[:, :, 1] = across[None, :], down[:, None]
        scene[100:300, 200:400] = np.random.default_rng(1).integers(0, 255, (200, 200, 3))
        while True:
            number += 1
            image = np.roll(scene, 7 * number, axis=1)
            metadata = {"width": 640, "height": 480, "encoding": "rgb8"}
            asked = self.subscriptions[-1].preview if self.subscriptions else None
            size = (100, 60) if asked is None else (asked.width, asked.height)
            array, metadata = Reducer(rate=10.0, size=size).reduce(
                pa.array(image.reshape(-1)), metadata
            )
            if len(self.messages) == MAX_MESSAGES:
                self.messages, self._sent = [], 0
            self.messages.append(("camera/image", array, metadata | {"at": time.time()}))
            self.bell.ring()
            await asyncio.sleep(0.25)


def moving() -> Busy:
    """Return a fleet that has something for each screen."""
    fleet, now = Busy(ROBOTS, nodes=10), time.time()
    fleet.lines_a_second = LINES // 10
    fleet.params = {"arm001/pick": list(PARAMS)}
    fleet.releases = [
        ReleaseInfo(
            id="a1b2c3d4" * 8, name="pick", sequence=4, created=0.0, put_at=now, by="ana",
            files=31, size=48_200_000, targets=[], nodes=["camera", "planner"],
        )
    ]  # fmt: skip
    rollout = RolloutSummary(
        rollout=12, dataflow="pick", release="a1b2c3", name="pick@4", phase="rolling", since=now,
        by="ana", created=now, size=10, counts={"confirmed": 2, "waiting": 8},
    )  # fmt: skip
    robots = [
        RolloutRobot(rollout=12, robot=f"arm{at:03}", batch=1, state="waiting", reachable=True)
        for at in range(1, 9)
    ]
    fleet.update = RolloutUpdate(rollouts=[rollout], robots=robots)
    fleet.audit = [
        {"time": now, "peer": "ana", "client": "dorafleet console", "action": "rollout.start"}
    ] * 200
    fleet.traces = [
        m.Trace(
            id=f"{at:032x}", dataflow="1", start=now + at, duration=at / 1e3, machine="arm001",
            path="camera/tick → camera → planner", span_count=1, dataflow_name="pick",
            spans=[
                m.Span(
                    topic="camera/tick", node="camera", input="tick", sent=0.0, tick=True,
                    received=0.0, done=at / 1e3,
                )
            ],
        )
        for at in range(1, 100)
    ]  # fmt: skip
    return fleet


async def main() -> None:
    socket, what = sys.argv[1:]
    fleet = moving() if what == "moving" else Busy(500)
    task = asyncio.current_task()
    assert task is not None
    # In the background of a script SIGINT is ignored.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await serve(fleet, Path(socket), what)
    finally:
        print(len(fleet.changes), "changes", flush=True)


async def serve(fleet: Busy, socket: Path, what: str) -> None:
    """Serve until the end of the program."""
    fleet.pause = 10.0  # as often as the console asks for
    if what in ("logs", "everything", "moving"):
        fleet.read_logs = fleet.log_lines
    await fleet.serve(socket)
    print("ready", flush=True)
    match what:
        case "changes":
            await fleet.change()
        case "picture":
            await fleet.film()
        case "everything":
            await asyncio.gather(fleet.change(), fleet.film(), fleet.alarm())
        case "moving":
            await asyncio.gather(fleet.change(), fleet.film(), fleet.alarm(), fleet.move())
        case _:
            await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(main())
