"""Node: sends messages with the time in their first eight bytes: COUNT SIZE INTERVAL_S."""

import sys
import time

import numpy as np
import pyarrow as pa
from dora import Node

count, size, interval_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
node = Node()
# Both systems may still connect the nodes of two machines.
time.sleep(1.0)
data = np.zeros(size, dtype=np.uint8)
stamp = data[:8].view(np.int64)
due = time.monotonic()
for _ in range(count):
    if interval_s:
        due += interval_s
        time.sleep(max(0.0, due - time.monotonic()))
    stamp[0] = time.monotonic_ns()
    node.send_output("out", pa.array(data))
