"""A node that comes from a server."""

from dora import Node

Node()
print("I came from a server")
