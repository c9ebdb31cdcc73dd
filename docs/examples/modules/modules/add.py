"""Adds an offset to numbers, if the dataflow connects one."""

import pyarrow as pa
import pyarrow.compute as pc
from dora import Node


def main() -> None:
    """Keep the numbers until the offset is known, then send each at once."""
    node = Node()
    offset = None if "offset" in node.node_config()["inputs"] else pa.scalar(0)
    waiting: list[pa.Array] = []
    for event in node:
        if event["type"] != "INPUT":
            continue
        if event["id"] == "offset":
            offset = event["value"][0]
        else:
            waiting.append(event["value"])
        if offset is not None:
            for numbers in waiting:
                node.send_output("y", pc.add(numbers, offset))
            waiting.clear()


if __name__ == "__main__":
    main()
