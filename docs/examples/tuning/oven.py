"""Simulates an oven, and prints its temperature when that is steady."""

import pyarrow as pa
from dora import Node

ROOM, WANTED, STEP = 20.0, 60.0, 0.05
STEADY, REPORT_TICKS = 0.001, 20


def main() -> None:
    """Warm up by what the controller sends, and cool down by the difference to the room."""
    node = Node()
    degrees, heat, ticks, before = ROOM, 0.0, 0, 0.0
    for event in node:
        if event["type"] != "INPUT":
            continue
        if event["id"] == "heat":
            heat = event["value"][0].as_py()
            continue
        degrees += STEP * (heat - (degrees - ROOM))
        node.send_output("degrees", pa.array([degrees, WANTED]))
        ticks += 1
        if ticks % REPORT_TICKS == 0:
            if abs(degrees - before) < STEADY:
                print(f"steady at {degrees:.1f} degrees, off by {WANTED - degrees:.1f}")
            before = degrees


if __name__ == "__main__":
    main()
