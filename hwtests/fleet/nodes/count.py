"""Send a number at every tick."""

import pyarrow as pa
from dora import Node

node = Node()
number = 0
for event in node:
    if event["type"] == "INPUT":
        node.send_output("number", pa.array([number]))
        number += 1
