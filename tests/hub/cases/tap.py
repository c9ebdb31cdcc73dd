"""Write every event of this node to TAP_FILE, one JSON object a line."""

import datetime
import json
import os
from pathlib import Path

from dora import Node

node = Node()
with Path(os.environ["TAP_FILE"]).open("w", encoding="utf-8") as out:
    for event in node:
        line = {"type": event["type"], "id": event.get("id")}
        if event["type"] == "INPUT":
            value = event["value"]
            line.update(arrow=str(value.type), len=len(value), head=value.slice(0, 16).to_pylist())
            line["meta"] = {
                key: "AUTO" if isinstance(entry, datetime.datetime) else entry
                for key, entry in event["metadata"].items()
            }
        out.write(json.dumps(line) + "\n")
        out.flush()
