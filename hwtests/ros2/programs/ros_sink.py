"""A node of a dataflow that receives what came from ROS 2: ros_sink.py WARM COUNT."""

import sys

from dora import Node
from ros_measure import QUIET_S, Measure

TIMEOUT_S = 60.0


def main() -> None:
    warm, count = map(int, sys.argv[1:])
    node, measure = Node(), Measure(warm, count)
    event = node.next(TIMEOUT_S)
    while event is not None and event["type"] == "INPUT":
        if measure.take(event["metadata"]["stamp_ns"]):
            break
        event = node.next(QUIET_S)
    measure.end()


main()
