"""Send a number at every tick, with the number of this process."""

import pyarrow as pa
from dora import Node

node = Node()
number = 0
for event in node:
    if event["type"] == "INPUT":
        node.send_output("number", pa.array([node.restart_count(), number]))
        number += 1
