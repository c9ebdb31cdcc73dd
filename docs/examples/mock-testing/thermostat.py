"""Switches the heating on below 19 degrees and off above 21.

`run` takes the node as an argument, so that a test can pass a `MockNode`.
"""

import pyarrow as pa
from dora import Node

ON_BELOW, OFF_ABOVE = 19.0, 21.0


def run(node: Node) -> None:
    """Send `heating` whenever it changes."""
    heating = False
    for event in node:
        if event["type"] != "INPUT":
            continue
        celsius = event["value"][0].as_py()
        wanted = celsius < ON_BELOW or (heating and celsius <= OFF_ABOVE)
        if wanted != heating:
            heating = wanted
            node.send_output("heating", pa.array([heating]))
            node.log_info(f"heating {'on' if heating else 'off'} at {celsius} degrees")


if __name__ == "__main__":
    run(Node())
