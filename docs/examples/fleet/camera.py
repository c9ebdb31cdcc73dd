"""Sends a numbered picture at each tick."""

import numpy as np
import pyarrow as pa
from dora import Node

WIDTH, HEIGHT = 160, 120

node = Node()
sent = 0
for event in node:
    if event["type"] == "INPUT":
        picture = np.full(WIDTH * HEIGHT, sent % 200, dtype=np.uint8)
        node.send_output("image", pa.array(picture), {"number": sent})
        sent += 1
print(f"sent {sent} pictures", flush=True)
