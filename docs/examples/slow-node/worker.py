"""Works on each message for 5 ms, on every N-th for 400 ms, and sends the result."""

import argparse
import time

from dora import Node

USUAL_S, SLOW_S = 0.005, 0.4


def main() -> None:
    """Work until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    parser.add_argument("--slow-every", type=int, metavar="N")
    given = parser.parse_args()
    node = Node()
    count = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        count += 1
        slow = given.slow_every and count % given.slow_every == 0
        time.sleep(SLOW_S if slow else USUAL_S)
        if given.output:
            node.send_output(given.output, event["value"])


if __name__ == "__main__":
    main()
