"""Prints the report."""

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        uncopied, bright = event["value"].to_pylist()
        print(f"{uncopied} pictures without a copy, the last one as bright as {bright}")
