"""Sends arrays of several types, and compares what comes back."""

import pyarrow as pa
from dora import Node

VALUES = {
    "numbers": pa.array([1, 2, 3]),
    "texts": pa.array(["left", None, "right"]),
    "detections": pa.array([{"label": "cup", "box": [0.1, 0.2]}, {"label": None, "box": []}]),
    "nothing": pa.array([], pa.int8()),
}


def main() -> None:
    """Send one value after the other."""
    node = Node()
    for name, value in VALUES.items():
        node.send_output("message", value, {"name": name})
        event = node.next(timeout=30)
        same = event["value"].equals(value) and event["metadata"]["name"] == name
        print(f"{name}: {event['value'].type}, {'the same' if same else 'different'}")


if __name__ == "__main__":
    main()
