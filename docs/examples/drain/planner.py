"""Plans slowly, each time with all readings that have come meanwhile."""

import time

from dora import Node

PLANNING_S = 0.1


def main() -> None:
    """Take batches until the stream ends."""
    node = Node()
    readings, batches, running = [], 0, True
    while running:
        batch = [node.next()]
        time.sleep(PLANNING_S)
        if batch[0]["type"] != "STOP":
            batch += node.drain()
        new = [event["value"][0].as_py() for event in batch if event["type"] == "INPUT"]
        readings += new
        batches += bool(new)
        running = all(event["type"] != "STOP" for event in batch)
    in_order = readings == sorted(readings)
    print(f"{len(readings)} readings in {batches} batches, in order: {in_order}")


if __name__ == "__main__":
    main()
