"""Prints the number that comes out of the last stage."""

import sys

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        print(f"{sys.argv[1]} stages made {event['value'][0]} of 1")
