"""Prints what has come through all languages."""

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        value, metadata = event["value"], event["metadata"]
        print(f"{value.to_pylist()} {value.type};", end=" ")
        print(f"{metadata['count']} values from {metadata['languages']}")
