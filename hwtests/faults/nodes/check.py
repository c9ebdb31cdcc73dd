"""Checks that what arrives is whole and in order, and that nothing is missing without a reason.

A reason is a death between two messages: of the node that made them, of the one that passed them
on, or our own. Notes pauses between messages.
"""

from __future__ import annotations

import os
import struct
import time

import proof
from dora import Node

NOTABLE_NS = 50_000_000
LAST = struct.Struct("3Q")

counts = proof.Counts()  # received, missing because of a death, when the last one came
name = os.environ["FAULTS_NODE"]
last_file = os.open(proof.FOLDER / f"{name}.last", os.O_RDWR | os.O_CREAT)
data = os.pread(last_file, LAST.size, 0)
last = LAST.unpack(data) if data else None
pauses = (proof.FOLDER / f"{name}.pauses").open("a", buffering=1)
reborn = True

for event in Node():
    if event["type"] != "INPUT":
        continue
    now = time.monotonic_ns()
    if not reborn and now - counts.values[2] > NOTABLE_NS:
        pauses.write(f"{now} {now - counts.values[2]}\n")
    this = born, relay, sequence = proof.verify(event)
    if last is not None:
        if this[:2] < last[:2] or (this[:2] == last[:2] and sequence <= last[2]):
            proof.complain(f"{this} came after {last}")
        elif born == last[0] and sequence != last[2] + 1:
            missing = sequence - last[2] - 1
            if relay == last[1] and not reborn:
                proof.complain(f"{missing} messages are missing before {this}, and nobody died")
            elif missing < 0:
                proof.complain(f"{this} came after {last}: again, through another node")
            counts.values[1] += max(missing, 0)
    last, reborn = this, False
    counts.values[0] += 1
    counts.values[2] = now
    counts.write()
    os.pwrite(last_file, LAST.pack(*last), 0)
