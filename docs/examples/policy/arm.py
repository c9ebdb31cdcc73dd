"""A simulated arm, which moves by the actions of the policy until its hand is at the target."""

import numpy as np
import pyarrow as pa
from dora import Node
from kinematics import hand

NEAR_M = 0.03
MAX_STEPS = 60


def move(node: Node, angles: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, bool]:
    """Move to one target; return the new angles, and whether the hand came near."""
    for _ in range(MAX_STEPS):
        if np.linalg.norm(hand(angles) - target) < NEAR_M:
            return angles, True
        node.send_output("observation", pa.array(np.concatenate([angles, target])))
        event = node.next(timeout=30)
        if event["type"] != "INPUT":
            break
        angles = angles + event["value"].to_numpy()
    return angles, False


def main() -> None:
    """Move to one target after the other."""
    node = Node()
    angles, results = np.array([0.5, 1.0]), []
    for event in node:
        if event["type"] == "INPUT":
            angles, reached = move(node, angles, event["value"].to_numpy())
            results.append(reached)
            node.send_output("reached", pa.array([reached]))
        elif event["type"] == "INPUT_CLOSED":
            break  # no more targets; the policy waits for this node, so it does not end first
    print(f"reached {sum(results)} of {len(results)} targets")


if __name__ == "__main__":
    main()
