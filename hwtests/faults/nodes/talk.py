"""Print numbered lines on every tick, and record how many."""

import os
import sys

import checked
from dora import Node

counts = checked.Counts()  # lines
LINES = int(os.environ["FAULTS_LINES"])

for event in Node():
    if event["type"] == "INPUT":
        for _ in range(LINES):
            sys.stdout.write(f"line {counts.values[0]}\n")
            counts.values[0] += 1
        sys.stdout.flush()
        counts.write()
    elif event["type"] == "STOP":
        break
