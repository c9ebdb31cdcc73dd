"""Sends the temperatures of a room that cools down and warms up again."""

import pyarrow as pa
from dora import Node

CELSIUS = [21.0, 19.8, 18.9, 18.5, 19.6, 21.1, 22.3]


def main() -> None:
    """Send one temperature for each tick."""
    node = Node()
    temperatures = iter(CELSIUS)
    for event in node:
        if event["type"] != "INPUT":
            continue
        celsius = next(temperatures, None)
        if celsius is None:
            break
        node.send_output("celsius", pa.array([celsius]))


if __name__ == "__main__":
    main()
