"""Sends the mean brightness of each picture."""

import pyarrow as pa
from dora import Node

node = Node()
received = 0
for event in node:
    if event["type"] == "INPUT":
        received += 1
        brightness = float(event["value"].to_numpy().mean())
        number = event["metadata"]["number"]
        node.send_output("brightness", pa.array([brightness]), {"number": number})
print(f"received {received} pictures", flush=True)
