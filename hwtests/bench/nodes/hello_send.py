"""Sends one greeting and ends."""

import pyarrow as pa
from dora import Node

node = Node()
node.send_output("greeting", pa.array(["hello"]))
print("sent a greeting")
