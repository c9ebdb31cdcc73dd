"""Passes on even numbers."""

from dora import Node

node = Node()
for event in node:
    if event["type"] == "INPUT" and event["value"][0].as_py() % 2 == 0:
        node.send_output("even", event["value"])
