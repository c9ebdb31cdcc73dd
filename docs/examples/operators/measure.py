"""Counts pictures that came without a copy, and measures how bright they are."""

import pyarrow as pa
from dora import DoraStatus


class Operator:
    def __init__(self):
        self.uncopied = 0
        self.bright = 0

    def on_event(self, dora_event, send_output):
        if dora_event["type"] == "INPUT":
            value = dora_event["value"]
            if dora_event["id"] == "dark":
                self.uncopied += value.buffers()[1].address == dora_event["metadata"]["address"]
            else:
                self.bright = value[0].as_py()
        elif dora_event["type"] == "STOP":
            send_output("report", pa.array([self.uncopied, self.bright]))
        return DoraStatus.CONTINUE
