"""Logs forty steps, every tenth as a warning."""

from dora import Node

node = Node()
for step in range(40):
    if step % 10 == 9:
        node.log("warn", f"step {step} is hot", fields={"step": step})
    else:
        node.log("info", f"step {step}", fields={"step": step})
