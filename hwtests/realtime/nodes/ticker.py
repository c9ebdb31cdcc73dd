"""Receive ticks of a timer and write the lateness of each in µs as one JSON list."""

import json
import os
import time
from array import array
from pathlib import Path

from dora import Node

SKIPPED = 500
COUNT = int(os.environ["TICKS"])

late = array("d", bytes(8 * (COUNT + SKIPPED)))
node = Node()
seen = 0
for event in node:
    if event["type"] != "INPUT":
        continue
    now = time.time()
    late[seen] = (now - event["metadata"]["timestamp"].timestamp()) * 1e6
    seen += 1
    if seen == len(late):
        break
Path(os.environ["RESULT"]).write_text(json.dumps(list(late[SKIPPED:seen])), encoding="utf-8")
