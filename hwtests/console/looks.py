"""Make pictures of screens to look at: `python -m hwtests.console.looks FOLDER [PATTERN...]`.

Each screen comes in three sizes, dark, light, without colour, and without colour and UTF-8, as SVG
and as text. A pattern such as `trace-80-*` chooses some of them.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import tempfile
import time
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from dorad.control import messages as m
from dorad.logrecord import RAW, LogRecord
from dorafleet.console.options import ConsoleOptions
from hwtests.console import svg
from hwtests.console.pictures import fleet
from tests.console.driving import console
from tests.console.fakefleet import FakeFleet, edge, node

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.logrecord import Level

SIZES = ((80, 24), (120, 40), (160, 45))
LOOKS = {
    "dark": ConsoleOptions(theme="dark"),
    "light": ConsoleOptions(theme="light"),
    "mono": ConsoleOptions(theme="mono"),
    "ascii": ConsoleOptions(theme="mono", ascii_only=True),
}


class Look(NamedTuple):
    """A screen, and how it comes to be complete."""

    fleet: Callable[[], FakeFleet]
    start: str
    complete: str
    """A text by which it is there."""
    keys: tuple[str, ...] = ()
    """What is pressed then."""
    after: str = ""
    """A text by which it is complete after the keys."""


def sending(value: object, metadata: dict[str, object] | None = None) -> Callable[[], FakeFleet]:
    """Return a fleet whose camera sends a struct, or an array, again and again."""

    def made() -> FakeFleet:
        sends = FakeFleet(1)
        array = value if isinstance(value, pa.Array) else pa.array([value])
        sends.messages = [("camera/image", array, metadata or {})] * 40
        return sends

    return made


POSE = {
    "header": {"frame": "map", "stamp": 1_796_000_000.25, "seq": 4711},
    "pose": {
        "position": {"x": 12.503, "y": -2.004, "z": 0.12},
        "orientation": {"x": 0.0, "y": 0.0, "z": 0.7071, "w": 0.7071},
        "covariance": [0.01 * at for at in range(36)],
    },
    "moving": True,
    "objects": [
        {
            "id": at,
            "kind": kind,
            "box": {"x": 1.5 * at, "y": 3.25, "w": 0.4, "h": 1.7},
            "score": 0.9,
        }
        for at, kind in enumerate(("person", "forklift", "pallet", "person", "cone"))
    ],
    "note": "Förderband 3: Förderhöhe überschritten, fährt langsam zurück auf die Ruhelage",
    "battery": None,
}


def scene() -> pa.Array:
    """Return the pixels of something that is known: a sphere before a chequered wall."""
    high, wide = 480, 640
    y, x = np.mgrid[0:high, 0:wide]
    wall = ((x // 40 + y // 40) % 2)[..., None] * np.array([40, 60, 90]) + np.array([40, 40, 60])
    dx, dy = (x - 320) / 170, (y - 230) / 170
    inside = dx * dx + dy * dy < 1
    dz = np.sqrt(np.clip(1 - dx * dx - dy * dy, 0, 1))
    light = np.clip(0.6 * dz - 0.5 * dx - 0.5 * dy, 0.05, 1)[..., None]
    pixels = np.where(inside[..., None], light * np.array([255, 140, 60]), wall)
    return pa.array(pixels.astype(np.uint8).reshape(-1))


def room() -> dict[str, object]:
    """Return a scan of a room of 8 by 5 m, with a pillar and a door."""
    ranges: list[float | None] = []
    for at in range(720):
        angle = -math.pi + at * math.tau / 720
        ahead, left = math.cos(angle), math.sin(angle)
        wall = min(4.0 / max(abs(ahead), 1e-9), 2.5 / max(abs(left), 1e-9))
        if 0.9 < angle < 1.1:
            ranges.append(None)  # the door
        else:
            ranges.append(1.4 if abs(angle - 0.4) < 0.12 else wall)
    return {"angle_min": -math.pi, "angle_increment": math.tau / 720, "ranges": ranges}


def plotted() -> FakeFleet:
    """Return a fleet whose camera sends four values that change."""
    sends = FakeFleet(1)
    sends.messages = [
        (
            "camera/image",
            pa.array([{"x": math.sin(at / 9), "y": math.cos(at / 5) / 2, "z": at / 80}]),
            {},
        )
        for at in range(120)
    ]
    return sends


def graph_of(nodes: int) -> Callable[[], FakeFleet]:
    """Return a fleet with a dataflow of so many nodes, in layers, of which some have trouble."""

    def made() -> FakeFleet:
        drawn, chance = FakeFleet(1, nodes=0), random.Random(nodes)
        across = max(3, nodes // 10)
        names = [f"{kind}_{at:02}" for at in range(nodes) for kind in [KINDS[at * 7 // nodes]]]
        edges = []
        for at in range(across, nodes):
            for source in {max(0, at - across - chance.randrange(across)) for _ in range(2)}:
                trouble = {"drop_rate": 4.1, "dropped": 900} if at % 17 == 0 else {}
                trouble |= {"broken": True, "rate": 0.0} if at % 29 == 0 else {}
                edges.append(
                    edge("arm001", f"{names[source]}/out", f"{names[at]}/in_{source}", **trouble)
                )
        edges.append(edge("arm001", f"{names[-1]}/out", f"{names[across]}/back"))
        states = {names[nodes // 2]: "failed", names[nodes // 3]: "degraded"}
        top = m.Top(
            at=time.time(),
            window=3.0,
            nodes=[node("arm001", each, status=states.get(each, "running")) for each in names],
            edges=edges,
        )
        drawn.top = lambda: top
        return drawn

    return made


KINDS = ("camera", "lidar", "detect", "track", "fuse", "plan", "drive")


def traced() -> FakeFleet:
    """Return a fleet with traces of several nodes."""
    made = FakeFleet(1)
    names = ("camera", "detector", "tracker", "planner", "control")
    made.traces = []
    for number in range(1, 40):
        at, spans = 0.0, []
        for place, name in enumerate(names):
            wait, work = 0.001 * (number % 7), 0.004 + 0.002 * ((number + place) % 5)
            topic = f"{names[place - 1]}/out" if place else "camera/tick"
            spans.append(
                m.Span(
                    topic=topic, node=name, input="in", sent=at, tick=not place,
                    parent=place - 1 if place else None, received=at + wait,
                    done=at + wait + work, wait=wait,
                )
            )  # fmt: skip
            at += wait + work
        made.traces.append(
            m.Trace(
                id=f"{number:032x}", dataflow="1", start=1_796_000_000.0 + number, duration=at,
                path=" → ".join(("camera/tick", *names)), span_count=len(spans), spans=spans,
                machine="arm001", dataflow_name="pick", dropped=int(number % 9 == 0),
            )
        )  # fmt: skip
    return made


def logged() -> FakeFleet:
    """Return a fleet whose nodes log of everything: levels, fields, a traceback, repetitions."""
    made, now = FakeFleet(2), time.time() - 90
    texts: list[tuple[str, Level, str, dict[str, object] | None]] = [
        ("planner", "info", "grasp 41 planned in 12.3 ms", {"grasp": 41, "ms": 12.3, "ok": True}),
        ("camera", "debug", "exposure 8.3 ms, gain 2.0", None),
        ("gripper", "warn", "force sensor: 12.1 N is above the limit of 10 N", {"force": 12.1}),
        ("camera", "warn", "frame came late", None),
        ("camera", "warn", "frame came late", None),
        ("gripper", RAW, "Traceback (most recent call last):", None),
        ("gripper", RAW, '  File "/opt/arm/gripper.py", line 88, in close', None),
        ("gripper", RAW, "    self.bus.write(frame)", None),
        ("gripper", RAW, "OSError: [Errno 5] Input/output error: /dev/ttyUSB0", None),
        ("control", "error", "no answer of the gripper within 500 ms; the arm stands still", None),
        ("logger", "info", "Förderband 3: Höhe 1,20 m überschritten ✓ " + "lang " * 30, None),
    ]
    made.lines = [
        LogRecord(
            timestamp=now + at * 0.9, level=level, node=name, message=text, fields=fields,
            machine=f"arm{at % 2 + 1:03}",
        )
        for at, (name, level, text, fields) in enumerate(texts * 4)
    ]  # fmt: skip
    return made


TOPIC = "topic arm001/pick camera/image"
SCREENS: dict[str, Look] = {
    "fields": Look(sending(POSE), TOPIC, "covariance"),
    "fields-plot": Look(
        plotted, f"{TOPIC} fields", "view: fields", ("enter", "down", "enter"), "last 30"
    ),
    "table": Look(sending(POSE), f"{TOPIC} table", "forklift"),
    "picture": Look(
        sending(scene(), {"width": 640, "height": 480, "encoding": "rgb8"}), TOPIC, "640x480"
    ),
    "scan": Look(sending(room()), TOPIC, "nearest"),
    "plot": Look(plotted, f"{TOPIC} plot", "last 30"),
    "echo": Look(sending(POSE), f"{TOPIC} echo", "#40"),
    "trace": Look(traced, "trace arm001/pick", "39 of 39", ("down", "down"), "detector"),
    "graph-60": Look(graph_of(60), "graph arm001/pick", "60 nodes"),
    "graph-60-near": Look(graph_of(60), "graph arm001/pick detect_24", "neighbours"),
    "graph-60-all": Look(graph_of(60), "graph arm001/pick", "60 nodes", ("o", "o"), "order: all"),
    "graph-200": Look(graph_of(200), "graph arm001/pick", "200 nodes"),
    "logs": Look(logged, "logs pick", "40 lines"),
    "logs-line": Look(
        logged, "logs pick", "40 lines", ("up", *["up"] * 11, "enter", "slash", *"force"), "force"
    ),
    "logs-beside": Look(logged, "logs pick", "40 lines", ("s",), "control"),
    "fleet": Look(fleet, "fleet", "60 robots"),
    "robot": Look(fleet, "robot arm017", "8 of 8 edges"),
    "graph-7": Look(fleet, "graph pick", "XX broken"),
}


async def shoot(name: str, size: tuple[int, int], look: str) -> tuple[str, str]:
    """Return one screen as SVG and as text."""
    screen, options = SCREENS[name], LOOKS[look]
    given = ConsoleOptions(theme=options.theme, ascii_only=options.ascii_only, start=screen.start)
    with tempfile.TemporaryDirectory() as folder:
        async with console(Path(folder), screen.fleet(), size=size, options=given) as driven:
            await driven.until(screen.complete)
            for key in screen.keys:
                await driven.press(key)
            await driven.until(screen.after)
            return svg.drawing(driven.app), driven.text


def main() -> None:
    """Write the pictures into a folder."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder, *patterns = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, size, look in product(SCREENS, SIZES, LOOKS):
        title = f"{name}-{size[0]}-{look}"
        if any(fnmatch(title, each) for each in patterns or ["*"]):
            drawing, text = asyncio.run(shoot(name, size, look))
            Path(folder, f"{title}.svg").write_text(drawing, encoding="utf-8")
            Path(folder, f"{title}.txt").write_text(text + "\n", encoding="utf-8")
            print(f"wrote {folder}/{title}.svg", flush=True)


if __name__ == "__main__":
    main()
