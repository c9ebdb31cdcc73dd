"""Send numbered messages of two sizes, and tell when each pair was sent."""

import time

import pyarrow as pa
from dora import Node

node = Node()
for count, event in enumerate(node):
    if event["type"] == "STOP":
        break
    node.send_output("number", pa.array([count]))
    node.send_output("block", pa.array([count] * 20_000))
    print(f"sent at {time.time():.3f}", flush=True)
