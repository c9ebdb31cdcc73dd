"""Send five labels, one per tick, once the first image has been seen."""

import pyarrow as pa
from dora import Node

node = Node()
sent, seen = 0, False
for event in node:
    if event["type"] != "INPUT":
        continue
    if event["id"] == "image":
        seen = True
    elif seen and sent < 5:
        node.send_output("t", pa.array([f"answer {sent}"]))
        sent += 1
