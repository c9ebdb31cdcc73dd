"""Print each input as a line of JSON."""

import datetime
import json

from dora import Node

for event in Node():
    if event["type"] != "INPUT":
        continue
    value, metadata = event["value"], event["metadata"]
    for name, found in metadata.items():
        if isinstance(found, datetime.datetime):
            metadata[name] = "AUTO"
    line = {"id": event["id"], "arrow": str(value.type), "len": len(value), "meta": metadata}
    print(json.dumps(line), flush=True)
