"""Leaves at its first tick: what a start and an end cost, without data."""

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        break
