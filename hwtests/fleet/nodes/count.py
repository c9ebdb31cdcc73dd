"""Send a number at every tick, with what tells this process from the one before."""

import os

import pyarrow as pa
from dora import Node

node = Node()
process = int.from_bytes(os.urandom(4))
number = 0
for event in node:
    if event["type"] == "INPUT":
        node.send_output("number", pa.array([process, number]))
        number += 1
