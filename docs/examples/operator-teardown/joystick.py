"""Moves the arm five times, then ends the process."""

import pyarrow as pa
from dora import DoraStatus

MOVES = 5


class Operator:
    def __init__(self):
        self.sent = 0

    def on_event(self, dora_event, send_output):
        if dora_event["type"] == "INPUT":
            self.sent += 1
            send_output("move", pa.array([self.sent]))
            if self.sent == MOVES:
                return DoraStatus.STOP_ALL
        return DoraStatus.CONTINUE
