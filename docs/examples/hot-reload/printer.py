"""Prints each count."""

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        print("count is", event["value"][0])
