"""Logs lines of the severities that the command line names, six times."""

import sys

from dora import Node

node = Node()
for step in range(6):
    for severity in sys.argv[1:]:
        node.log(severity, f"step {step}", fields={"step": step})
node.log_info("done")
