"""Logs through the node, through Python's logging, and with print."""

import logging

from dora import Node

log = logging.getLogger("robot.arm")


def main() -> None:
    """Log a few lines for three ticks, then end."""
    node = Node()
    logging.basicConfig(level=logging.INFO)

    node.log_info("ready")
    node.log("info", "gripper closed", target="gripper", fields={"force": "12 N"})
    log.info("arm homed in %d steps", 3)

    ticks = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        ticks += 1
        print(f"tick {ticks}: a plain line has no level")
        node.log_debug("nothing unusual")
        if ticks == 3:
            break

    log.warning("joint 2 is warm")
    node.log_error("battery low")


if __name__ == "__main__":
    main()
