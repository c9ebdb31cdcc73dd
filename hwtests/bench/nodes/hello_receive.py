"""Prints the greeting it receives and ends with its source."""

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        print("received", event["value"][0].as_py())
