"""Print how many numbers have come, how many are missing, and the longest pause, now and then."""

import time

from dora import Node

EVERY = 20

received, missing, expected, longest = 0, 0, None, 0.0
last = None
for event in Node():
    if event["type"] != "INPUT":
        continue
    now = time.monotonic()
    number = event["value"][0].as_py()
    if expected is not None:
        gap, pause = number - expected, now - last
        # A source that has started again counts from 0.
        missing, longest = missing + max(gap, 0), max(longest, pause)
        if gap:
            print(f"gap of {gap} before {number}", flush=True)
    received, expected, last = received + 1, number + 1, now
    if received % EVERY == 0:
        print(f"received {received}, missing {missing}, longest pause {longest:.2f}", flush=True)
