"""Prints the messages of all inputs, also of those that are connected later."""

from dora import Node

for event in Node():
    if event["type"] == "INPUT":
        print(f"{event['id']}: {event['value'][0]}")
    elif event["type"] == "INPUT_CLOSED":
        print(f"lost the input {event['id']}")
