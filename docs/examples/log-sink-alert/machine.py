"""Logs ten problems, and many lines that are no problem."""

import sys

from dora import Node

severity, problem = sys.argv[1:]
node = Node()
for count in range(1, 11):
    node.log_info("all is well")
    node.log(severity, f"{problem} {count}")
