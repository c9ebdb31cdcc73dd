"""Node: receives messages until the end."""

from dora import Node

for _ in Node():
    pass
