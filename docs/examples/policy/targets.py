"""Sends five targets, each when the arm has finished with the one before."""

import numpy as np
import pyarrow as pa
from dora import Node
from kinematics import hand

TARGETS = 5


def main() -> None:
    """Draw targets that the hand can reach."""
    node = Node()
    rng = np.random.default_rng(11)
    for _ in range(TARGETS):
        node.send_output("target", pa.array(hand(rng.uniform((0.1, 0.6), (1.4, 1.9)))))
        if node.next()["type"] != "INPUT":
            break


if __name__ == "__main__":
    main()
