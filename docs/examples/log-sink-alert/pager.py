"""Prints alerts; a real pager calls a person."""

import json

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        alert = json.loads(event["value"][0].as_py())
        print(f"{alert['node_id']}: {alert['level']} {alert['message']}")
