"""Counts ticks, and keeps the count when this file is changed."""

import pyarrow as pa
from dora import DoraStatus

STEP = 1


class Operator:
    def __init__(self):
        self.count = 0

    def on_event(self, dora_event, send_output):
        if dora_event["type"] == "INPUT":
            self.count += STEP
            send_output("count", pa.array([self.count]))
        elif dora_event["type"] == "RELOAD":
            print("the step is now", STEP)
        return DoraStatus.CONTINUE
