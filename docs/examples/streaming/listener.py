"""Detects a loud sound, and interrupts the assistant's voice."""

import numpy as np
from dora import Node

LOUD = 0.1


def main() -> None:
    """Send one `flush` for the session `voice` when the sound gets loud."""
    node = Node()
    for event in node:
        if event["type"] != "INPUT":
            continue
        sound = event["value"].to_numpy()
        if np.sqrt(np.mean(sound**2)) > LOUD:
            node.send_output("interrupt", b"", {"session_id": "voice", "flush": True})
            break


if __name__ == "__main__":
    main()
