"""Check that messages are whole and in order, and that none is missing without a reason.

A reason is an exit between two messages: of the node that sent them, of the node that passed them
on, or of this one. It records pauses between messages.
"""

import os
import struct
import time

import checked
from dora import Node

NOTABLE_NS = 50_000_000
LAST = struct.Struct("3Q")

counts = checked.Counts()  # received, missing because of an exit, time of the last one
name = os.environ["FAULTS_NODE"]
last_file = os.open(checked.FOLDER / f"{name}.last", os.O_RDWR | os.O_CREAT)
data = os.pread(last_file, LAST.size, 0)
last = LAST.unpack(data) if data else None
pauses = (checked.FOLDER / f"{name}.pauses").open("a", buffering=1)
restarted = True

for event in Node():
    if event["type"] != "INPUT":
        continue
    now = time.monotonic_ns()
    if not restarted and now - counts.values[2] > NOTABLE_NS:
        pauses.write(f"{now} {now - counts.values[2]}\n")
    this = origin, relay, sequence = checked.verify(event)
    if last is not None:
        if this[:2] < last[:2] or (this[:2] == last[:2] and sequence <= last[2]):
            checked.report_fault(f"{this} came after {last}")
        elif origin == last[0] and sequence != last[2] + 1:
            missing = sequence - last[2] - 1
            if relay == last[1] and not restarted:
                checked.report_fault(
                    f"{missing} messages are missing before {this}, and no node has exited"
                )
            elif missing < 0:
                checked.report_fault(f"{this} came after {last}: again, through another node")
            counts.values[1] += max(missing, 0)
    last, restarted = this, False
    counts.values[0] += 1
    counts.values[2] = now
    counts.write()
    os.pwrite(last_file, LAST.pack(*last), 0)
