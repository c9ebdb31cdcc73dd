"""Print a line, log a warning, and fail with two chained tracebacks."""

import logging

from dora import Node

logging.basicConfig(level=logging.INFO)
node = Node()
print("plain text")
node.log("warn", "lens is hot", target="lens", fields={"degrees": 71})
try:
    node.param("nothing")
except KeyError as error:
    raise RuntimeError("no camera") from error
