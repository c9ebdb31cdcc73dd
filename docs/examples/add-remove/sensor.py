"""Counts ticks."""

import pyarrow as pa
from dora import Node

node = Node()
for count, event in enumerate(node):
    if event["type"] == "INPUT":
        node.send_output("number", pa.array([count]))
