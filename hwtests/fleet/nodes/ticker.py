"""Count ticks until the end."""

from dora import Node

for number, event in enumerate(Node()):
    if event["type"] == "INPUT" and number % 50 == 0:
        print(f"tick {number}", flush=True)
