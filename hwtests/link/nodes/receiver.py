"""Node: receives up to COUNT messages; writes when they were sent and received, in ns, to FILE."""

import sys
import time
from pathlib import Path

from dora import Node

count = int(sys.argv[1])
node = Node()
times: list[tuple[int, int]] = []
while len(times) < count:
    event = node.next()
    if event is None:
        break
    if event["type"] == "INPUT":
        now = time.monotonic_ns()
        times.append((event["value"].to_numpy()[:8].view("int64")[0], now))
Path(sys.argv[2]).write_text("".join(f"{sent} {received}\n" for sent, received in times))
