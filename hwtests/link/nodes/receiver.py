"""Node: receives COUNT messages and prints when they were sent and received, in ns."""

import sys
import time

from dora import Node

count = int(sys.argv[1])
node = Node()
print("ready", flush=True)
times = []
while len(times) < count:
    event = node.next()
    if event is None:
        break
    if event["type"] == "INPUT":
        now = time.monotonic_ns()
        times.append((event["value"].to_numpy()[:8].view("int64")[0], now))
for sent, received in times:
    print(sent, received)
