"""Send numbered messages on every tick."""

import checked
from dora import Node

sequence = 0
node = Node()
for event in node:
    if event["type"] == "INPUT":
        checked.send(node, "data", sequence)
        sequence += 1
    elif event["type"] == "STOP":
        break
