"""Logs thirty lines."""

from dora import Node

node = Node()
for step in range(30):
    node.next()
    node.log_info(f"step {step}")
