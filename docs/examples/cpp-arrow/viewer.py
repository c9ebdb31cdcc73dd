"""Prints the type and the first point."""

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        print(event["value"].type)
        print(event["value"][0].as_py())
