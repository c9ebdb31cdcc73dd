"""Print now and then how many numbers have come, how many are missing, and what else happened."""

import time

from dora import Node

EVERY_S = 0.4

received, missing, repeated, restarts, longest = 0, 0, 0, 0, 0.0
process, expected, last, printed = None, 0, None, 0.0
for event in Node():
    # The same clock on all robots of a test bed.
    now = time.monotonic()
    if event["type"] != "INPUT":
        print(f"event {event['type']} {event.get('id')}", flush=True)
        continue
    source, number = event["value"].to_pylist()
    if source != process:
        # The first number is missing nothing: what came before this node is not its business.
        restarts += process is not None
        process, expected = source, number
    if number < expected:
        repeated += 1
    else:
        if number > expected:
            print(f"gap of {number - expected} before {number} at {now:.3f}", flush=True)
        missing += number - expected
        expected = number + 1
    if last is not None:
        longest = max(longest, now - last)
    received, last = received + 1, now
    if now - printed > EVERY_S:
        printed = now
        print(
            f"received {received}, missing {missing}, repeated {repeated}, restarts {restarts}, "
            f"next {expected}, longest pause {longest:.2f}, at {now:.3f}",
            flush=True,
        )
