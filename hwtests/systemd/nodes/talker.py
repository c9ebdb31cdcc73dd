"""Prints a numbered line on every tick."""

from dora import Node

number = 0
for event in Node():
    if event["type"] == "STOP":
        break
    if event["type"] == "INPUT":
        print(f"line {number}", flush=True)
        number += 1
