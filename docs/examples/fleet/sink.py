"""Counts results, and reports when some are missing or late."""

import time

from dora import Node

LATE_S = 0.5

received, missing, expected, last = 0, 0, None, None
for event in Node():
    if event["type"] != "INPUT":
        continue
    now = time.monotonic()
    number = event["metadata"]["number"]
    gap = 0 if expected is None else number - expected
    late = 0.0 if last is None else now - last
    if late > LATE_S or gap:
        print(f"at picture {number}: {late:.2f} s late, {gap} missing", flush=True)
    received, missing, expected, last = received + 1, missing + gap, number + 1, now
print(f"received {received} results, {missing} pictures are missing", flush=True)
