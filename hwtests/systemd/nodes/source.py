"""Sends numbered messages, each with a checksum and the moment it was sent, on every tick."""

import os
import struct
import time
import zlib

import numpy as np
import pyarrow as pa
from dora import Node

MEGABYTES = float(os.environ.get("LOAD_MEGABYTES", "0"))
"""Of payload; 0 sends the number alone."""
HEAD = struct.Struct("<3Q")

payload = np.random.default_rng(1).integers(0, 255, int(MEGABYTES * (1 << 20)), dtype=np.uint8)
seed = zlib.crc32(payload.data)
number = 0
node = Node()
for event in node:
    if event["type"] == "STOP":
        break
    if event["type"] != "INPUT":
        continue
    sent = time.monotonic_ns()
    head = HEAD.pack(number, sent, zlib.crc32(struct.pack("<2Q", number, sent), seed))
    if len(payload):
        image = node.empty(HEAD.size + len(payload))
        image[: HEAD.size] = np.frombuffer(head, dtype=np.uint8)
        image[HEAD.size :] = payload
        node.send_output("data", image)
    else:
        node.send_output("data", pa.array(np.frombuffer(head, dtype=np.uint8)))
    number += 1
