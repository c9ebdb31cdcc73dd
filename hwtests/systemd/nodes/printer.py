"""Prints numbered lines, PRINT_PER_S of them every second, or PRINT_BURST at once."""

import os
import sys
import time

from dora import Node

PER_SECOND = int(os.environ.get("PRINT_PER_S", "1000"))
BURST = int(os.environ.get("PRINT_BURST", "0"))
"""Lines to print at once; then nothing more."""

node = Node()
for each in range(BURST):
    print(f"line {each} of a burst")
sys.stdout.flush()
begun = time.monotonic()
done = 0
while True:
    due = 0 if BURST else int((time.monotonic() - begun) * PER_SECOND)
    while done < due:
        print(f"line {done}")
        done += 1
    sys.stdout.flush()
    time.sleep(0.005)
