"""Sends an action for each observation."""

from pathlib import Path

import pyarrow as pa
from dora import Node
from model import Policy


def main() -> None:
    """Load the policy, then act."""
    policy = Policy.load(Path("out/policy.npz"))
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            (action,) = policy(event["value"].to_numpy()[None])
            node.send_output("action", pa.array(action))


if __name__ == "__main__":
    main()
