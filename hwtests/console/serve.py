"""A server with made-up robots: `python -m hwtests.console.serve SOCKET WHAT`.

WHAT is `still`, `changes` (500 robots change a second, of 500 with 40 nodes), `logs` (10,000 lines
a second), `picture` (an image of 640x480 as a robot's preview sends it), or `everything` with nodes
that fail and recover, for a soak.
"""

from __future__ import annotations

import asyncio
import random
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
from hwtests.console.child import CHANGES, LINES
from tests.console.fakefleet import FakeFleet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dorad.control.server import Call

STEP_S = 0.05


class Busy(FakeFleet):
    """Robots of which many change, and a node that writes very much."""

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
                for at in range(int(LINES * STEP_S))
            ]
            number += len(lines)
            yield m.LogLines(dataflow="pick", lines=lines)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def alarm(self) -> None:
        names = list(self.rows)
        while True:
            failed = random.choice(names)
            self.fail(failed)
            await asyncio.sleep(2.0)
            self.put(failed)
            self.judge(2.0)

    async def change(self) -> None:
        names = list(self.rows)
        while True:
            for name in random.sample(names, int(CHANGES * STEP_S)):
                self.put(name, cpu=float(random.randrange(100)), drops=random.random())
            await asyncio.sleep(STEP_S)

    async def film(self) -> None:
        number = 0
        reducer = Reducer(rate=10.0, size=(100, 60))
        across, down = np.linspace(0, 255, 640), np.linspace(0, 255, 480)
        scene = np.zeros((480, 640, 3), np.uint8)
        scene[:, :, 0], scene[:, :, 1] = across[None, :], down[:, None]
        scene[100:300, 200:400] = np.random.default_rng(1).integers(0, 255, (200, 200, 3))
        while True:
            number += 1
            image = np.roll(scene, 7 * number, axis=1)
            metadata = {"width": 640, "height": 480, "encoding": "rgb8"}
            array, metadata = reducer.reduce(pa.array(image.reshape(-1)), metadata)
            self.messages.append(("camera/image", array, metadata | {"at": time.time()}))
            self.bell.ring()
            await asyncio.sleep(0.25)


async def main() -> None:
    socket, what = sys.argv[1:]
    fleet = Busy(500)
    try:
        await serve(fleet, Path(socket), what)
    finally:
        print(len(fleet.changes), "changes", flush=True)


async def serve(fleet: Busy, socket: Path, what: str) -> None:
    """Serve until the end of the program."""
    fleet.pause = 10.0  # as often as the console asks for
    if what in ("logs", "everything"):
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
        case _:
            await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
